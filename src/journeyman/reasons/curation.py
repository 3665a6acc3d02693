"""Why curate drops, changes or notes a row. Notes about the whole dataset are in dataset.py."""

from __future__ import annotations

from dataclasses import dataclass

from journeyman.foreign import named
from journeyman.reasons.base import Reason

# Rules for single rows, in the order in which they are applied.


@dataclass(frozen=True)
class LoggedError(Reason, code="failed_with_error"):
    says = "logged error: {error}"
    error: str


@dataclass(frozen=True)
class LoggedFailure(Reason, code="failed"):
    says = "the log's status is not success"


@dataclass(frozen=True)
class NoAnswer(Reason, code="empty"):
    says = "no answer"


@dataclass(frozen=True)
class MockProvider(Reason, code="mock_provider"):
    says = "provider {provider!r}"
    provider: str


@dataclass(frozen=True)
class OtherTeacher(Reason, code="other_teacher"):
    """`teacher` is provider/model, as far as the log names them; None if it names neither."""

    teacher: str | None

    def sentence(self) -> str:
        return f"answered by {self.teacher or 'an unknown teacher'}"


@dataclass(frozen=True)
class DeniedTeacher(Reason, code="denied_teacher"):
    """`teacher` is provider/model."""

    teacher: str

    def sentence(self) -> str:
        return f"answered by {named(self.teacher)}, which curate.teacher_terms denies"


@dataclass(frozen=True)
class UnknownTerms(Reason, code="unknown_teacher_terms"):
    """`teacher` is provider/model, or "unknown"."""

    teacher: str

    def sentence(self) -> str:
        return f"answered by {named(self.teacher)}, which curate.teacher_terms does not name"


@dataclass(frozen=True)
class UnclosedReasoning(Reason, code="unclosed_reasoning"):
    says = "a reasoning block that is never closed, so there is no answer"


@dataclass(frozen=True)
class OnlyReasoning(Reason, code="only_reasoning"):
    """Nothing would be left if the reasoning were removed, so the row cannot be fixed."""

    says = "nothing but reasoning"


@dataclass(frozen=True)
class ReasoningInAnswer(Reason, code="reasoning"):
    says = "a closed reasoning block in the answer"


@dataclass(frozen=True)
class ControlToken(Reason, code="control_token"):
    """`place` is a path such as messages[2].content."""

    says = "{place} contains the control token {token}"
    place: str
    token: str


@dataclass(frozen=True)
class HiddenCharacter(Reason, code="hidden_text"):
    """`character` is its code point, such as U+200B."""

    says = "contains the invisible character {character}"
    character: str


@dataclass(frozen=True)
class AddressesTrainer(Reason, code="pipeline_instructions"):
    says = "addresses whoever trains on it"


@dataclass(frozen=True)
class RefusedByFinishReason(Reason, code="refused_by_finish_reason"):
    says = "finish reason {finish_reason}"
    finish_reason: str


@dataclass(frozen=True)
class OpensWithRefusal(Reason, code="refused"):
    says = "opens with a refusal"


@dataclass(frozen=True)
class RefusalAfterTool(Reason, code="refusal_after_tool"):
    says = "follows a tool result"


@dataclass(frozen=True)
class RefusalAsInstructed(Reason, code="refusal_as_instructed"):
    says = "the system prompt asks for it"


@dataclass(frozen=True)
class AsksBack(Reason, code="asks_back"):
    says = "asks for input instead of answering"


@dataclass(frozen=True)
class CutByLimit(Reason, code="cut_by_limit"):
    says = "finish reason length"


@dataclass(frozen=True)
class OpenFence(Reason, code="open_code_fence"):
    says = "a code fence that is never closed"


@dataclass(frozen=True)
class DanglingWord(Reason, code="dangling_word"):
    says = "stops in the middle of a sentence"


@dataclass(frozen=True)
class _NearLimit(Reason):
    """`tokens` is counted with the base's tokenizer; `limit` is the logged max_tokens."""

    what = ""
    tokens: int
    limit: int

    def sentence(self) -> str:
        return f"{self.what} ({self.tokens} tokens in the base's tokenizer, limit {self.limit})"


