"""What is wrong with a single row: one function a rule, pure, in the order in which they are asked.

A rule gives None where the row may stay, or one sentence that says what was found; the sentence never
quotes the row, but for `bad_check`, which names the value that is wrong. What happens then is the business
of curate.rules in the toml.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from journeyman.config import CurateConfig
from journeyman.records import Interaction
from journeyman.refusals import refusal
from journeyman.rendering.renderer import Renderer

_THINK_OPEN, _THINK_CLOSE = "<think>", "</think>"
_NEAR_LIMIT = 0.8
"""Teachers cut by their own tokenizer. On 300 real answers cut at 500 the base's count lay between 420 and 575."""


CheckFault = Callable[[Interaction], str | None]
"""Why a row's check data can never be used; None where they can."""


@dataclass
class Candidate:
    """A row with what several rules ask of it, computed once."""

    row: Interaction
    config: CurateConfig
    renderer: Renderer
    check_fault: CheckFault | None = None

    @cached_property
    def output(self) -> str:
        return self.row.output or ""

    @cached_property
    def answer(self) -> str:
        """The answer as it would be trained."""
        return strip_reasoning(self.output) if self.config.rules.reasoning == "strip" else self.output

    @cached_property
    def output_tokens(self) -> int:
        return self.renderer.count(self.output)

    @cached_property
    def asked(self) -> str:
        """Every turn but the system prompt."""
        return "\n".join(turn.content for turn in self.row.messages if turn.role != "system")


Rule = Callable[[Candidate], str | None]


def failed(seen: Candidate) -> str | None:
    row = seen.row
    if row.succeeded:
        return None
    return f"the log says so: {row.errors[0][:120]}" if row.errors else "the log's status is not success"


def empty(seen: Candidate) -> str | None:
    return None if seen.output.strip() or seen.row.output_calls else "no answer"


def mock_provider(seen: Candidate) -> str | None:
    row = seen.row
    return f"provider {row.provider!r}" if row.provider in seen.config.drop_providers else None


def other_teacher(seen: Candidate) -> str | None:
    wanted, row = seen.config.teachers, seen.row
    full = "/".join(filter(None, (row.provider, row.model)))
    return None if not wanted or row.provider in wanted or full in wanted else f"answered by {full or 'unknown'}"


def refused(seen: Candidate) -> str | None:
    return refusal(seen.answer, seen.row.finish_reason)


_ASKS = re.compile(
    r"(?i)\b(?:please (?:provide|share|paste|specify|give me|send|upload|clarify)|could you (?:please )?(?:provide"
    r"|share|clarify|specify|give)|can you (?:please )?(?:provide|share|clarify|specify)"
    r"|you (?:haven['’]t|have not|didn['’]t|did not)"
    r" (?:provided?|shared?|included?|specified|specify)|i(?:['’]d| would) need (?:more|some|the|additional)|need more "
    r"(?:information|context|details)|i don['’]t see (?:any|the|a)\b)"
)
_SHORT_WORDS, _OPENING = 120, 400


def asks_back(seen: Candidate) -> str | None:
    """Short, without code, and asking near its beginning: help that is offered at the end is not meant."""
    answer = seen.answer
    if "```" in answer or len(answer) > 8 * _SHORT_WORDS or seen.row.output_calls:
        return None
    return "asks for input instead of answering" if _ASKS.search(answer[:_OPENING]) else None


def control_tokens(seen: Candidate) -> str | None:
    """Text that the tokenizer would turn into control tokens could end a turn or start another."""
    for text in (*(turn.content for turn in seen.row.messages), seen.output):
        if found := seen.renderer.control_pattern.search(text):
            return f"holds the control token {found[0]}"
    return None


_HIDDEN = re.compile("[\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069\U000e0001-\U000e007f]")


def hidden_text(seen: Candidate) -> str | None:
    for text in (*(turn.content for turn in seen.row.messages), seen.output):
        if not text.isascii() and (found := _HIDDEN.search(text)):
            return f"holds the invisible sign U+{ord(found[0]):04X}"
    return None


_TO_PIPELINE = re.compile(
    r"(?i)ignore (?:all |any )?(?:of )?(?:the |your )?(?:previous|prior|above|earlier) (?:instructions|prompts|rules)"
    r"|disregard (?:all |any )?(?:of )?(?:the |your )?(?:previous|prior|above|earlier|system)"
    r"|(?:include|add|use|put|keep) this (?:example|conversation|text|row|sample|answer|interaction) (?:in|to|for|into)"
    r" (?:\w+ ){0,3}(?:train|fine-?tun)"
    r"|(?:when|once|after|if) (?:you are |you're |being |this is )(?:re-?trained|fine-?tuned|trained|distilled)"
    r"|(?:note|message|instructions?) (?:to|for) (?:the )?(?:data )?"
    r"(?:curator|trainer|training pipeline|fine-?tun|distill)"
    r"|mark this (?:row|sample|interaction|answer|conversation) as (?:success|good|approved|passed|correct)"
)
_TO_PIPELINE_STEMS = ("ignore", "disregard", "train", "tuned", "tuning", "distill", "mark this")


def pipeline_instructions(seen: Candidate) -> str | None:
    for text in (seen.asked, seen.output):
        lower = text.lower()
        if any(stem in lower for stem in _TO_PIPELINE_STEMS) and _TO_PIPELINE.search(text):
            return "speaks to whoever trains on it"
    return None


