"""Opens a bundle: the one of a run, or a folder that is one, such as a copy on another machine or a target."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from journeyman.artifacts import MANIFEST
from journeyman.errors import InputError, NotDeployable
from journeyman.foreign import named, plain
from journeyman.lineage import manifest_data, read_manifest, refuse_link, result_hash
from journeyman.manifests import BundleManifest, Stamp
from journeyman.model_files import parts_of
from journeyman.runs import place_of, read_result

_STAGE = "export"


@dataclass(frozen=True)
class OpenedBundle:
    """A bundle's folder and manifest.

    Attributes:
        sha256: the hash of its manifest's result and of the hashes of its files: the same for every copy.
    """

    place: Path
    stamp: Stamp
    manifest: BundleManifest
    sha256: str


class ServedSettings(BaseModel):
    """The settings in a bundle's manifest with which it is served."""

    model_config = ConfigDict(frozen=True)

    context: int = Field(gt=0)
    max_new_tokens: int = Field(gt=0)
    temperature: float = Field(ge=0)
    threads: int | None = Field(ge=1)
    parallel: int = Field(ge=1)


def open_bundle(folder: Path) -> OpenedBundle:
    """The bundle of a run, or the one in the folder itself. Its files are not compared.

    Raises:
        ChangedArtifact: its manifest cannot be used.
        InputError: there is none.
    """
    if not (folder / MANIFEST).is_file():
        read_result(folder, _STAGE)  # says which command makes it
        folder = folder / place_of(_STAGE).folder
    refuse_link(folder)
    path = folder / MANIFEST
    stamp, manifest = read_manifest(path, _STAGE, BundleManifest)
    return OpenedBundle(folder, stamp, manifest, result_hash(manifest_data(path, _STAGE)))


def refuse_unevaluated(opened: OpenedBundle) -> None:
    """Refuses to serve merged weights, which nobody has evaluated, unless the bundle records that it is wanted.

    Raises:
        NotDeployable: its files are not those that were evaluated.
    """
    target = opened.manifest.target
    if target is not None and target.why_not is not None and target.allowed is None:
        raise NotDeployable(
            f"{opened.place}: {target.why_not.sentence()}",
            "Serve the bundle of its run, which was evaluated, or make the target again with "
            '--allow-unevaluated "reason", which is recorded',
        )
    others = opened.manifest.not_deployable
    if others and target is not None and opened.manifest.override is None and target.allowed is None:
        role, verdict = next(iter(others.items()))
        raise NotDeployable(
            f"{opened.place}: the verdict on these files is {verdict!r} for {named(role)}",
            'Serve the bundle of its run, or make the target again with --allow-unevaluated "reason"',
        )


def refuse_without_base(opened: OpenedBundle) -> None:
    """Refuses a bundle that `journeyman serve` cannot serve, because it has the adapters only.

    Raises:
        InputError: there is no base in it.
    """
    if not opened.manifest.base_file:
        server = opened.manifest.server
        elsewhere = "" if server is None else f"; it is on the server {server.url}"
        raise InputError(f"{opened.place}: contains no base to serve{elsewhere}", "Use a bundle with a GGUF file")


def served_settings(opened: OpenedBundle) -> ServedSettings:
    """The settings with which it is served.

    Raises:
        InputError: one is missing or has another type.
    """
    try:
        return ServedSettings.model_validate(opened.manifest.settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"{opened.place}: cannot be served: settings.{plain(str(first['loc'][0]), 60)}: {first['msg']}",
            "Use a bundle that journeyman export made",
        ) from error


def files_to_serve(opened: OpenedBundle) -> list[str]:
    """The files that serving reads, by their names in the bundle; without folders, which a server has.

    Raises:
        InputError: one of them is not among the bundle's files, so that nothing proves what it is.
    """
    bundle = opened.manifest
    names = ["prompts.json", *bundle.adapter_files.values()]
    names += [part.as_posix() for part in parts_of(Path(bundle.base_file))] if bundle.base_file else []
    names += [bundle.template_file] if bundle.template_file else []
    files = opened.stamp.files
    foreign = next((one for one in names if not any(f"{file}/".startswith(f"{one}/") for file in files)), None)
    if foreign is not None:
        raise InputError(
            f"{opened.place}: cannot be served: {plain(foreign, 100)} is not among its files",
            "Use a bundle that journeyman export made",
        )
    return [name for name in names if name in files]