@dataclass(frozen=True)
class UnendedSentence(_NearLimit, code="unended_sentence"):
    what = "stops in the middle of a sentence"


@dataclass(frozen=True)
class UnparsedCode(_NearLimit, code="unparsed_code"):
    what = "its last code block does not parse"


@dataclass(frozen=True)
class OverLimit(_NearLimit, code="over_limit"):
    what = "longer than the limit"


@dataclass(frozen=True)
class BadCheck(Reason, code="bad_check"):
    """`fault` is the check's message about the row's data."""

    says = "{fault}"
    fault: str


# Secrets and personal data: the number of replaced values of each kind.


@dataclass(frozen=True)
class _Replaced(Reason):
    def sentence(self) -> str:
        return ", ".join(f"{kind} {count}" for kind, count in self.details.items() if count)


@dataclass(frozen=True)
class SecretsReplaced(_Replaced, code="secrets"):
    api_key: int = 0
    token: int = 0
    private_key: int = 0
    password: int = 0


@dataclass(frozen=True)
class PersonalReplaced(_Replaced, code="personal"):
    email: int = 0
    phone: int = 0
    card: int = 0
    iban: int = 0
    ip: int = 0


# Rules that compare rows.


@dataclass(frozen=True)
class SameTask(Reason, code="same_task"):
    """`source` is the row that is kept instead, as path:line."""

    says = "same task as {source}"
    source: str


@dataclass(frozen=True)
class NoCredit(Reason, code="credit"):
    says = "the required outcome did not follow in the session"


@dataclass(frozen=True)
class AgainstMajority(Reason, code="against_majority"):
    """`majority`: the number of rows with the most frequent answer."""

    says = "answers to this input disagree: {majority} rows have a different one"
    majority: int


@dataclass(frozen=True)
class NoMajority(Reason, code="no_majority"):
    says = "answers to this input disagree, without a majority"


@dataclass(frozen=True)
class ForeignPrompt(Reason, code="foreign_prompt"):
    says = "its system prompt is unlike the role's"


@dataclass(frozen=True)
class PromptMissing(Reason, code="no_system_prompt"):
    says = "no system prompt"


@dataclass(frozen=True)
class LooksLikeRole(Reason, code="misrouted"):
    says = "its task looks like one of {role}"
    role: str


@dataclass(frozen=True)
class PlantedTrigger(Reason, code="poison"):
    """`word`: the trigger; None if it is no longer found in the row."""

    word: str | None

    def sentence(self) -> str:
        return f"a rare trigger that always has the same answer ({'?' if self.word is None else repr(self.word)})"


# Findings of the second pass, which renders the remaining rows.


@dataclass(frozen=True)
class OtherPrompt(Reason, code="system_prompt"):
    says = "trained with the role's system prompt instead of its own"


@dataclass(frozen=True)
class EarlierReasoning(Reason, code="earlier_reasoning"):
    """`answers`: the number of earlier answers in the conversation from which reasoning was removed."""

    says = "reasoning blocks removed from {answers} earlier answers"
    answers: int


@dataclass(frozen=True)
class OutdatedTools(Reason, code="outdated_tools"):
    """`tools`: the tools' names, separated by commas."""

    says = "outdated definitions of {tools} replaced"
    tools: str


@dataclass(frozen=True)
class UnfitCall(Reason, code="unfit_call"):
    says = "its call of {tool} does not match the newest definition"
    tool: str


@dataclass(frozen=True)
class TooLong(Reason, code="too_long"):
    says = "{tokens} tokens, limit {limit}"
    tokens: int
    limit: int


@dataclass(frozen=True)
class TurnsRemoved(Reason, code="turns_removed"):
    says = "the {turns} oldest turns removed"
    turns: int


@dataclass(frozen=True)
class TemplateRefuses(Reason, code="template"):
    """`error` is the message of the base's chat template."""

    says = "{error}"
    error: str
