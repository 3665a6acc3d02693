"""What the results of all stages have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel

from journeyman.api import html
from journeyman.api.rows import R, Rows
from journeyman.artifacts import read_rows
from journeyman.lineage import check_files
from journeyman.runs import place_of, read_result

M = TypeVar("M", bound=BaseModel)
Action = Literal["fresh", "made", "resumed"]


@dataclass(frozen=True, repr=False)
class Result(Generic[M]):
    """The result of a finished stage.

    Attributes:
        run_folder: the run's.
        manifest: every figure, typed.
        action: what was done now: nothing (fresh), all of it, or the rest of it; None if it was only read.
        seconds: of work now.
    """

    stage: ClassVar[str]

    run_folder: Path
    manifest: M
    action: Action | None = None
    seconds: float = 0.0

    @property
    def folder(self) -> Path:
        """The stage's folder."""
        return self.run_folder / place_of(self.stage).folder

    def facts(self) -> Mapping[str, Any]:
        """The main figures, by name."""
        return {}

    def file(self, name: str) -> Path:
        """A file of the stage.

        Raises:
            ChangedArtifact: it is not as the stage made it.
        """
        check_files(self.folder, read_result(self.run_folder, self.stage)[0], [name])
        return self.folder / name

    def _rows(self, kind: type[R], *names: str) -> Rows[R]:
        def read() -> Any:
            for name in names:
                yield from read_rows(self.file(name), kind)

        return Rows(kind, read)

    def __repr__(self) -> str:
        facts = ", ".join(f"{name} {value}" for name, value in self.facts().items())
        return f"<{type(self).__name__} in {self.folder}: {facts}>"

    def _repr_html_(self) -> str:
        return html.facts(type(self).__name__, {**self.facts(), "folder": self.folder})
