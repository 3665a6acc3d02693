"""The run folders below a folder. Requests name one by an id, which is only looked up: no path comes from them."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from journeyman.config import CONFIG_NAME, RecordConfig
from journeyman.runs import PLACES, TARGETS_FOLDER
from journeyman.superseded import SUPERSEDED
from journeyman.ui.errors import NotThere

_MOST_FOLDERS, _DEEPEST = 5000, 6
_STAGES = {place.folder for place in PLACES.values()}
_CLOSED = {*_STAGES, SUPERSEDED, TARGETS_FOLDER, "evidence", "releases", "node_modules", "__pycache__"}
"""Folders in which no run is looked for."""
_RECORDED = RecordConfig().folder
_LEAST_PAUSE_S, _SHARE = 2.0, 50
"""A search is repeated after this time, and takes a 50th of the time at most."""


@dataclass(frozen=True)
class RunFolder:
    """A run folder.

    Attributes:
        id: hash of the name, for URLs.
        name: path relative to the folder that was searched; its own name for that folder itself.
    """

    id: str
    name: str
    root: Path


class Runs:
    """The runs below a folder, searched again when they are asked for after a pause. Links are not followed.

    Attributes:
        folder: the folder, resolved.
        cut: whether there were too many folders to search all of them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.cut = False
        self._found: dict[str, RunFolder] = {}
        self._lock = threading.Lock()
        self._again = 0.0

    def listed(self) -> list[RunFolder]:
        """All of them, in the order of their names."""
        with self._lock:
            if time.monotonic() >= self._again:
                self._search()
            return list(self._found.values())

    def of(self, run_id: str) -> RunFolder:
        """The run with that id.

        Raises:
            NotThere: there is none.
        """
        found = next((one for one in self.listed() if one.id == run_id), None)
        if found is not None:
            return found
        raise NotThere("there is no such run any more", "Go back to the list of runs")

    def _search(self) -> None:
        began = time.monotonic()
        roots = sorted(self._roots())
        self._found = {}
        for root in roots:
            name = os.fsdecode(root.relative_to(self.folder).as_posix())
            run_id = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
            self._found[run_id] = RunFolder(run_id, self.folder.name if name == "." else name, root)
        took = time.monotonic() - began
        self._again = time.monotonic() + max(_LEAST_PAUSE_S, _SHARE * took)

    def _roots(self) -> Iterator[Path]:
        self.cut = False
        waiting = deque([(self.folder, 0)])
        for searched in range(_MOST_FOLDERS + 1):
            if not waiting:
                return
            if searched == _MOST_FOLDERS:
                self.cut = True
                return
            folder, depth = waiting.popleft()
            try:
                with os.scandir(folder) as entries:
                    names = {one.name: one.is_dir(follow_symlinks=False) for one in entries}
            except OSError:  # not readable, or just removed
                continue
            stages = any(names.get(stage) for stage in _STAGES)
            if CONFIG_NAME in names or stages or (names.get(_RECORDED) and _has_rows(folder / _RECORDED)):
                yield folder
            if depth < _DEEPEST:
                inner = sorted(name for name, is_folder in names.items() if is_folder)
                waiting += [(folder / name, depth + 1) for name in inner if name not in _CLOSED and name[0] != "."]


def _has_rows(folder: Path) -> bool:
    """Whether a recorder has written there, without a config file."""
    try:
        with os.scandir(folder) as entries:
            return any(one.name.startswith("rows-") for one in entries)
    except OSError:
        return False
