"""The manifests of runs, read once for each state of their files."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from journeyman.artifacts import MANIFEST
from journeyman.errors import JourneymanError
from journeyman.lineage import check_files, manifest_data, read_manifest, refuse_link, result_hash
from journeyman.manifests import Stamp
from journeyman.pipeline import STAGES
from journeyman.runs import PLACES
from journeyman.ui.errors import NotMade
from journeyman.ui.files import State, state_of

_KEPT = 4000
"""Enough for the seven stages of 570 runs."""
_M = TypeVar("_M", bound=BaseModel)


@dataclass(frozen=True)
class Made:
    """The manifest of a finished stage.

    Attributes:
        hashes: what later stages may have recorded of it: see lineage.result_hash.
    """

    stamp: Stamp
    result: BaseModel
    hashes: frozenset[str]


class Manifests:
    """Reads manifests; the newest ones stay in memory."""

    def __init__(self) -> None:
        self._read: OrderedDict[Path, tuple[State, Made | JourneymanError]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, root: Path, stage: str) -> Made | None:
        """The manifest of a stage; None if it is not finished.

        Raises:
            ChangedArtifact: it is damaged, was edited, or a link is in its place.
        """
        folder = root / PLACES[stage].folder
        path = folder / MANIFEST
        state = None if folder.is_symlink() else state_of(path)
        if state is None:
            refuse_link(folder)
            return None
        with self._lock:
            kept = self._read.get(path)
        if kept is None or kept[0] != state:
            kept = state, _read(path, stage)
            with self._lock:
                self._read[path] = kept
                self._read.move_to_end(path)
                while len(self._read) > _KEPT:
                    self._read.popitem(last=False)
        if isinstance(kept[1], JourneymanError):
            raise kept[1]
        return kept[1]

    def result(self, root: Path, stage: str, kind: type[_M]) -> _M:
        """The result of a finished stage.

        Raises:
            NotMade: it is not finished.
            ChangedArtifact: as `of`.
        """
        result = self.made(root, stage).result
        assert isinstance(result, kind)
        return result

    def made(self, root: Path, stage: str) -> Made:
        """Like `of`, but raises NotMade if the stage is not finished."""
        found = self.of(root, stage)
        if found is None:
            raise NotMade(f"the stage {stage!r} has not been run", f"Run: journeyman run --until {stage}")
        return found

    def checked(self, root: Path, stage: str, names: Iterable[str]) -> None:
        """Compares files of a stage with the hashes that it recorded; raises as `made` and check_files do."""
        check_files(root / PLACES[stage].folder, self.made(root, stage).stamp, names)


def _read(path: Path, stage: str) -> Made | JourneymanError:
    try:
        stamp, result = read_manifest(path, stage, PLACES[stage].makes)
        data = manifest_data(path, stage)
    except JourneymanError as error:
        return error
    parts = {tuple(one.parts.get(stage, ())) for one in STAGES}
    return Made(stamp, result, frozenset(result_hash(data, one) for one in parts))
