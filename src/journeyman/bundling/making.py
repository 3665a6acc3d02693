"""Makes the folders of targets: each is complete or absent, and has a manifest like a bundle's."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

import journeyman
from journeyman.artifacts import (
    MANIFEST,
    disk_error,
    hash_of,
    hash_of_file,
    remove_leftovers,
    remove_quietly,
    replace_folder,
    write_atomic,
    write_json,
    write_model,
)
from journeyman.bundling.bill import write_bill
from journeyman.bundling.card import model_card
from journeyman.bundling.draft import Draft
from journeyman.bundling.golden import GOLDEN_FILE, record
from journeyman.bundling.source import Source
from journeyman.bundling.targets import TARGETS, refuse_impossible
from journeyman.bundling.trials import trial_line
from journeyman.errors import Interrupted, JourneymanError, UsageError
from journeyman.foreign import file_part, markdown
from journeyman.lineage import files_below, manifest_data, write_manifest
from journeyman.locking import locked
from journeyman.manifests import BundleManifest, GoldenAnswers, Stamp, Target
from journeyman.protocols import Reporter
from journeyman.records import EVERY_ROLE

TARGET_VERSION = 1
MADE_OF = "07-bundle"
"""The input of a target's stamp: the hash of the bundle that it was made of."""


def make_targets(
    source: Source, names: Sequence[str], out: Path, quantization: str | None, allowed: str | None, reporter: Reporter
) -> Iterator[tuple[Path, BundleManifest]]:
    """Makes each target below `out`, and yields its folder and manifest once it has been tried.

    Args:
        quantization: of merged GGUF files; None: see training.merge.merged_format.
        allowed: the user's reason to serve merged files although they were not evaluated.

    Raises:
        DiskError: the disk is full or the folder cannot be written to.
        EngineError: the engine does not load the files.
        InputError: a target is impossible with this base, or its files give another answer than the evaluated ones.
        Interrupted: asked to stop; finished targets stay.
        UsageError: something else is in the place of a target, or another process is making targets there.
    """
    refuse_impossible(source, names)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, out) from error
    # The caller has the lock of the run's folder. Elsewhere, another run's targets may be in the making.
    with nullcontext() if out.samefile(source.place.parent) else locked(out):
        yield from _make(source, names, out, quantization, allowed, reporter)


def _make(
    source: Source, names: Sequence[str], out: Path, quantization: str | None, allowed: str | None, reporter: Reporter
) -> Iterator[tuple[Path, BundleManifest]]:
    remove_leftovers(out, below=False)
    folders = [(name, adapter, out / _folder_name(name, adapter)) for name in names for adapter in _each(source, name)]
    for _, _, folder in folders:
        _refuse_other(folder)
    reporter.begin("export targets", len(folders) + 1, "targets")
    golden = None if source.bundle.server is not None else _golden(source)
    for number, (name, adapter, folder) in enumerate(folders, start=1):
        if reporter.stop_requested:
            raise Interrupted(f"stopped before the target {folder.name}", "Run it again; it starts from the beginning")
        reporter.advance(number, folder.name)
        yield folder, _made(source, golden, name, adapter, folder, quantization, allowed)


def _golden(source: Source) -> GoldenAnswers:
    return record(source.bundle, source.place, source.renderer, source.threads)


def _each(source: Source, name: str) -> list[str | None]:
    """The adapters of a target that is made for each of them; [None] for one with all."""
    return list(source.trained) if TARGETS[name].merges else [None]


def _folder_name(name: str, adapter: str | None) -> str:
    return name if adapter in (None, EVERY_ROLE) else f"{name}-{file_part(adapter or '')}"


def _refuse_other(folder: Path) -> None:
    if not folder.is_symlink() and not folder.exists():
        return
    try:
        manifest_data(folder / MANIFEST, "export")
    except (JourneymanError, OSError) as error:
        raise UsageError(f"{folder}: exists and is not a target", "Move it away, or give another --out") from error


def _made(
    source: Source,
    golden: GoldenAnswers | None,
    name: str,
    adapter: str | None,
    folder: Path,
    quantization: str | None,
    allowed: str | None,
) -> BundleManifest:
    work = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        work.mkdir()
        draft = Draft(source, golden, adapter, quantization, work, _of_roles(source, adapter), [], [])
        TARGETS[name].write(draft)
        bundle = _described(draft, name, allowed)
        inputs = {MADE_OF: source.sha256, "target": name, "quantization": quantization or "", "allowed": allowed or ""}
        stamp = Stamp(
            stage="export", version=TARGET_VERSION, journeyman=journeyman.__version__, fingerprint=hash_of(inputs),
            inputs=inputs, created=datetime.now(UTC).isoformat(timespec="seconds"),
            files={one: hash_of_file(work / one) for one in files_below(work)},
        )  # fmt: skip
        write_manifest(work, stamp, bundle)
        replace_folder(folder, work)
    except OSError as error:
        raise disk_error(error, folder) from error
    finally:
        remove_quietly(work)
    return bundle


def _of_roles(source: Source, adapter: str | None) -> dict[str, object]:
    """What a target with one adapter has of its bundle."""
    if adapter is None:
        return {}
    roles, bundle = source.roles_of(adapter), source.bundle
    return {
        "roles": roles,
        **{
            field: {role: value for role, value in getattr(bundle, field).items() if role in roles}
            for field in ("system_prompts", "prompts", "verdicts")
        },
        "adapter_sha256": {adapter: bundle.adapter_sha256[adapter]},
    }


def _described(draft: Draft, name: str, allowed: str | None) -> BundleManifest:
    """Writes what every target has besides its own files; returns its manifest."""
    bundle, source, out = draft.bundle, draft.source, draft.out
    evaluated = draft.why_not is None
    deployable = evaluated and bundle.override is None and set(bundle.verdicts.values()) == {"deploy"}
    target = Target(
        name=name, merged=draft.merged, evaluated=evaluated, deployable=deployable,
        why_not=None if draft.why_not is None else draft.why_not.record(),
        allowed=None if deployable else allowed, trials=draft.trials,
    )  # fmt: skip
    bundle = bundle.model_copy(update={"target": target})
    write_json(out / "prompts.json", bundle.system_prompts)
    template = source.renderer.served_template
    if bundle.template_file is not None:
        write_atomic(out / bundle.template_file, template.source.encode())
    base = {"sha256": bundle.base_sha256, "source": bundle.base_path, "chat_template": template.source}
    write_json(out / "base.json", base)
    if draft.golden is not None:
        write_model(out / GOLDEN_FILE, draft.golden)
    write_bill(source.results, bundle, source.license, out)
    lines = [*draft.notes, *(f"- golden prompt: {markdown(trial_line(one))}" for one in draft.trials)]
    card = model_card(bundle, source.results, source.license, draft.how, lines, draft.arm, source.bundle.roles)
    write_atomic(out / "README.md", card.encode())
    return bundle
