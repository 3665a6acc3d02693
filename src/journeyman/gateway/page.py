"""Health and metrics of the recorder, under paths that no API has."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping, Sequence

from aiohttp import web

from journeyman.foreign import json_text
from journeyman.gateway.ledger import Ledger
from journeyman.gateway.rows import Row
from journeyman.serving.metrics import CONTENT_TYPE, Counter, Gauge, Histogram

_OTHER = "other"


class Page:
    """What rows say, counted. Roles that no rule names are counted as "other": clients could invent any number.

    Attributes:
        ledger: set once it exists.
    """

    def __init__(self, roles: Sequence[str], upstream: str) -> None:
        self._roles, self._upstream = frozenset(roles), upstream
        self._lock = threading.Lock()
        self.ledger: Ledger | None = None
        self._exchanges = Counter(
            "journeyman_recorded_exchanges_total", "Rows by role, outcome and HTTP status",
            ("role", "outcome", "status"),
        )  # fmt: skip
        self._first = Histogram("journeyman_recorded_first_byte_seconds", "Time to the first byte", ("role",))
        self._whole = Histogram("journeyman_recorded_duration_seconds", "Time to the end", ("role",))
        self._prompt = Counter("journeyman_recorded_prompt_tokens_total", "Tokens of prompts", ("role",))
        self._answer = Counter("journeyman_recorded_answer_tokens_total", "Tokens of answers", ("role",))

    def hear(self, row: Row) -> None:
        """Counts a row; from any thread."""
        role = row.role if row.role in self._roles else _OTHER
        with self._lock:
            self._exchanges.add(role, row.outcome, "" if row.status is None else str(row.status))
            if row.first_ms is not None:
                self._first.add(row.first_ms / 1000, role)
            self._whole.add(row.duration_ms / 1000, role)
            self._prompt.add(role, by=row.prompt_tokens)
            self._answer.add(role, by=row.answer_tokens)

    def answer(self, path: str, open_: int, shadow: Mapping[str, int] | None) -> web.Response:
        """The page at a path.

        Args:
            open_: exchanges in progress.
            shadow: `waiting` and `left_out`, requests that the student gets afterwards; None: there is no student.
        """
        name = path.rpartition("/")[2]
        if name == "health":
            return self._health(open_, shadow)
        if name == "metrics":
            response = web.Response(body=self._metrics(open_, shadow).encode())
            response.headers["Content-Type"] = CONTENT_TYPE
            return response
        return web.Response(status=404, text="journeyman record has /journeyman/health and /journeyman/metrics\n")

    def _health(self, open_: int, shadow: Mapping[str, int] | None) -> web.Response:
        assert self.ledger is not None
        counts = self.ledger.counts
        well = not counts.trouble and not counts.lost
        fields = {
            "status": "ok" if well else "not recording" if counts.trouble else "exchanges were lost",
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "upstream": self._upstream,
            "requests": counts.requests,
            "rows_written": counts.rows,
            "open": open_,
            "waiting": counts.waiting,
            "lost": counts.lost,
            "trouble": counts.trouble or None,
            "journal_in_memory": self.ledger.in_memory,
            **({} if shadow is None else {"shadow": shadow}),
        }
        return web.Response(
            status=503 if counts.trouble else 200, text=json_text(fields), content_type="application/json"
        )

    def _metrics(self, open_: int, shadow: Mapping[str, int] | None) -> str:
        assert self.ledger is not None
        counts = self.ledger.counts
        gauges = [
            Gauge("journeyman_recorder_requests_total", "Requests that got a number", counts.requests, "counter"),
            Gauge("journeyman_recorder_open", "Exchanges in progress", open_),
            Gauge("journeyman_recorder_waiting", "Ended exchanges that are not rows on disk yet", counts.waiting),
            Gauge("journeyman_recorder_lost_total", "Exchanges not recorded completely", counts.lost, "counter"),
        ]
        if shadow is not None:
            gauges += [
                Gauge("journeyman_shadow_waiting", "Requests that the student gets afterwards", shadow["waiting"]),
                Gauge("journeyman_shadow_left_out_total", "Of these, not compared", shadow["left_out"], "counter"),
            ]
        with self._lock:
            counted: list[Counter | Histogram | Gauge] = [
                self._exchanges,
                self._first,
                self._whole,
                self._prompt,
                self._answer,
            ]
            return "\n".join([line for one in (*counted, *gauges) for line in one.lines()]) + "\n"
