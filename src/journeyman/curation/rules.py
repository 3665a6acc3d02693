"""What is wrong with a single row: one function a rule, pure, in the order in which they are asked.

A rule gives None where the row may stay, or a reason (reasons/curation.py) that says what was found. What happens
then is decided by curate.rules in the config file.
"""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from journeyman import reasoning as reasoning_of
from journeyman.config import CurateConfig
from journeyman.reasons import Reason
from journeyman.reasons import curation as why
from journeyman.records import Interaction, split_system
from journeyman.refusals import REFUSING_REASONS, refusal
from journeyman.rendering.renderer import Renderer

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
        return (
            reasoning_of.stripped(self.output, self.markers) if self.config.rules.reasoning == "strip" else self.output
        )

    @cached_property
    def markers(self) -> tuple[tuple[str, str], ...]:
        if not reasoning_of.may_hold(self.output):
            return ()
        return reasoning_of.markers(turn.content for turn in self.row.messages if turn.role in ("system", "user"))

    @cached_property
    def instructed(self) -> str:
        """The system and developer turns."""
        return "\n".join(turn.content for turn in self.row.messages if turn.role == "system")

    @property
    def in_dialogue(self) -> bool:
        """In the middle of a dialogue: after a tool's result or another answer, or before a user's reply."""
        earlier = any(turn.role in ("assistant", "tool") for turn in self.row.messages)
        return earlier or self.row.followed_by == "user"

    @cached_property
    def output_tokens(self) -> int:
        return self.renderer.count(self.output)

    @cached_property
    def asked(self) -> str:
        """Every turn but the system prompt."""
        return "\n".join(turn.content for turn in split_system(self.row.messages)[1])


Rule = Callable[[Candidate], Reason | None]


def failed(seen: Candidate) -> Reason | None:
    row = seen.row
    if row.succeeded is not False:
        return None
    return why.LoggedError(row.errors[0][:120]) if row.errors else why.LoggedFailure()


def empty(seen: Candidate) -> Reason | None:
    return None if seen.output.strip() or seen.row.output_calls else why.NoAnswer()


def mock_provider(seen: Candidate) -> Reason | None:
    provider = seen.row.provider
    return why.MockProvider(provider) if provider is not None and provider in seen.config.drop_providers else None


def other_teacher(seen: Candidate) -> Reason | None:
    wanted, row = seen.config.teachers, seen.row
    full = "/".join(filter(None, (row.provider, row.model)))
    return None if not wanted or row.provider in wanted or full in wanted else why.OtherTeacher(full or None)


_POLICY = re.compile(
    r"(?i)\b(?:refuse|decline|deny|denied|den(?:y|ies) (?:any|all|the|requests?)|polic(?:y|ies)"
    r"|(?:do|must|should|may|can) ?(?:not|n['’]t) (?:help|assist|answer|provide|give|offer|discuss|cancel|change|modify"
    r"|proceed|share|reveal)|not (?:allowed|permitted)|only (?:answer|help|assist|discuss|provide|handle)"
    r"|out of scope|outside (?:of )?(?:your|the|its) scope|transfer (?:the user |them )?to a human)\b"
)


def refused(seen: Candidate) -> Reason | None:
    """A refusal that nothing explains: neither the system prompt's policy nor a tool's result before it."""
    finish_reason = seen.row.finish_reason
    if not refusal(seen.answer, finish_reason) or explained_refusal(seen):
        return None
    if finish_reason in REFUSING_REASONS:
        return why.RefusedByFinishReason(finish_reason)
    return why.OpensWithRefusal()


def explained_refusal(seen: Candidate) -> Reason | None:
    """A refusal that is right: the policy in the system prompt asks for it, or a tool's result does."""
    if not refusal(seen.answer, seen.row.finish_reason) or seen.row.finish_reason in REFUSING_REASONS:
        return None
    if any(turn.role == "tool" for turn in seen.row.messages):
        return why.RefusalAfterTool()
    return why.RefusalAsInstructed() if _POLICY.search(seen.instructed) else None


_ASKS = re.compile(
    r"(?i)\b(?:please (?:provide|share|paste|specify|give me|send|upload|clarify)|could you (?:please )?(?:provide"
    r"|share|clarify|specify|give)|can you (?:please )?(?:provide|share|clarify|specify)"
    r"|you (?:haven['’]t|have not|didn['’]t|did not)"
    r" (?:provided?|shared?|included?|specified|specify)|i(?:['’]d| would) need (?:more|some|the|additional)|need more "
    r"(?:information|context|details)|i don['’]t see (?:any|the|a)\b)"
)
_SHORT_WORDS, _OPENING = 120, 400


_TOLD_TO_ASK = re.compile(
    r"(?i)\b(?:ask (?:for|the (?:user|customer|caller|client)|them|him or her|clarif|follow|questions?|back|if|when)"
    r"|clarif(?:y|ying|ication)|request (?:more|missing|the missing|additional)|one question at a time"
    r"|(?:verify|confirm|authenticate|identify) (?:the )?(?:user|customer|caller|client|identity)"
    r"|user.?id|order.?(?:id|number))"
)


def asks_back(seen: Candidate) -> Reason | None:
    """Short, without code, and asking near its beginning: help that is offered at the end is not meant.

    In a dialogue a question is a turn like any other: where the user replies, where tools need what is asked for,
    or where the system prompt says to ask.
    """
    answer = seen.answer
    if "```" in answer or len(answer) > 8 * _SHORT_WORDS or seen.row.output_calls:
        return None
    if seen.in_dialogue or seen.row.tools or _TOLD_TO_ASK.search(seen.instructed):
        return None
    return why.AsksBack() if _ASKS.search(answer[:_OPENING]) else None