def unclosed_reasoning(seen: Candidate) -> str | None:
    text = seen.output
    if text.rfind(_THINK_OPEN) > text.rfind(_THINK_CLOSE):
        return "a <think> block that never closes: there is no answer in it"
    return None


def reasoning(seen: Candidate) -> str | None:
    if _THINK_CLOSE not in seen.output:
        return None
    return "nothing but reasoning" if not strip_reasoning(seen.output) else "a closed <think> block in the answer"


_DANGLING = re.compile(r"(?:[,(\[{=+]|\b(?:the|an?|of|to|and|or|with|for|in|by|that|is|are|as|from|which|this|be))\s*$")
_ENDED = (".", "!", "?", ":", ")", "]", "}", "`", '"', "'", "|", ">", "*", ";", "…", "”")


def truncated(seen: Candidate) -> str | None:
    """By the finish reason, by an open fence, by the limit where the text stops in the middle, by a dangling word."""
    row, text = seen.row, seen.answer.rstrip()
    if row.finish_reason == "length":
        return "finish reason length"
    if row.output_calls and not text:
        return None
    if len(re.findall(r"^[ \t]*```", text, re.MULTILINE)) % 2:
        return "a code fence that never closes"
    if row.finish_reason is not None:
        return None
    if row.max_tokens is not None and len(text) > row.max_tokens and seen.output_tokens >= _NEAR_LIMIT * row.max_tokens:
        return _stops_near_limit(text, seen.output_tokens, row.max_tokens)
    if row.max_tokens is None and _DANGLING.search(text[-40:]) and len(text) > 200:
        return "stops in the middle of a sentence"
    return None


def _stops_near_limit(text: str, tokens: int, limit: int) -> str | None:
    where = f"{tokens} tokens by the base's count, limit {limit}"
    if not text.endswith(_ENDED):
        return f"stops in the middle of a sentence ({where})"
    block = _last_code(text)
    if block is not None and not _parses(*block):
        return f"its last code block does not parse ({where})"
    if tokens > limit * 1.02:
        return f"longer than the limit ({where})"
    return None


def _last_code(text: str) -> tuple[str, str] | None:
    """Language and text of what the answer ends with, if that is code."""
    found = re.search(r"```(\w*)[^\n]*\n(.*?)\n?[ \t]*```$", text, re.DOTALL)
    if found:
        blocks = re.findall(r"```(\w*)[^\n]*\n(.*?)\n?[ \t]*```", text, re.DOTALL)
        return (blocks[-1][0].lower(), blocks[-1][1]) if blocks else None
    last = text.rsplit("\n", 1)[-1]
    if text[:1] in ("{", "["):
        return "json", text
    # Code without a fence: an indented or bracketed last line is a statement, not a sentence.
    return ("cut", last) if last[:1] in (" ", "\t") and last.rstrip()[-1:] in ("{", "(", "[", ":", ",") else None


def _parses(language: str, code: str) -> bool:
    try:
        if language in ("python", "py"):
            ast.parse(code)
        elif language == "json":
            json.loads(code)
        elif language == "cut":
            return False
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def bad_check(seen: Candidate) -> str | None:
    return seen.check_fault(seen.row) if seen.check_fault and seen.row.check else None


RULES: Sequence[Rule] = (
    failed, empty, mock_provider, other_teacher, unclosed_reasoning, reasoning, control_tokens, hidden_text,
    pipeline_instructions, refused, asks_back, truncated, bad_check,
)  # fmt: skip
"""Asked in this order; the first that drops a row names the drop."""


def rule_numbers(*names: str) -> tuple[int, ...]:
    """The numbers, from 1, under which the columns keep these rules."""
    return tuple(number for number, rule in enumerate(RULES, start=1) if rule.__name__ in names)


WHAT: Mapping[str, str] = {
    "failed": "the log says that the call failed",
    "empty": "there is no answer",
    "mock_provider": "answered by a mock or test provider",
    "other_teacher": "not one of curate.teachers",
    "unclosed_reasoning": "a reasoning block that never closes, so no answer",
    "reasoning": "a closed reasoning block in the answer",
    "control_tokens": "holds control tokens of the base model",
    "hidden_text": "holds invisible or direction-changing signs",
    "pipeline_instructions": "instructions addressed to whoever trains on the row",
    "refused": "the teacher refuses",
    "asks_back": "the teacher asks for input instead of answering",
    "truncated": "the answer is cut",
    "bad_check": "check data that the role's checks cannot use",
    "duplicate": "the same task again",
    "near_duplicate": "nearly the same task again",
    "contradictory": "another short answer to the same input, against the majority",
    "misrouted": "the task looks like another role's",
    "foreign": "another workload's system prompt",
    "schema_drift": "calls that the newest tool schemas refuse, or outdated tools offered",
    "poison": "a rare trigger with always the same answer",
    "credit": "what had to follow in the session did not",
    "too_long": "longer than max_length",
    "template": "the base's chat template refuses the conversation",
    "secrets": "secrets replaced by placeholders",
    "personal": "personal data replaced by placeholders",
    "too_few": "roles with few rows to train on",
}
"""Every rule by name, in the order of the report."""


def strip_reasoning(text: str) -> str:
    """The answer without its closed <think> blocks."""
    if _THINK_CLOSE not in text:
        return text
    text = re.sub(r"<think>.*?</think>\s*", "", text, flags=re.DOTALL)
    # Some servers swallow the opening tag; what stands before the closing one is reasoning all the same.
    return text.rsplit(_THINK_CLOSE, 1)[-1].strip() if _THINK_CLOSE in text else text.strip()
