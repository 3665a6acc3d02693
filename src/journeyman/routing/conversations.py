"""Conversations in progress, and the part of each that failed once it is over."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field

from journeyman.config import CreditConfig
from journeyman.gateway.feedback import Feedback
from journeyman.records import Record
from journeyman.routing.assigning import Arm
from journeyman.routing.exchanges import Exchange
from journeyman.routing.modes import WITH_STUDENT
from journeyman.routing.seen import Seen

_MOST_COUNTED = 100_000
"""Conversations that have counted and are remembered, so that none counts twice."""
_MOST_KNOWN = 500
"""Exchanges of a conversation that feedback can still be about; of more, only how many failed is known."""


class Conversation(Record):
    """A conversation that is over."""

    role: str
    conversation: str
    mode: str
    trial: int
    arm: Arm
    share: float
    began: str
    ended: str
    exchanges: int
    scored: int = Field(description="exchanges of which something says whether they failed")
    fallbacks: int = 0
    failed: float | None = Field(description="failed part of the scored exchanges; None: nothing says how it went")
    by: str = Field(
        "",
        description="what decided: checks, feedback, credit, errors (then answers that came count as good), or late",
    )
    first: int = Field(0, description="number of its first exchange")
    why: str = Field("", description="code of its first failure")


class Open(BaseModel):
    """A conversation in progress. `known`: exchange → whether it failed."""

    role: str
    conversation: str
    mode: str
    trial: int
    arm: Arm
    share: float
    began: str
    ended: str
    exchanges: int = 0
    fallbacks: int = 0
    known: dict[int, bool | None] = Field(default_factory=dict)
    answered: int = Field(0, description="exchanges of which only is known that there was an answer")
    older_scored: int = 0
    older_failed: int = 0
    checked: bool = False
    told: dict[int, float] = Field(default_factory=dict, description="exchange → score by feedback")
    score: float | None = Field(None, description="of the whole conversation, by feedback")
    credited: list[int] = Field(default_factory=list, description="needs of the role's credit rule that were met")
    why: str = ""
    first: int
    over: bool = False
    until: int | None = Field(None, description="silent so long that it is over once these exchanges have rows")


class Conversations:
    """Those of one recorder.

    They are reported in the order in which they began, that is of the numbers of their first exchanges: a canary's
    statistics are valid in that order only. So one that is over waits for those that began before it.

    Args:
        credit: rules by which what happens later in a session decides.
        idle_s: after so long without an exchange, one is over.
        most_s: so long after its first exchange, one counts as it is; what comes later does not.
        saved: what `state` returned.
        counted: conversations that have counted already, in any canary.
    """

    def __init__(
        self,
        credit: Sequence[CreditConfig],
        idle_s: float,
        most_s: float,
        now: float,
        saved: Mapping[str, Any],
        counted: Iterable[Conversation] = (),
    ) -> None:
        self._idle_s, self._most_s = idle_s, most_s
        self._credit = {rule.role: [(need.role, re.compile(need.matches)) for need in rule.needs] for rule in credit}
        self._open = {key: Open.model_validate(one) for key, one in saved.get("open", {}).items()}
        self._over = {key: Conversation.model_validate(one) for key, one in saved.get("over", {}).items()}
        self._counted: dict[str, None] = {}
        for one in counted:
            self._count(_key(one.trial, one.role, one.conversation, one.first), one.mode)
        for key, found in self._over.items():
            self._count(key, found.mode)
        self._reported = {key: int(first) for key, first in saved.get("reported", {}).items()}
        self._seen = Seen(now, *saved.get("seen", ()))
        # After a restart, each gets the whole time again: nobody knows what was missed.
        self._heard, self._began = dict.fromkeys(self._open, now), dict.fromkeys(self._open, now)

    def state(self) -> dict[str, Any]:
        return {
            "open": {key: one.model_dump() for key, one in self._open.items()},
            "over": {key: one.model_dump() for key, one in self._over.items()},
            "reported": self._reported, "seen": self._seen.state(),
        }  # fmt: skip

    def saw(self, number: int, assigned: int, now: float) -> None:
        """The row of an exchange was read, whatever it is; `assigned` is the highest number that it knows of."""
        self._seen.add(number, assigned, now)

    def __len__(self) -> int:
        return len(self._open)

    def take(self, found: Exchange, answer: str, now: float) -> bool:
        """Adds an exchange that a client got an answer to; False if its conversation has counted already.

        Args:
            answer: what credit rules look at.
        """
        self._meet_needs(found, answer)
        if found.mode not in WITH_STUDENT:
            return True
        key = _key(found.trial, found.role, found.conversation, found.seq)
        if key in self._counted:
            return False
        one = self._open.get(key)
        if one is None:
            self._began[key] = now
            one = self._open[key] = Open(
                role=found.role, conversation=found.conversation, mode=found.mode, trial=found.trial, arm=found.arm,
                share=found.share, began=found.at, ended=found.at, first=found.seq,
            )  # fmt: skip
        one.first = min(one.first, found.seq)
        one.until = None
        one.exchanges += 1
        one.fallbacks += bool(found.fallback)
        one.answered += found.failed is None and found.checked == "pass"
        one.ended = found.at
        one.checked |= found.checked in ("pass", "fail") and found.failed is not None
        if found.failed and not one.why:
            one.why = found.why
        one.known[found.seq] = found.failed
        if len(one.known) > _MOST_KNOWN:
            failed = one.known.pop(next(iter(one.known)))
            one.older_scored += failed is not None
            one.older_failed += failed is True
        self._heard[key] = now
        if not found.conversation:
            one.over = True
        return True

    def _meet_needs(self, found: Exchange, answer: str) -> None:
        """A later turn of the same session may be what a credit rule waits for."""
        if not found.conversation:
            return
        for role, needs in self._credit.items():
            met = [place for place, (by, pattern) in enumerate(needs) if by == found.role and pattern.search(answer)]
            if not met:
                continue
            for one in self._open.values():
                if one.role == role and one.conversation == found.conversation:
                    one.credited = sorted({*one.credited, *met})

    def hear(self, said: Feedback) -> bool:
        """Takes feedback; False if the conversation is over, or was never seen."""
        found = False
        for one in self._open.values():
            if said.exchange is not None and said.exchange in one.known:
                if said.score is not None:
                    one.told[said.exchange] = said.score
            elif said.exchange is None and one.conversation == said.conversation and said.role in ("", one.role):
                one.score = one.score if said.score is None else said.score
            else:
                continue
            one.over |= said.final
            found = True
        return found

    def closed(self, now: float) -> Iterator[Conversation]:
        """Those that are over now and before which none is open, in the order in which they began."""
        mark = self._seen.mark(now, max(self._idle_s, self._most_s))
        for key in [key for key, one in self._open.items() if self._is_over(key, one, now, mark)]:
            del self._heard[key], self._began[key]
            self._over[key] = self._result(self._open.pop(key))
            self._count(key, self._over[key].mode)
        earliest: dict[tuple[str, int], int] = {}
        for one in self._open.values():
            group = one.role, one.trial
            earliest[group] = min(one.first, earliest.get(group, one.first))
        for key, over in sorted(self._over.items(), key=lambda item: item[1].first):
            if over.first <= mark and over.first < earliest.get((over.role, over.trial), over.first + 1):
                yield self._in_order(self._over.pop(key))

    def _in_order(self, one: Conversation) -> Conversation:
        """One that comes after later ones were reported, because its first exchange took very long, proves nothing."""
        group = f"{one.trial}\0{one.role}"
        last = self._reported.get(group, 0)
        self._reported[group] = max(last, one.first)
        return one if one.first >= last else one.model_copy(update={"failed": None, "by": "late"})

    def _is_over(self, key: str, one: Open, now: float, mark: int) -> bool:
        """Also a silent one is not over while an answer of it may be on its way: until all that began have rows."""
        if one.over or now - self._began[key] >= self._most_s:
            return True
        if now - self._heard[key] < self._idle_s:
            return False
        one.until = self._seen.highest if one.until is None else one.until
        return mark >= one.until

    def _count(self, key: str, mode: str) -> None:
        """In a canary, an id counts once: it keeps its arm, so another conversation of that id would be no new draw."""
        if mode == "canary":
            self._counted[key] = None
            if len(self._counted) > _MOST_COUNTED:
                self._counted.pop(next(iter(self._counted)))

    def _result(self, one: Open) -> Conversation:
        outcomes = {seq: None if failed is None else float(failed) for seq, failed in one.known.items()}
        outcomes |= {seq: 1.0 - score for seq, score in one.told.items()}
        scored = [value for value in outcomes.values() if value is not None]
        count, total = len(scored) + one.older_scored, sum(scored) + one.older_failed
        failed, by = (total / count, "checks" if one.checked else "errors") if count else (None, "")
        if not one.checked and one.answered:  # the role has no check that says more
            failed, by = total / (count + one.answered), "errors"
        if one.told:
            failed, by = total / count, "feedback"
        if not one.checked and not one.told and one.role in self._credit:
            missing = len(one.credited) < len(self._credit[one.role])
            failed, by = (1.0 if missing else failed or 0.0), "credit"
        if one.score is not None:
            failed, by = 1.0 - one.score, "feedback"
        why = one.why or ({"feedback": "feedback", "credit": "credit"}.get(by, "") if failed else "")
        return Conversation(
            role=one.role, conversation=one.conversation, mode=one.mode, trial=one.trial, arm=one.arm, share=one.share,
            began=one.began, ended=one.ended, exchanges=one.exchanges, scored=count, fallbacks=one.fallbacks,
            failed=failed, by=by, why=why if failed else "", first=one.first,
        )  # fmt: skip


def _key(trial: int, role: str, conversation: str, number: int) -> str:
    return f"{trial}\0{role}\0{conversation or f'exchange {number}'}"
