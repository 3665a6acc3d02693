"""Comparisons of runs with their settings, logs and base, as `Run.status` of the Python API makes them.

Such a comparison reads files that the config names, wherever they are, and asks the program in evaluate.llama_server
for its version. So none is made for a folder that was only found: it needs a click.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from journeyman.api.run import Run
from journeyman.artifacts import MANIFEST
from journeyman.config import CONFIG_NAME
from journeyman.errors import JourneymanError
from journeyman.runs import PLACES
from journeyman.ui.files import State, state_of

_Key = tuple[State | None, ...]


class Compared:
    """The last comparison of each run; it is forgotten when the config or a manifest changes."""

    def __init__(self) -> None:
        self._found: dict[Path, tuple[_Key, dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def of(self, root: Path) -> dict[str, Any] | None:
        """What the last comparison found; None if there is none for today's files."""
        kept = self._found.get(root)
        return kept[1] if kept is not None and kept[0] == _key(root) else None

    def compare(self, root: Path) -> dict[str, Any]:
        """Compares now, one run at a time. An error is part of the result."""
        with self._lock:
            key = _key(root)
            found: dict[str, Any] = {"at": time.time(), "error": "", "stages": {}}
            try:
                for stage, one in Run(root).status.stages.items():
                    found["stages"][stage] = {"state": one.state, "changed": list(one.changed)}
            except (JourneymanError, OSError) as error:
                found["error"] = str(error)
            self._found[root] = key, found
            return found


def _key(root: Path) -> _Key:
    return (state_of(root / CONFIG_NAME), *(state_of(root / place.folder / MANIFEST) for place in PLACES.values()))
