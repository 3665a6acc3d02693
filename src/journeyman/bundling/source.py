"""What the targets of `export` are made of: a bundle, and the run that made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from journeyman.artifacts import ADAPTER_FILE
from journeyman.bundling.results import Results
from journeyman.manifests import BundleManifest
from journeyman.model_files import is_checkpoint, name_of_model
from journeyman.models.base import Base
from journeyman.records import EVERY_ROLE
from journeyman.rendering.renderer import Renderer


@dataclass(frozen=True)
class Source:
    """A finished bundle, with the files that it was made of.

    Attributes:
        place: the bundle's folder.
        evaluated: the evaluation's folder, which has the merged files that were evaluated.
        sha256: the hash of the bundle's result and files.
        base: what the adapters were trained on: a file, or a Hugging Face folder.
        trained: 'all' or role → the folder with its adapter in both formats.
        license: what the base says about its license.
    """

    bundle: BundleManifest
    place: Path
    evaluated: Path
    sha256: str
    results: Results
    base: Base
    trained: Mapping[str, Path]
    license: str | None
    renderer: Renderer
    rank: int
    threads: int | None

    @property
    def folder(self) -> Path | None:
        """The base's Hugging Face folder; None if it is a GGUF file."""
        return self.base.path if is_checkpoint(self.base.path) else None

    @property
    def base_name(self) -> str:
        return name_of_model(self.base.path)

    def adapter_gguf(self, name: str) -> Path:
        return self.trained[name] / ADAPTER_FILE

    def roles_of(self, adapter: str) -> list[str]:
        """The roles for which an adapter answers."""
        return self.bundle.roles if adapter == EVERY_ROLE else [adapter]
