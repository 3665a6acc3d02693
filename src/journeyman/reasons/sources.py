"""Why a row of a log is rejected, by what it holds; files.py: rows that could not be read at all, notes.py: rows that
were read without something.

A reason names fields, types and what is to be done, and as little of the row's values as it can.
"""

from __future__ import annotations

from dataclasses import dataclass

from journeyman.reasons.files import SourceReason

# Fields that are missing, empty or of another kind


@dataclass(frozen=True)
class FieldMissing(SourceReason, code="field_missing"):
    """Attributes: what: the field, or what a thing at `of` lacks: "agent.role", "name"."""

    what: str
    of: str = ""

    def text(self) -> str:
        return f"{self.of} has no {self.what}" if self.of else f"no {self.what}"


@dataclass(frozen=True)
class FieldEmpty(SourceReason, code="field_empty"):
    """Attributes: cause: why, where the log says so."""

    field: str
    cause: str = ""

    def text(self) -> str:
        return f"{self.field} is empty" + (f": {self.cause}" if self.cause else "")


@dataclass(frozen=True)
class ColumnMissing(SourceReason, code="column_missing"):
    says = "column {column!r} is empty or absent: set {setting}"
    column: str
    setting: str


@dataclass(frozen=True)
class WrongType(SourceReason, code="wrong_type"):
    says = "{field} is {found}, not {wanted}"
    field: str
    found: str
    wanted: str


@dataclass(frozen=True)
class UnknownFields(SourceReason, code="unknown_fields"):
    says = "{field} has the fields {fields}: {wanted} is found in none of them"
    field: str
    fields: str
    wanted: str


@dataclass(frozen=True)
class UnknownRole(SourceReason, code="unknown_role"):
    """Attributes: role: "" where it is no text."""

    field: str
    role: str = ""

    def text(self) -> str:
        named = f" {self.role!r}" if self.role else ""
        return f"{self.field}{named} is not known: no chat template has such turns"


@dataclass(frozen=True)
class UnknownType(SourceReason, code="unknown_type"):
    """Something of a type that no rule of its format knows, perhaps of a newer version."""

    says = "{what} of type {type!r}, which is not known"
    what: str
    type: str


@dataclass(frozen=True)
class NotText(SourceReason, code="not_text"):
    """A part that is an image, a sound or a file. Attributes: field: what holds it; types: as "'image', 'audio'"."""

    says = "{field} is a part of type {types}: only text can be trained on"
    field: str
    types: str


@dataclass(frozen=True)
class FieldNotJson(SourceReason, code="field_not_json"):
    """Attributes: error: what the decoder says."""

    field: str
    error: str = ""

    def text(self) -> str:
        return f"{self.field} holds no JSON" + (f": {self.error}" if self.error else "")


# Whose turn it is


@dataclass(frozen=True)
class AnswerLost(SourceReason, code="answer_lost"):
    says = "{field} is {found!r}: the answer, or the call that it was, is lost"
    field: str
    found: str


@dataclass(frozen=True)
class NotAnAnswer(SourceReason, code="not_an_answer"):
    """Something stands where an answer should that is none."""

    says = "{field} is {found}: not one turn of the assistant"
    field: str
    found: str


@dataclass(frozen=True)
class NoAnswer(SourceReason, code="no_answer"):
    says = "no assistant message answers a user message"


@dataclass(frozen=True)
class NoUserMessage(SourceReason, code="no_user_message"):
    says = "no user message in {field}"
    field: str


@dataclass(frozen=True)
class OnlyThoughts(SourceReason, code="only_thoughts"):
    says = "an answer of which nothing but reasoning is logged"


@dataclass(frozen=True)
class NotByAModel(SourceReason, code="not_by_a_model"):
    says = "written by {program} itself, not by a model"
    program: str


@dataclass(frozen=True)
class NotAModelCall(SourceReason, code="not_a_model_call"):
    """Attributes: what: "a span", "a run"; type: what it is said to be, None: nothing; instead: where the calls are."""

    what: str
    type: str | None = None
    instead: str = ""

    def text(self) -> str:
        named = "without a type" if self.type is None else f"of type {self.type!r}"
        return f"{self.what} {named}: no call of a chat model" + (f", {self.instead}" if self.instead else "")


