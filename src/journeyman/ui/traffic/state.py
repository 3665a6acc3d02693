"""What is known of the traffic of each run: read on at each request, for a bounded time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from journeyman.errors import InputError
from journeyman.routing.undelivered import FOLDER
from journeyman.ui.files import State, state_of
from journeyman.ui.indexes import Kept
from journeyman.ui.traffic.exchanges import ConversationCounts, Exchanges
from journeyman.ui.traffic.newest import newest_of
from journeyman.ui.traffic.places import KnownPlaces, Places, places_of
from journeyman.ui.traffic.rows import RowFinder

READ_S = 1.0
"""A request reads for so long at most; the page asks again until all is read."""


class RunTraffic:
    """One run's."""

    def __init__(self, root: Path, routing: str) -> None:
        self.exchanges = Exchanges(root, routing)
        self.conversations = ConversationCounts(root, routing)

    def read(self, most_s: float = READ_S) -> dict[str, Any]:
        """Reads on; returns how far it is.

        Raises:
            ChangedArtifact, InputError: as files.opened.
        """
        done, size = self.exchanges.file.read(most_s)
        also, of = self.conversations.file.read(most_s)
        files = (self.exchanges.file, self.conversations.file)
        return {
            "done": done + also, "of": size + of, "complete": done + also == size + of,
            "seconds": sum(one.seconds for one in files), "damaged": sum(one.damaged for one in files),
        }  # fmt: skip


class KnownTraffic:
    """The traffic of the runs that were looked at last."""

    def __init__(self) -> None:
        self._places: KnownPlaces = Kept(500)
        self._runs: Kept[RunTraffic] = Kept(4)
        self._finders: Kept[RowFinder] = Kept(16)
        self._newest: Kept[dict[str, Any]] = Kept(4)
        self.looks: dict[Path, dict[str, Any]] = {}
        """What `journeyman monitor` said last, by run."""

    def places(self, root: Path) -> Places:
        return places_of(root, self._places)

    def of(self, root: Path) -> RunTraffic:
        routing = self.places(root).routing
        return self._runs.get(root, routing, lambda: RunTraffic(root, routing))

    def rows(self, root: Path, *, delivered: bool) -> RowFinder:
        """What finds the rows of answers that clients got, or of those that none got."""
        places = self.places(root)
        folder = places.recorded if delivered else f"{places.routing}/{FOLDER}"
        return self._finders.get((root, folder), None, lambda: RowFinder(root, folder))

    def newest_state(self, root: Path) -> tuple[str, State | None] | None:
        """The newest file of rows and its state; None: nothing is recorded, or it cannot be read."""
        try:
            name = next(reversed(self.rows(root, delivered=True).files()), None)
        except (InputError, OSError):  # a request says why
            return None
        return None if name is None else (name, state_of(root / self.places(root).recorded / name))

    def recorded(self, root: Path) -> dict[str, Any]:
        """What the newest rows alone say."""
        finder = self.rows(root, delivered=True)
        return self._newest.get(root, self.newest_state(root), lambda: newest_of(finder))
