"""What a reader did not understand or left out of a row that it kept; counted in the ingest manifest."""

from __future__ import annotations

from dataclasses import dataclass

from journeyman.reasons.base import Reason


@dataclass(frozen=True)
class UnknownStatus(Reason, code="unknown_status"):
    """Attributes: field: the field that says whether the call succeeded; found: its value, None if it is missing."""

    field: str
    found: str | None = None
    remedy: str = ""

    def sentence(self) -> str:
        shown = f"no {self.field}" if self.found is None else f"{self.field} {self.found}".rstrip()
        return f"whether it succeeded is unknown: {shown}" + (f": {self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class UnknownFinishReason(Reason, code="unknown_finish_reason"):
    says = "unknown finish reason {word!r}"
    word: str


@dataclass(frozen=True)
class ChoicesNotKept(Reason, code="choices_not_kept"):
    """Attributes: preference: the choice that is not kept is the rejected answer of a preference pair."""

    choices: int
    preference: bool = False

    def sentence(self) -> str:
        if self.preference:
            return "the rejected answer of a preference pair is not kept"
        return f"1 of {self.choices} choices kept"


@dataclass(frozen=True)
class TurnsNotKept(Reason, code="turns_not_kept"):
    says = "turns not kept: {what}"
    what: str


@dataclass(frozen=True)
class PartsNotKept(Reason, code="parts_not_kept"):
    says = "parts not kept: {types}"
    types: str


@dataclass(frozen=True)
class ToolsNotKept(Reason, code="tools_not_kept"):
    says = "its tool definitions are not kept: {cause}"
    cause: str


@dataclass(frozen=True)
class ToolResultsCut(Reason, code="tool_results_cut"):
    says = "tool results shortened by data.cut_tool_results"


@dataclass(frozen=True)
class HistoryGap(Reason, code="history_not_whole"):
    says = "its history lacks {missing}"
    missing: str


@dataclass(frozen=True)
class BranchLeft(Reason, code="branch_left"):
    says = "the user went back to before this answer"


@dataclass(frozen=True)
class TurnInterrupted(Reason, code="turn_interrupted"):
    says = "the user interrupted the turn after this answer"


@dataclass(frozen=True)
class PolicyAsSystem(Reason, code="policy_as_system"):
    says = "the policy is used as the system prompt, which {program} does not log"
    program: str


@dataclass(frozen=True)
class StoppedByLimit(Reason, code="stopped_by_limit"):
    says = "stopped by its {limit} limit"
    limit: str


@dataclass(frozen=True)
class LogLevel(Reason, code="log_level"):
    """The log's level is above information. Attributes: text: the message next to the level."""

    level: str
    text: str = ""

    def sentence(self) -> str:
        return f"level {self.level}: {self.text}" if self.text else f"level {self.level}"
