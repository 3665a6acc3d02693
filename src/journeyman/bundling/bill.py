"""The software bill of a bundle, in CycloneDX's JSON: models, data, and the programs that made and evaluated them.

Source: https://cyclonedx.org/docs/1.6/json.
"""

from __future__ import annotations

import importlib.metadata
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import journeyman
from journeyman.artifacts import hash_of, hash_of_file, write_json
from journeyman.bundling.results import Results
from journeyman.lineage import files_below
from journeyman.manifests import BundleManifest
from journeyman.model_files import name_of_model

BILL_FILE = "bom.cdx.json"
_WEIGHTS = (".gguf", ".safetensors")
_MADE_WITH = ("torch", "gguf", "safetensors", "tokenizers", "xllamacpp", "transformers", "peft")


def write_bill(results: Results, bundle: BundleManifest, license: str | None, out: Path) -> None:
    """Writes the bill of a bundle or target next to its other files, which are all there.

    Args:
        license: what the base says about its license; None: nothing.
    """
    weights = {one: out / one for one in files_below(out) if one.endswith(_WEIGHTS)}
    write_json(out / BILL_FILE, _software_bill(results, bundle, license, weights))


def _software_bill(
    results: Results, bundle: BundleManifest, license: str | None, weights: Mapping[str, Path]
) -> dict[str, Any]:
    """The document. The same files have the same bill, so it has no date; the manifest has one."""
    base, dataset = results.plan, results.dataset
    components = [
        _model("base", name_of_model(Path(bundle.base_path)), bundle.base_sha256, license),
        *(
            [_model("trained-on", name_of_model(Path(base.base_path)), base.base_sha256, license)]
            if base.base_sha256 != bundle.base_sha256
            else []
        ),
        *(_model(f"file:{name}", name, hash_of_file(path), None) for name, path in weights.items()),
        {
            "type": "data", "bom-ref": "data", "name": "training data",
            "properties": _properties({
                "rows": dataset.kept, "training-tokens": dataset.train_tokens,
                **{f"teacher:{name}": f"{one.rows} rows, terms: {one.terms}"
                   for name, one in dataset.teacher_terms.items() if one.rows},
            }),
        },
        *_libraries(),
    ]  # fmt: skip
    engine = results.evaluation.engine
    bill: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": {
                "components": [{"type": "application", "name": "journeyman", "version": journeyman.__version__}]
            },
            "component": {
                "type": "machine-learning-model", "bom-ref": "bundle", "name": "tuned model",
                "properties": _properties({"roles": ", ".join(bundle.roles), "evaluated-with": engine.line()}),
            },
        },
        "components": components,
        "dependencies": [{"ref": "bundle", "dependsOn": sorted(str(one["bom-ref"]) for one in components)}],
    }  # fmt: skip
    return bill | {"serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, hash_of(bill))}"}


def _model(ref: str, name: str, sha256: str, license: str | None) -> dict[str, Any]:
    named = {} if license is None else {"licenses": [{"license": {"name": license}}]}
    hashes = [{"alg": "SHA-256", "content": sha256}]
    return {"type": "machine-learning-model", "bom-ref": ref, "name": name, "hashes": hashes, **named}


def _libraries() -> list[dict[str, Any]]:
    found = []
    for name in _MADE_WITH:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        purl = f"pkg:pypi/{name}@{version}"
        found.append({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl})
    return found


def _properties(values: Mapping[str, object]) -> list[dict[str, str]]:
    return [{"name": f"journeyman:{name}", "value": str(value)} for name, value in values.items()]
