"""The exchanges of a run: an index of the newest ones, and the counts of all."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from journeyman.routing.assessing import CONVERSATIONS, EXCHANGES
from journeyman.routing.exchanges import Exchange
from journeyman.ui.traffic.buckets import KINDS, is_wrong, minute_of
from journeyman.ui.traffic.figures import RoleConversations, RoleTraffic
from journeyman.ui.traffic.growing import Growing
from journeyman.ui.traffic.names import Names

MOST_ROLES, _MOST_WHYS = 100, 500
MOST_LISTED = 2_000_000
"""Of more exchanges, the newest are listed; the counts are of all."""
PLACES = ("delivered", "shadow", "fallback")
_NUMBERS = ("duration_ms", "prompt_tokens", "answer_tokens")
_USUAL = {name: field.default for name, field in Exchange.model_fields.items() if not field.is_required()}
FAILED = ("no", "yes", "unknown")


def _role_of(numbers: Names, row: dict[str, Any]) -> int:
    role = row["role"]
    if not isinstance(role, str):
        raise TypeError("no role")
    return numbers.number(role)


def _is_number(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _minute(row: dict[str, Any], name: str) -> int | None:
    minute = minute_of(row[name])
    return None if minute is None or is_wrong(minute) else minute


class Exchanges:
    """Those of exchanges.jsonl, which `file.read` reads on.

    Attributes:
        roles, whys: names, by number.
        by_role: number of a role → its counts.
    """

    def __init__(self, root: Path, folder: str) -> None:
        self.file = Growing(root, f"{folder}/{EXCHANGES}", self._begin, self._take)

    def _begin(self) -> None:
        self.roles, self.whys = Names(MOST_ROLES), Names(_MOST_WHYS)
        self.by_role: dict[int, RoleTraffic] = {}
        self._columns = {name: array(kind) for name, kind in
                         (("offset", "q"), ("seq", "q"), ("of", "q"), ("role", "h"), ("why", "h"),
                          ("kind", "b"), ("place", "b"), ("failed", "b"))}  # fmt: skip
        self.first = 0

    def _take(self, row: dict[str, Any], offset: int) -> None:
        seq, of, place = row["seq"], row.get("of"), PLACES.index(row.get("place", PLACES[0]))
        if not (_is_number(seq) and (of is None or _is_number(of))):
            raise TypeError("no number of an exchange")
        if not all(type(row.get(name, 0)) is int for name in _NUMBERS):
            raise TypeError("no number")
        kind = "fallback" if row.get("fallback") and not place else "teacher"
        if place or (row.get("arm") == "student" and kind != "fallback"):
            kind = "student"
        role = _role_of(self.roles, row)
        counts = self.by_role.get(role)
        if counts is None:
            counts = self.by_role[role] = RoleTraffic()
        if place:
            counts.not_delivered(row)
        else:
            counts.delivered(kind, row, _minute(row, "at"))
        failed, why = row["failed"], row.get("why")
        columns = self._columns
        columns["offset"].append(offset)
        columns["seq"].append(seq)
        columns["of"].append(-1 if of is None else of)
        columns["role"].append(role)
        columns["why"].append(self.whys.number(why) if why else -1)
        columns["kind"].append(KINDS.index(kind))
        columns["place"].append(place)
        columns["failed"].append(2 if failed is None else int(bool(failed)))
        if len(columns["offset"]) >= MOST_LISTED + MOST_LISTED // 10:
            cut = len(columns["offset"]) - MOST_LISTED
            for column in columns.values():
                del column[:cut]
            self.first += cut

    def __len__(self) -> int:
        """How many were taken in all."""
        return self.first + len(self._columns["offset"])

    def _column(self, name: str) -> npt.NDArray[Any]:
        return np.array(self._columns[name])

    def chosen(self, upto: int, **wanted: int | None) -> npt.NDArray[np.int64]:
        """Numbers of the exchanges below `upto` whose columns have these values; newest first."""
        mask = np.ones(len(self._columns["offset"]), bool)
        for name, value in wanted.items():
            if value is not None:
                mask &= self._column(name) == value
        mask[max(0, upto - self.first) :] = False
        found: npt.NDArray[np.int64] = np.flatnonzero(mask)[::-1].astype(np.int64) + self.first
        return found

    def offset_of(self, number: int) -> int | None:
        """Where an exchange is in the file; None if it is not listed."""
        place = number - self.first
        return self._columns["offset"][place] if 0 <= place < len(self._columns["offset"]) else None

    def beside(self, number: int) -> list[int]:
        """The exchanges that belong to this one: the answers that nobody got, or the one that somebody did."""
        place = number - self.first
        seq, of = self._columns["seq"][place], self._columns["of"][place]
        mask = self._column("of") == seq
        if of >= 0:
            mask = (self._column("seq") == of) & (self._column("place") == 0)
        return [int(one) + self.first for one in np.flatnonzero(mask)[-3:]]

    def rows(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """These rows of the file, with what it leaves out because it is as usual."""
        offsets = [self.offset_of(number) for number in numbers]
        return [{**_USUAL, **self.file.row_at(offset)} for offset in offsets if offset is not None]


class ConversationCounts:
    """Those of conversations.jsonl, which `file.read` reads on."""

    def __init__(self, root: Path, folder: str) -> None:
        self.file = Growing(root, f"{folder}/{CONVERSATIONS}", self._begin, self._take)

    def _begin(self) -> None:
        self.roles = Names(MOST_ROLES)
        self.by_role: dict[int, RoleConversations] = {}

    def _take(self, row: dict[str, Any], offset: int) -> None:
        role = _role_of(self.roles, row)
        self.by_role.setdefault(role, RoleConversations()).add(row, _minute(row, "began"))
