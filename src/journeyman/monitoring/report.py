"""START HERE. What `journeyman monitor` says, as data: `--json` prints it, the terminal and the page show it.

    exchanges or rows ── traffic.py ──┐
    recorded prompts ── drift.py ─────┼── looking.py ── Report ── conditions.py ── alerts.py ── sending.py
    the run's training ── training.py ┘

A figure that is not known is None, and where that needs an explanation, a reason says why.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from journeyman.reasons import ReasonRecord
from journeyman.records import Record

Unit = Literal["conversations", "requests"]
Source = Literal["exchanges", "rows", "nothing"]
RecorderState = Literal["recording", "trouble", "silent", "stopped", "unknown"]
"""silent: it holds its lock, and does not answer; unknown: the config file does not say on which port it answers."""
DriftTest = Literal["length", "vocabulary", "tools", "distance"]


class Share(Record):
    """A part of a whole, with its Wilson interval of 95 %. `part` may be a fraction: conversations fail in part."""

    part: float
    of: int
    low: float
    high: float
    unit: Unit = "requests"

    @property
    def share(self) -> float:
        return self.part / self.of


class Latency(Record):
    """Percentiles by nearest rank, in milliseconds."""

    answers: int
    p50: float
    p95: float
    p99: float


class Answers(Record):
    """What one of both answered."""

    requests: int = 0
    success: Share | None = Field(None, description="None: nothing says how any of its answers went")
    errors: dict[str, int] = Field(default_factory=dict, description="code of the error → requests")
    first: Latency | None = Field(None, description="until the first byte, of complete answers")
    whole: Latency | None = Field(None, description="until the end, of complete answers")
    prompt_tokens: int = 0
    answer_tokens: int = 0
    counted: int = Field(0, description="requests whose tokens are known; the sums are of these")


class Saved(Record):
    """What the student's answers would have cost at the teacher's price, by the student's count of tokens."""

    dollars: float
    model: str = Field(description="whose price it is")
    requests: int = Field(description="answers of the student whose tokens are known")
    of: int = Field(description="all answers of the student")


class Compared(Record):
    """One test of drift."""

    test: DriftTest
    p_value: float = Field(description="corrected for the number of tests of the role (Holm)")
    effect: float = Field(description="unit: see docs/how-to/monitor.md")
    least: float = Field(description="the effect from which a difference counts")
    recorded: float | None = Field(None, description="median or mean of the recorded prompts, if the test has one")
    trained: float | None = Field(None, description="the same of the prompts that they are compared with")
    found: bool


class Drift(Record):
    """Recorded prompts compared with those of the training."""

    recorded: int = Field(description="prompts, one of each conversation")
    trained: int
    held_out: int = Field(description="prompts of the training that vocabulary and neighbours were not taken from")
    against: Literal["training", "older_rows"]
    tests: list[Compared] = Field(default_factory=list)
    unknown: ReasonRecord | None = Field(None, description="why there are no tests")

    @property
    def found(self) -> bool:
        return any(one.found for one in self.tests)


class Prompts(Record):
    """Recorded prompts that are not of the form that the role was trained with."""

    share: Share
    differences: dict[str, int] = Field(description="system_prompt or frame → prompts")
    against: Literal["bundle", "dataset"]


class RoleReport(Record):
    """A role in the window."""

    role: str
    mode: str = Field("", description="of its route now; empty: no student is known")
    canary: str = Field("", description="verdict about the student of this trial so far; empty: there is none")
    canary_why: str = ""
    canary_figures: dict[str, float] = Field(
        default_factory=dict, description="of canaries.json: rates with intervals that hold at any time"
    )
    pairs: dict[str, int] = Field(
        default_factory=dict, description="of canaries.json: answers of both to the same requests, by who passed"
    )
    requests: int = Field(description="requests of clients")
    by_student: int | None = Field(None, description="of these, answered by the student; None: no student is known")
    cancelled: int = Field(0, description="requests that the client gave up")
    wrong: int = Field(0, description="requests that were refused, or answered with another 4xx than 429")
    teacher: Answers
    student: Answers = Field(description="answers that clients got")
    shadow: Answers = Field(description="answers of the student that were only compared")
    success_unknown: ReasonRecord | None = Field(None, description="why nothing says how answers went")
    fallbacks: Share | None = Field(
        None,
        description="answered by the teacher in the student's place, of the requests to the student; None: there were "
        "none. Those of one conversation count as fewer (stats.groups)",
    )
    fallback_reasons: dict[str, int] = Field(default_factory=dict, description="most frequent first")
    saved: Saved | None = None
    saved_unknown: ReasonRecord | None = Field(None, description="why nothing is known to be saved")
    drift: Drift | None = None
    prompts: Prompts | None = None
    prompts_unknown: ReasonRecord | None = None
    failed_rows: int = Field(0, description="answers of the teacher, since the training data, where the student failed")
    train_again: list[ReasonRecord] = Field(default_factory=list, description="empty: nothing speaks for it")


class RouteChange(Record):
    """A change of a route that nobody asked for by hand."""

    number: int
    at: str
    role: str
    action: str
    before: str
    mode: str
    why: str = ""


class Recorder(Record):
    """Whether what is asked is recorded."""

    state: RecorderState
    address: str = Field("", description="where it was asked")
    trouble: str = Field("", description="what it says")
    lost: int = Field(0, description="exchanges that were not recorded completely")


class Report(Record):
    """One look."""

    at: str = Field(description="time of the look, in ISO 8601")
    since: str = Field(description="beginning of the window")
    source: Source
    read: int = Field(0, description="lines that were read")
    complete: bool = Field(True, description="False: what was read does not reach back to the window's beginning")
    reaches: str = Field("", description="time of the oldest exchange that was counted")
    recorder: Recorder
    drift_at: str = Field("", description="time of the look at prompts that drift comes from; empty: there was none")
    roles: list[RoleReport] = Field(default_factory=list, description="most requests first")
    changes: list[RouteChange] = Field(default_factory=list, description="promotions and rollbacks, oldest first")
    notes: list[ReasonRecord] = Field(default_factory=list)
