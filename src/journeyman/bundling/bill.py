"""The software bill of a bundle, in CycloneDX's JSON: models, data, and the programs that made and evaluated them.

Source: https://cyclonedx.org/docs/1.6/json.
"""

from __future__ import annotations

import importlib.metadata
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import journeyman
from journeyman.artifacts import hash_of_file
from journeyman.bundling.source import Source
from journeyman.manifests import BundleManifest
from journeyman.model_files import name_of_model

BILL_FILE = "bom.cdx.json"
_MADE_WITH = ("torch", "gguf", "safetensors", "tokenizers", "xllamacpp", "transformers", "peft")


def software_bill(source: Source, bundle: BundleManifest, weights: Mapping[str, Path]) -> dict[str, Any]:
    """The document.

    Args:
        bundle: of the target.
        weights: name in the target → file with weights.
    """
    base, dataset = source.results.plan, source.results.dataset
    components = [
        _model("base", name_of_model(Path(bundle.base_path)), bundle.base_sha256, source.license),
        *(
            [_model("trained-on", source.base_name, base.base_sha256, source.license)]
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
    engine = source.results.evaluation.engine
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
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