def control_tokens(seen: Candidate) -> Reason | None:
    """Text that the tokenizer would turn into control tokens could end a turn or start another."""
    row = seen.row
    found = seen.renderer.control.find_in_row(row.messages, seen.answer, row.output_calls, row.tools)
    return None if found is None else why.ControlToken(*found.shown())


_HIDDEN = re.compile("[\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069\U000e0001-\U000e007f]")
_FLAG = re.compile("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,6}\U000e007f")
"""A flag of a region: a black flag, its code in tag signs, and the end (Unicode Technical Standard 51)."""
_OVERRIDES = "\u202d\u202e"
_DIRECTIONS = "\u202a\u202b\u202c\u2066\u2067\u2068\u2069"
_NO_SPACES = ("THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "CJK", "HIRAGANA", "KATAKANA", "JAVANESE")
"""Scripts that mark where a line may break with a zero-width space."""


def hidden_text(seen: Candidate) -> Reason | None:
    """Signs that no reader sees, but for those that flags, right-to-left text and scripts without spaces need."""
    for text in (*(turn.content for turn in seen.row.messages), seen.output):
        if not text.isascii() and _HIDDEN.search(text) and (sign := _hidden_sign(text)):
            return why.HiddenCharacter(f"U+{ord(sign):04X}")
    return None


def _hidden_sign(text: str) -> str | None:
    text = _FLAG.sub("", text).removeprefix("\ufeff")
    right_to_left = any(unicodedata.bidirectional(sign) in ("R", "AL") for sign in text)
    for found in _HIDDEN.finditer(text):
        sign, place = found[0], found.start()
        if sign in _DIRECTIONS and right_to_left and sign not in _OVERRIDES:
            continue
        if sign in "\u200b\u2060" and any(_unspaced(one) for one in text[max(0, place - 1) : place + 2]):
            continue
        return sign
    return None


def _unspaced(sign: str) -> bool:
    return unicodedata.name(sign, "").startswith(_NO_SPACES)


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


def pipeline_instructions(seen: Candidate) -> Reason | None:
    for text in (seen.asked, seen.output):
        lower = text.lower()
        if any(stem in lower for stem in _TO_PIPELINE_STEMS) and _TO_PIPELINE.search(text):
            return why.AddressesTrainer()
    return None


def unclosed_reasoning(seen: Candidate) -> Reason | None:
    if reasoning_of.unclosed(seen.output, seen.markers):
        return why.UnclosedReasoning()
    return None


def reasoning(seen: Candidate) -> Reason | None:
    if not reasoning_of.closes(seen.output, seen.markers):
        return None
    if not reasoning_of.stripped(seen.output, seen.markers):
        return why.OnlyReasoning()
    return why.ReasoningInAnswer()


_DANGLING = re.compile(r"(?:[,(\[{=+]|\b(?:the|an?|of|to|and|or|with|for|in|by|that|is|are|as|from|which|this|be))\s*$")
_ENDED = (".", "!", "?", ":", ")", "]", "}", "`", '"', "'", "|", ">", "*", ";", "…", "”")


def truncated(seen: Candidate) -> Reason | None:
    """By the finish reason, by an open fence, by the limit where the text stops in the middle, by a dangling word."""
    row, text = seen.row, seen.answer.rstrip()
    if row.finish_reason == "length":
        return why.CutByLimit()
    if row.output_calls and not text:
        return None
    if len(re.findall(r"^[ \t]*```", text, re.MULTILINE)) % 2:
        return why.OpenFence()
    if row.finish_reason is not None:
        return None
    if row.max_tokens is not None and len(text) > row.max_tokens and seen.output_tokens >= _NEAR_LIMIT * row.max_tokens:
        return _stops_near_limit(text, seen.output_tokens, row.max_tokens)
    if row.max_tokens is None and _DANGLING.search(text[-40:]) and len(text) > 200:
        return why.DanglingWord()
    return None


def _stops_near_limit(text: str, tokens: int, limit: int) -> Reason | None:
    if not text.endswith(_ENDED):
        return why.UnendedSentence(tokens, limit)
    block = _last_code(text)
    if block is not None and not _parses(*block):
        return why.UnparsedCode(tokens, limit)
    if tokens > limit * 1.02:
        return why.OverLimit(tokens, limit)
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


def bad_check(seen: Candidate) -> Reason | None:
    fault = seen.check_fault(seen.row) if seen.check_fault and seen.row.check else None
    return None if fault is None else why.BadCheck(fault)


RULES: Sequence[Rule] = (
    failed, empty, mock_provider, other_teacher, unclosed_reasoning, reasoning, control_tokens, hidden_text,
    pipeline_instructions, refused, explained_refusal, asks_back, truncated, bad_check,
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
    "explained_refusal": "a refusal that the system prompt or a tool's result asks for",
    "asks_back": "the teacher asks for input instead of answering",
    "truncated": "the answer is cut",
    "bad_check": "check data that the role's checks cannot use",
    "duplicate": "the same task again",
    "near_duplicate": "nearly the same task again",
    "contradictory": "another short answer to the same input, against the majority",
    "misrouted": "the task looks like another role's",
    "system_prompt": "trained under the role's system prompt in place of another one that was logged",
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
