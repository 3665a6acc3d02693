"""What an exchange counts as: failed or not, and why. One line of exchanges.jsonl for each row of the recorder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from journeyman.gateway.rows import OUTCOMES
from journeyman.records import Record
from journeyman.routing.assigning import Arm
from journeyman.routing.judging import Judge, Judged
from journeyman.sources.fields import mapping

Place = Literal["delivered", "shadow", "fallback"]
"""Where an answer went: to the client; nowhere, as the student was only compared; nowhere, as the teacher answered."""


_BUSY = ("status_408", "status_429")
_PATIENCE_S = 10.0
"""A client that leaves after so long without a byte has not changed its mind: it gave up."""


class Exchange(Record):
    """One exchange, as it counts."""

    seq: int
    of: int | None = Field(None, description="of an answer that no client got: the exchange that it belongs to")
    at: str = Field(description="time, in ISO 8601")
    role: str
    conversation: str = ""
    place: Place = "delivered"
    arm: Arm = "teacher"
    mode: str = Field("", description="the route's; empty: the recorder knew no student")
    trial: int = 0
    share: float = 0.0
    release: str = ""
    outcome: str
    status: int | None = None
    failed: bool | None = Field(description="None: nothing says")
    why: str = Field("", description="code of the failure: error, slow, check_NAME, feedback, or of the fallback")
    said: str = Field("", description="the failure in a sentence")
    checked: str = Field("", description="pass, fail or unscored, by the role's checks")
    teacher_checked: str = Field("", description="the same of the teacher's answer, in shadow")
    fallback: str = Field("", description="why the teacher answered in the student's place")
    first_ms: int | None = None
    duration_ms: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    model: str = ""


def exchange_of(row: Mapping[str, Any], judge: Judge, most_s: float | None, *, delivered: bool) -> Exchange:
    """Judges a recorded row.

    Args:
        most_s: an answer that takes longer has failed; None: no answer does for that.
        delivered: whether the row is of the recorder's ledger, and not of the answers that no client got.
    """
    route, tokens = mapping(row.get("route")), mapping(row.get("tokens"))
    fallback = str(route.get("fallback") or "")
    counts = not route.get("begun_before")  # a conversation that went on when the canary began has no arm
    place: Place = "delivered" if delivered else "fallback" if fallback else "shadow"
    arm: Arm = "student" if route.get("arm") == "student" else "teacher"
    outcome = row.get("outcome") if row.get("outcome") in OUTCOMES else "cut"
    failed, why, said = _by_outcome(str(outcome), row, fallback if delivered else "", most_s)
    checked = teacher = Judged("unscored")
    role = str(row.get("role") or "")
    if failed is None and outcome == "complete":
        reference = None
        if place == "shadow" and row.get("reference") is not None:
            reference = {**row, "response": row["reference"], "status": 200, "outcome": "complete", "errors": None}
            teacher = judge.judged(reference, reference)
        checked = judge.judged(row, reference)
        decides = judge.decides(role)
        if checked.outcome == "fail":
            failed, why, said = True, f"check_{checked.check}", checked.why
        elif checked.outcome == "pass" and decides:
            failed = False
    duration = row.get("duration_ms")
    if failed is not True and most_s is not None and isinstance(duration, int | float) and duration > most_s * 1000:
        failed, why, said = True, "slow", f"{duration / 1000:.1f} s"
    return Exchange(
        seq=int(row["seq"]), of=row.get("of"), at=str(row.get("time") or ""), role=_text(role),
        conversation=_text(row.get("conversation")), place=place, arm=arm, mode=str(route.get("mode") or "") * counts,
        trial=int(route.get("trial") or 0), share=float(route.get("share") or 0.0),
        release=str(route.get("release") or ""), outcome=str(outcome), status=row.get("status"), failed=failed,
        why=_text(why), said=_text(said[:300]), checked=checked.outcome,
        teacher_checked=teacher.outcome if place == "shadow" else "",
        fallback=fallback, first_ms=row.get("first_ms"), duration_ms=int(duration or 0),
        prompt_tokens=int(tokens.get("prompt") or 0), answer_tokens=int(tokens.get("answer") or 0),
        model=_text(row.get("model")),
    )  # fmt: skip


def _by_outcome(
    outcome: str, row: Mapping[str, Any], fallback: str, most_s: float | None
) -> tuple[bool | None, str, str]:
    """What can be said without checks: errors are failures, requests that were wrong or given up say nothing."""
    status = row.get("status")
    if fallback.startswith("status_4") and fallback not in _BUSY and _is_wrong(status):
        return None, "", ""  # the teacher refused the request as well
    if fallback:
        return True, fallback, "the teacher answered in the student's place"
    errors = row.get("errors")
    said = str(errors[0]) if isinstance(errors, list) and errors else ""
    waited = row.get("duration_ms") or 0
    if (
        outcome == "cancelled"
        and row.get("first_ms") is None
        and waited >= 1000 * min(_PATIENCE_S, most_s or _PATIENCE_S)
    ):
        return True, "abandoned", f"the client left after {waited / 1000:.0f} s without an answer"
    if outcome == "cut" and row.get("why") in ("recorder_stopped", "recorder_ended"):
        return None, "", ""
    if outcome in ("failed", "cut"):
        return True, "error", said
    if isinstance(status, int) and (status >= 500 or status == 429):
        return True, f"status_{status}", said
    return None, "", ""


def _is_wrong(status: Any) -> bool:
    return isinstance(status, int) and 400 <= status < 500 and status not in (408, 429)


def _text(value: Any) -> str:
    """Text that can be written as UTF-8, whatever bytes a header had."""
    return str(value or "").encode("utf-8", "replace").decode()
