"""Why a row of a log is rejected because of its content.

Rows that could not be read at all are in files.py; what was left out of rows that were kept is in notes.py. A reason
names fields, types and the remedy, and quotes as little of the row's values as possible.
"""

from __future__ import annotations

from dataclasses import dataclass

from journeyman.reasons.files import SourceReason

# Fields that are missing, empty or of the wrong type


@dataclass(frozen=True)
class FieldMissing(SourceReason, code="field_missing"):
    """Attributes: what: the missing field ("agent.role", "name"); of: the object that lacks it, "" for the row."""

    what: str
    of: str = ""

    def text(self) -> str:
        return f"{self.of} has no {self.what}" if self.of else f"no {self.what}"


@dataclass(frozen=True)
class FieldEmpty(SourceReason, code="field_empty"):
    """Attributes: cause: why it is empty, if the log says so."""

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
    says = "{field} has the fields {fields}, and none of them is {wanted}"
    field: str
    fields: str
    wanted: str


@dataclass(frozen=True)
class UnknownRole(SourceReason, code="unknown_role"):
    """Attributes: role: "" if it is not a string."""

    field: str
    role: str = ""

    def text(self) -> str:
        named = f" {self.role!r}" if self.role else ""
        return f"{self.field}{named} is unknown: no chat template has such turns"


@dataclass(frozen=True)
class UnknownType(SourceReason, code="unknown_type"):
    """Something of a type that the reader of its format does not know, perhaps from a newer version."""

    says = "{what} of unknown type {type!r}"
    what: str
    type: str


@dataclass(frozen=True)
class NotText(SourceReason, code="not_text"):
    """A part that is an image, audio or a file. Attributes: field: where it is; types: such as "'image', 'audio'"."""

    says = "{field} has a part of type {types}: only text can be trained on"
    field: str
    types: str


@dataclass(frozen=True)
class FieldNotJson(SourceReason, code="field_not_json"):
    """Attributes: error: the decoder's message."""

    field: str
    error: str = ""

    def text(self) -> str:
        return f"{self.field} is not valid JSON" + (f": {self.error}" if self.error else "")


# Turns and answers


@dataclass(frozen=True)
class AnswerLost(SourceReason, code="answer_lost"):
    says = "{field} is {found!r}: the answer or its tool call is lost"
    field: str
    found: str


@dataclass(frozen=True)
class NotAnAnswer(SourceReason, code="not_an_answer"):
    """Something other than an answer is where the answer should be."""

    says = "{field} is {found}, not a single assistant turn"
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
    says = "only the answer's reasoning is logged"


@dataclass(frozen=True)
class NotByAModel(SourceReason, code="not_by_a_model"):
    says = "written by {program} itself, not by a model"
    program: str


@dataclass(frozen=True)
class NotAModelCall(SourceReason, code="not_a_model_call"):
    """Attributes: what: "a span", "a run"; type: as logged, None if there is none; instead: where the calls are."""

    what: str
    type: str | None = None
    instead: str = ""

    def text(self) -> str:
        named = "without a type" if self.type is None else f"of type {self.type!r}"
        return f"{self.what} {named}: not a call of a chat model" + (f", {self.instead}" if self.instead else "")


# What to train on


@dataclass(frozen=True)
class AnsweredByStudent(SourceReason, code="answered_by_student"):
    says = "answered by the student, whose own answers are not learned from"


@dataclass(frozen=True)
class MarkedNotToTrain(SourceReason, code="marked_not_to_train"):
    """Attributes: fields: those that say so; every_turn: each assistant turn is marked, rather than the row."""

    fields: str = ""
    every_turn: bool = False

    def text(self) -> str:
        if self.every_turn:
            return "every assistant turn is marked not to be trained on"
        return f"the row is marked not to be trained on ({self.fields or 'in its metadata'})"


@dataclass(frozen=True)
class UnclearMark(SourceReason, code="unclear_mark"):
    says = "{field} is {found}: expected 0, 1, true or false"
    field: str
    found: str


@dataclass(frozen=True)
class DifferentAnswers(SourceReason, code="different_answers"):
    """Attributes: fields: those that contain answers; in_conversation: the conversation ends with a different one."""

    fields: str
    in_conversation: bool = False

    def text(self) -> str:
        if self.in_conversation:
            return f"the conversation ends with one answer, and {self.fields} contains another: which one is right?"
        return f"the fields {self.fields} contain different answers"


@dataclass(frozen=True)
class DifferentSystemPrompts(SourceReason, code="different_system_prompts"):
    says = "{field} differs from the conversation's own system turn: which one applies is unclear"
    field: str


@dataclass(frozen=True)
class SeveralInOne(SourceReason, code="several_in_one"):
    says = "{field} contains {count} {what}: log one call per row"
    field: str
    count: int
    what: str


# What was left out when the log was written or exported


@dataclass(frozen=True)
class NotLogged(SourceReason, code="not_logged"):
    """Something was not logged or not exported. Attributes: missing: a clause that says what; remedy: what to do."""

    missing: str
    remedy: str = ""

    def text(self) -> str:
        return self.missing + (f": {self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class NoRequest(SourceReason, code="no_request"):
    says = (
        "an answer without its request: add the file with the requests to data.sources (they are joined by custom_id), "
        "or log request and response in one row"
    )


@dataclass(frozen=True)
class EarlierResponse(SourceReason, code="earlier_response"):
    says = "{field}: the request continues an earlier response, whose turns are not in the row: log the whole input"
    field: str


@dataclass(frozen=True)
class LineOfSession(SourceReason, code="line_of_session"):
    """Attributes: what: the session that it is a line or a part of; instead: what to pass instead."""

    says = "{what}: {instead}"
    what: str
    instead: str


# Histories


@dataclass(frozen=True)
class HistoryTooLong(SourceReason, code="history_too_long"):
    says = "more than {limit} characters before the answer: set data.cut_tool_results or data.max_history"
    limit: int


@dataclass(frozen=True)
class HistoryBroken(SourceReason, code="history_broken"):
    """What the model saw before this answer is incomplete.

    Attributes:
        cause: one of `HISTORY_CAUSES`.
        place: the turn, or the line or event of the file, that the cause refers to.
    """

    cause: str
    place: str = ""

    def text(self) -> str:
        sentence = HISTORY_CAUSES.get(self.cause)
        return sentence.format(place=self.place) if sentence else f"its history is incomplete ({self.cause})"


HISTORY_CAUSES = {
    "no_user_message": "no user message comes before the answer",
    "starts_at_result": "the history starts with a tool result: the call is missing",
    "orphan_result": "{place} is a tool result without its call: the history is incomplete",
    "encrypted": "its history was compacted on the server and is encrypted",
    "no_summary": "its history was compacted, and the summary is not in the file",
    "condensed": "its history was condensed",
    "response_apart": "the tool calls of one response are separated in its history",
    "damaged_line": "the turn that it answers is on a damaged line",
    "damaged_before": "an event of its history is on a damaged line",
    "not_understood": "{place} of its history was not understood",
    "answered_not_understood": "the turn that it answers may be on {place}, which was not understood",
    "part_not_understood": "a part of the answer may be on {place}, which was not understood",
    "parent_missing": "its history is incomplete: the parentUuid of {place} is not in the file (pass the whole file)",
    "circle": "the parentUuid links form a cycle",
}