# What is to be learned


@dataclass(frozen=True)
class MarkedNotToTrain(SourceReason, code="marked_not_to_train"):
    """Attributes: fields: that say so; every_turn: not the row is marked, but each of its assistant turns."""

    fields: str = ""
    every_turn: bool = False

    def text(self) -> str:
        if self.every_turn:
            return "every assistant turn is marked not to be trained on"
        return f"the row is marked not to be trained on ({self.fields or 'in its metadata'})"


@dataclass(frozen=True)
class UnclearMark(SourceReason, code="unclear_mark"):
    says = "{field} is {found}: only 0 and 1, true and false are understood"
    field: str
    found: str


@dataclass(frozen=True)
class DifferentAnswers(SourceReason, code="different_answers"):
    """Attributes: fields: that hold answers; in_conversation: the conversation ends with another one."""

    fields: str
    in_conversation: bool = False

    def text(self) -> str:
        if self.in_conversation:
            return f"the conversation ends with an answer, and {self.fields} holds another: which is to be learned?"
        return f"the fields {self.fields} hold different answers"


@dataclass(frozen=True)
class DifferentSystemPrompts(SourceReason, code="different_system_prompts"):
    says = "{field} and the conversation's own system turn differ: which holds is not said"
    field: str


@dataclass(frozen=True)
class SeveralInOne(SourceReason, code="several_in_one"):
    says = "{field} holds {count} {what}: log one call a row"
    field: str
    count: int
    what: str


# What was left out when the log was written or exported


@dataclass(frozen=True)
class NotLogged(SourceReason, code="not_logged"):
    """What is missing was not logged or not exported; `remedy` says what to do about it."""

    missing: str
    remedy: str = ""

    def text(self) -> str:
        return self.missing + (f": {self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class NoRequest(SourceReason, code="no_request"):
    says = (
        "an answer without its request: put the file with the requests into data.sources too (both hold custom_id), or "
        "log request and response in one row"
    )


@dataclass(frozen=True)
class EarlierResponse(SourceReason, code="earlier_response"):
    says = "{field}: the request goes on from an earlier response, whose turns are not in the row: log the whole input"
    field: str


@dataclass(frozen=True)
class LineOfSession(SourceReason, code="line_of_session"):
    """Attributes: what: of which session it is a line or a part; instead: what to give."""

    says = "{what}: {instead}"
    what: str
    instead: str


# Histories


@dataclass(frozen=True)
class HistoryTooLong(SourceReason, code="history_too_long"):
    says = "more than {limit} characters before the answer: set data.cut_tool_results, or data.max_history"
    limit: int


@dataclass(frozen=True)
class HistoryBroken(SourceReason, code="history_broken"):
    """What the model was told before this answer is not all there.

    Attributes:
        cause: one of `HISTORY_CAUSES`.
        place: the turn, or the line or event of the file, that the cause names.
    """

    cause: str
    place: str = ""

    def text(self) -> str:
        told = HISTORY_CAUSES.get(self.cause)
        return told.format(place=self.place) if told else f"its history is not whole ({self.cause})"


HISTORY_CAUSES = {
    "no_user_message": "an answer that no user message comes before",
    "starts_at_result": "the history starts at a tool's result: the call is not in it",
    "orphan_result": "{place} is a tool's result whose call is missing: the history is not whole",
    "encrypted": "its history was compacted on the server and is encrypted",
    "no_summary": "its history was compacted, and the summary is not in the file",
    "condensed": "its history was condensed",
    "response_apart": "calls of one response stand apart in its history",
    "damaged_line": "the turn that it answers is on a damaged line",
    "damaged_before": "an event of its history is on a damaged line",
    "not_understood": "{place} of its history was not understood",
    "answered_not_understood": "the turn that it answers may be on {place}, which was not understood",
    "part_not_understood": "a part of it may be on {place}, which was not understood",
    "parent_missing": "its history is not whole: the parentUuid of {place} is not in the file (give all of it)",
    "circle": "parentUuid goes in a circle",
}
