"""Why a check passes, fails or cannot score an answer.

The details contain text from rows, answers and judges; `scoring.checks` makes it safe to show.
"""

from __future__ import annotations

from dataclasses import dataclass

from journeyman.reasons.base import Reason, ReasonRecord, Text

# --- the answer as a whole ---


@dataclass(frozen=True)
class EmptyAnswer(Reason, code="empty_answer"):
    says = "empty answer"


@dataclass(frozen=True)
class RefusedAnswer(Reason, code="refused_answer"):
    """`sign` is one of refusals.Sign."""

    sign: str

    def sentence(self) -> str:
        return "opens with a refusal" if self.sign == "opening" else f"finish reason {self.sign}"


@dataclass(frozen=True)
class CutOff(Reason, code="cut_off"):
    says = "cut off at the token limit"


@dataclass(frozen=True)
class NotEnded(Reason, code="not_ended"):
    says = "did not end on its own: {finish_reason}"
    finish_reason: str


# --- comparisons ---


@dataclass(frozen=True)
class Differs(Reason, code="differs"):
    """The texts differ from character `place` on, counted from 0 in the compared form; "" if one of them ends there."""

    says = "differs from character {place} on: '{found}' instead of '{expected}'"
    place: int
    found: str
    expected: str


@dataclass(frozen=True)
class TextMissing(Reason, code="text_missing"):
    says = "missing: '{text}'"
    text: str


@dataclass(frozen=True)
class NoMatch(Reason, code="no_match"):
    says = "nothing matches '{pattern}'"
    pattern: str


@dataclass(frozen=True)
class Resemblance(Reason, code="resemblance"):
    """`reached` and `least` are ROUGE-L scores, from 0 to 1."""

    says = "ROUGE-L {reached:.2f}, required ≥ {least:g}"
    reached: float
    least: float


@dataclass(frozen=True)
class AnswerNotJson(Reason, code="answer_not_json"):
    says = "not JSON: {error}"
    error: str


@dataclass(frozen=True)
class AnswerTooDeep(Reason, code="answer_too_deep"):
    says = "nested too deeply to be compared with the schema"


@dataclass(frozen=True)
class SchemaViolated(Reason, code="schema_violated"):
    says = "{path}: {error}"
    path: str
    error: str


# --- tool calls ---


@dataclass(frozen=True)
class CallsSomething(Reason, code="calls_something"):
    says = "calls {call}; the teacher calls nothing"
    call: str


@dataclass(frozen=True)
class CallMissing(Reason, code="call_missing"):
    """`called` lists the names of the answer's calls; "" if it makes none."""

    call: str
    called: str

    def sentence(self) -> str:
        return f"does not call {self.call}; calls {self.called or 'nothing'}"


@dataclass(frozen=True)
class CallTooMany(Reason, code="call_too_many"):
    says = "also calls {call}, which is not expected"
    call: str


@dataclass(frozen=True)
class ArgumentsDiffer(Reason, code="arguments_differ"):
    says = "{call}: arguments {found}, expected {expected}"
    call: str
    found: str
    expected: str


@dataclass(frozen=True)
class ArgumentDiffers(Reason, code="argument_differs"):
    """`found` is None if the call lacks the argument, `expected` is None if the argument is not expected."""

    call: str
    argument: str
    found: str | None
    expected: str | None

    def sentence(self) -> str:
        found = "missing" if self.found is None else self.found
        expected = "not expected" if self.expected is None else f"expected {self.expected}"
        return f"{self.call}: argument {self.argument} is {found}, {expected}"


# --- code and patches ---


@dataclass(frozen=True)
class NoCode(Reason, code="no_code"):
    says = "no code in the answer"


@dataclass(frozen=True)
class SyntaxInvalid(Reason, code="syntax_invalid"):
    says = "{error}"
    error: str


@dataclass(frozen=True)
class CodeRaised(Reason, code="code_raised"):
    """`error` is the last line of the traceback, written by the answer's code."""

    says = "{error}"
    error: str


@dataclass(frozen=True)
class CodeOutOfTime(Reason, code="code_out_of_time"):
    says = "did not finish within {seconds:g} s"
    seconds: float


@dataclass(frozen=True)
class CodeKilled(Reason, code="code_killed"):
    says = "killed by signal {signal} (memory limit, time limit or the code itself)"
    signal: int


@dataclass(frozen=True)
class CodeExited(Reason, code="code_exited"):
    """`exit_code` is None if it is not known."""

    exit_code: int | None

    def sentence(self) -> str:
        return f"exited early with exit code {'unknown' if self.exit_code is None else self.exit_code}"


@dataclass(frozen=True)
class BrokeProtocol(Reason, code="broke_protocol"):
    says = "{problem}"
    problem: str


@dataclass(frozen=True)
class NotOverPipe(Reason, code="not_over_pipe"):
    """The tests need something that cannot cross between two processes; this says nothing about the answer."""

    says = "{problem}"
    problem: str


@dataclass(frozen=True)
class NoSandbox(Reason, code="no_sandbox"):
    says = "{problem}"
    problem: str


@dataclass(frozen=True)
class SandboxOutOfTime(Reason, code="sandbox_out_of_time"):
    says = "the sandbox did not start in time"


@dataclass(frozen=True)
class FailsOnRightCode(Reason, code="fails_on_right_code"):
    says = "fails on correct code: {why}"
    why: str


@dataclass(frozen=True)
class PassesOnWrongCode(Reason, code="passes_on_wrong_code"):
    says = "passes on faulty code {number} of {wrong}"
    number: int
    wrong: int


@dataclass(frozen=True)
class NoPatch(Reason, code="no_patch"):
    says = "no patch in the answer"


@dataclass(frozen=True)
class PatchNotRead(Reason, code="patch_not_read"):
    """The patch is malformed, of a kind that is refused (binary, links), or creates files that are refused."""

    says = "{problem}"
    problem: str


@dataclass(frozen=True)
class HunkDoesNotApply(Reason, code="hunk_does_not_apply"):
    says = "{file}: hunk {hunk} does not apply (line {line})"
    file: str
    hunk: int
    line: int


@dataclass(frozen=True)
class FileMissing(Reason, code="patched_file_missing"):
    says = "{file}: no such file"
    file: str


@dataclass(frozen=True)
class FileExists(Reason, code="patched_file_exists"):
    says = "{file}: already exists"
    file: str


@dataclass(frozen=True)
class FileNotEmptied(Reason, code="deleted_file_not_empty"):
    says = "{file}: deleted, but the patch does not remove all of its lines"
    file: str


def of_old_text(text: str) -> ReasonRecord:
    """The reason for a failed answer from text that versions without codes wrote; any other text stays text."""
    start, _, finish_reason = text.partition(": ")
    if start == "did not end by itself" and finish_reason:
        return (CutOff() if finish_reason == "length" else NotEnded(finish_reason)).record()
    known: dict[str, Reason] = {
        "opens with a refusal": RefusedAnswer("opening"),
        "finish reason refusal": RefusedAnswer("refusal"),
        "finish reason content_filter": RefusedAnswer("content_filter"),
        "empty answer": EmptyAnswer(),
    }
    return known.get(text, Text(text)).record()
