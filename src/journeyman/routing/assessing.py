"""Judges what the recorder has written, and decides about canaries. It reads files and writes files, nothing else.

    rows ── exchange: failed or not ── conversation: failed part ── canary: promote, go on, roll back ── routes.json

It works behind the recorder, in a process of its own, so that no check holds up an answer. What it has done is
committed together with its place in the rows, so a kill at any moment neither skips a row nor counts one twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from journeyman.append_log import AppendLogs
from journeyman.artifacts import row_bytes
from journeyman.config import Config
from journeyman.errors import JourneymanError
from journeyman.foreign import plain
from journeyman.gateway.feedback import feedback_of
from journeyman.gateway.roles import FEEDBACK
from journeyman.gateway.row_files import row_in
from journeyman.routing.canaries import Canaries
from journeyman.routing.conversations import Conversation, Conversations
from journeyman.routing.exchanges import Exchange, exchange_of
from journeyman.routing.judging import Judge
from journeyman.routing.reading import Cursor, RowFollower
from journeyman.routing.undelivered import FOLDER
from journeyman.sources.fields import mapping

EXCHANGES, CONVERSATIONS, FEEDBACKS = "exchanges.jsonl", "conversations.jsonl", "feedback.jsonl"
NAMES, STATE = (EXCHANGES, CONVERSATIONS, FEEDBACKS), ".assessed.json"
_AT_A_TIME = 200
_COMMIT_S = 2.0


class Assessor:
    """Use it in one process at a time: the one that holds the recorder's lock, or a child of it.

    Args:
        rows: the recorder's folder.
        folder: for the results and the routes.
        told: hears decisions and what a person must know.

    Raises:
        DiskError: the folder cannot be read or written to.
    """

    def __init__(
        self,
        rows: Path,
        folder: Path,
        config: Config,
        judge: Judge,
        told: Callable[[str], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._judge, self._now, self._folder = config, judge, now, folder
        self._told, self._said = told, set[str]()
        self._logs = AppendLogs(folder, NAMES, STATE)
        saved: dict[str, Any] = self._logs.state or {}
        self._delivered = RowFollower(rows, Cursor(**saved.get("delivered", {})))
        self._undelivered = RowFollower(folder / FOLDER, Cursor(**saved.get("undelivered", {})))
        if self._delivered.is_other():
            saved = self._begin_anew(rows, saved)
        self._conversations = Conversations(
            config.curate.credit,
            config.route.conversation_s,
            config.route.conversation_most_s,
            now(),
            saved.get("conversations", {}),
            counted_in(folder),
        )
        self.canaries = Canaries(folder, config.route, saved.get("canaries", {}), told)
        self._committed, self._dirty = now(), False

    def step(self) -> int:
        """Takes what is new, and decides; returns how many rows that were."""
        taken = 0
        for follower, delivered in ((self._delivered, True), (self._undelivered, False)):
            began = self._now()
            for line in follower.lines(_AT_A_TIME):
                self._take(line, delivered=delivered)
                taken += 1
                if self._now() - began > _COMMIT_S:  # slow checks
                    break
            for name, why in follower.unreadable.items():
                self._tell(f"warning: {name}: damaged ({why}): what follows in it does not count")
        for one in self._conversations.closed(self._now()):
            self._logs.write(CONVERSATIONS, row_bytes(one))
            self._dirty = True
            try:
                self.canaries.hear(one)
            except (ValueError, JourneymanError) as error:
                self._tell(f"warning: conversation {plain(one.conversation, 80)} does not count: {error}")
        self._dirty |= taken > 0
        if self._dirty and (taken == 0 or self._now() - self._committed >= _COMMIT_S):
            self.commit()
        return taken

    def commit(self) -> None:
        """Makes durable what was taken, and carries out what the canaries have decided."""
        self._logs.commit({
            "delivered": vars(self._delivered.cursor), "undelivered": vars(self._undelivered.cursor),
            "conversations": self._conversations.state(), "canaries": self.canaries.state(),
        })  # fmt: skip
        self._committed, self._dirty = self._now(), False
        if self.canaries.carry_out():
            self._dirty = True  # what a promoted student is held to
            self.commit()

    def _begin_anew(self, rows: Path, saved: dict[str, Any]) -> dict[str, Any]:
        """The recorder's folder is another one: the results of the old one are set aside, trials go on."""
        self._logs.__exit__(None, None, None)
        aside = self._folder / f"before-{int(time.time())}"
        aside.mkdir()
        for name in NAMES:
            (self._folder / name).replace(aside / name)
        (self._folder / STATE).unlink()
        self._told(f"warning: {rows} is not the folder that was followed: results so far are in {aside}")
        self._logs = AppendLogs(self._folder, NAMES, STATE)
        self._delivered = RowFollower(rows, Cursor())
        return {"canaries": saved.get("canaries", {})}

    def _tell(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._told(text)

    def close(self) -> None:
        self.commit()
        self._logs.__exit__(None, None, None)

    def _take(self, line: bytes, *, delivered: bool) -> None:
        row = row_in(line)
        if not isinstance(row.get("seq"), int):
            return
        if delivered:
            assigned = row.get("assigned")
            self._conversations.saw(row["seq"], assigned if isinstance(assigned, int) else 0, self._now())
        try:
            self._count(row, delivered=delivered)
        except Exception as error:  # no single row may end what decides about all
            self._tell(f"warning: row {row['seq']} does not count: {type(error).__name__}: {plain(str(error), 200)}")

    def _count(self, row: Mapping[str, Any], *, delivered: bool) -> None:
        if row.get("path") == FEEDBACK:
            self._take_feedback(row)
            return
        request = mapping(row.get("request"))
        if "messages" not in request and "input" not in request and "prompt" not in request:
            return
        found = exchange_of(row, self._judge, self._config.route.most_s, delivered=delivered)
        self._logs.write(EXCHANGES, row_bytes(found))
        self.canaries.count(found)
        if delivered:
            counts = self._conversations.take(found, self._answer_text(found, row), self._now())
            if not counts:
                self.canaries.ignore(found)

    def _answer_text(self, found: Exchange, row: Mapping[str, Any]) -> str:
        """What credit rules look at; read only if there are some."""
        if not self._config.curate.credit:
            return ""
        one = self._judge.interaction(row)
        return "" if one is None else one.output or ""

    def _take_feedback(self, row: Mapping[str, Any]) -> None:
        said = feedback_of(mapping(row.get("request")), str(row.get("conversation") or ""))
        if said is None or row.get("outcome") != "complete":
            return
        heard = self._conversations.hear(said)
        told = {**vars(said), "seq": row["seq"], "at": row.get("time"), "in_time": heard}
        self._logs.write(FEEDBACKS, json.dumps(told).encode() + b"\n")


def counted_in(folder: Path) -> Iterator[Conversation]:
    """The conversations that have counted so far."""
    path = folder / CONVERSATIONS
    with path.open("rb") as file:
        for line in file:
            with suppress(ValidationError):  # of another version
                yield Conversation.model_validate_json(line)
