"""Answers of the student that no client got: in shadow, and where the teacher answered in its place.

They are rows of a ledger of its own, in undelivered/ below the recorder's folder: no use of the API, and nothing that
`ingest` learns from. Each names the exchange that it belongs to, and in shadow has the teacher's answer beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from journeyman.gateway.ledger import Ledger
from journeyman.gateway.plans import Asked
from journeyman.routing.student import NAME

FOLDER = "undelivered"
Outcome = Literal["complete", "failed", "cut"]


@dataclass(frozen=True)
class Given:
    """What an upstream answered."""

    status: int | None
    kind: str
    coding: str
    pieces: Sequence[bytes]

    @property
    def size(self) -> int:
        """Bytes of the answer."""
        return sum(map(len, self.pieces))


class Undelivered:
    """Records them."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def record(
        self,
        asked: Asked,
        route: Mapping[str, Any],
        given: Given,
        outcome: Outcome,
        why: str = "",
        reference: Given | None = None,
        took_ms: int = 0,
    ) -> None:
        """Makes a row of an answer, or of its failure.

        Args:
            route: role, mode, trial, and why nobody got the answer.
            reference: what the teacher answered.
        """
        exchange = self._ledger.begin()
        keys = asked.keys if self._ledger.in_memory else ()
        exchange.note("head", {**asked.head, "keys": keys, "of": asked.number})
        exchange.add("body", asked.body)
        status: dict[str, Any] = {"upstream": NAME, "route": route, "took_ms": took_ms}
        if given.status is not None:
            status |= {"status": given.status, "headers": {"content-type": given.kind}, "coding": given.coding}
        exchange.note("status", status)
        for piece in given.pieces:
            exchange.add("piece", piece)
        if reference is not None:
            exchange.note("status", {"reference": {
                "status": reference.status, "content-type": reference.kind, "coding": reference.coding,
            }})  # fmt: skip
            exchange.add("reference", b"".join(reference.pieces))
        self._ledger.end(exchange, outcome, why, asked.keys)
