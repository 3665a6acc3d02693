"""The rules for single rows: one pure function per rule, in the order in which they are applied.

A rule returns None if the row may stay, or a reason (reasons/curation.py) that says what was found. curate.rules in the
config file sets the action.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from journeyman import reasoning as reasoning_of
from journeyman.config import CurateConfig
from journeyman.curation.cut import stops_near_limit
from journeyman.curation.hidden import hidden_character
from journeyman.curation.terms import terms_of
from journeyman.reasons import Reason
from journeyman.reasons import curation as why
from journeyman.records import Interaction, split_system
from journeyman.refusals import REFUSING_REASONS, refusal
from journeyman.rendering.renderer import Renderer
from journeyman.ruleset import RULESET, rules_of

_NEAR_LIMIT = 0.8
"""Teachers count with their own tokenizer. On 300 real answers truncated at 500 tokens, the base counts 420 to 575."""


CheckFault = Callable[[Interaction], str | None]
"""Says why a row's check data can never be used; None if it can."""


@dataclass
class Candidate:
    """A row with values that several rules need, each computed once."""

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
            reasoning_of.stripped(self.output, self.markers)
            if self.config.rules.action("reasoning") == "strip"
            else self.output
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
        """Whether the answer is in the middle of a dialogue: after a tool result or an answer, or before a reply."""
        earlier = any(turn.role in ("assistant", "tool") for turn in self.row.messages)
        return earlier or self.row.followed_by == "user"

    @cached_property
    def lower(self) -> str:
        """The output in lower case."""
        return self.output.lower()

    @cached_property
    def open_fence(self) -> bool:
        """A block of code in the output never closes."""
        return fences(self.output) % 2 == 1

    @cached_property
    def output_tokens(self) -> int:
        return self.renderer.count(self.output)

    @cached_property
    def asked(self) -> str:
        """All turns except the system prompt."""
        return "\n".join(turn.content for turn in split_system(self.row.messages)[1])


class Rule(Protocol):
    """Returns what is wrong with a row, or None. The function has the name of the rule."""

    __name__: str

    def __call__(self, seen: Candidate, /) -> Reason | None: ...


_BY_NAME: dict[str, Rule] = {}


def _rule(function: Rule) -> Rule:
    assert RULESET[function.__name__].level == "row"
    _BY_NAME[function.__name__] = function
    return function


@_rule
def failed(seen: Candidate) -> Reason | None:
    row = seen.row
    if row.succeeded is not False:
        return None
    return why.LoggedError(row.errors[0][:120]) if row.errors else why.LoggedFailure()


@_rule
def empty(seen: Candidate) -> Reason | None:
    return None if seen.output.strip() or seen.row.output_calls else why.NoAnswer()


@_rule
def mock_provider(seen: Candidate) -> Reason | None:
    provider = seen.row.provider
    return why.MockProvider(provider) if provider is not None and provider in seen.config.drop_providers else None


@_rule
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


@_rule
def refused(seen: Candidate) -> Reason | None:
    """A refusal that neither the system prompt's policy nor an earlier tool result explains."""
    finish_reason = seen.row.finish_reason
    if not refusal(seen.answer, finish_reason) or explained_refusal(seen):
        return None
    if finish_reason in REFUSING_REASONS:
        return why.RefusedByFinishReason(finish_reason)
    return why.OpensWithRefusal()


@_rule
def explained_refusal(seen: Candidate) -> Reason | None:
    """A correct refusal: the system prompt's policy or a tool result asks for it."""
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


@_rule
def asks_back(seen: Candidate) -> Reason | None:
    """A short answer without code that asks near its beginning; an offer of help at the end does not count.

    In a dialogue a question is a normal turn: if the user replies, if tools need what is asked for, or if the system
    prompt says to ask.
    """
    answer = seen.answer
    if "```" in answer or len(answer) > 8 * _SHORT_WORDS or seen.row.output_calls:
        return None
    if seen.in_dialogue or seen.row.tools or _TOLD_TO_ASK.search(seen.instructed):
        return None
    return why.AsksBack() if _ASKS.search(answer[:_OPENING]) else None


@_rule
def control_tokens(seen: Candidate) -> Reason | None:
    """Text that the tokenizer would read as control tokens: it could end a turn or start another."""
    row = seen.row
    found = seen.renderer.control.find_in_row(row.messages, seen.answer, row.output_calls, row.tools)
    return None if found is None else why.ControlToken(*found.shown())


@_rule
def hidden_text(seen: Candidate) -> Reason | None:
    """Invisible characters, except those that flags, right-to-left text and scripts without spaces need."""
    for text in (*(turn.content for turn in seen.row.messages), seen.output):
        if character := hidden_character(text):
            return why.HiddenCharacter(f"U+{ord(character):04X}")
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


@_rule
def pipeline_instructions(seen: Candidate) -> Reason | None:
    for text in (seen.asked, seen.output):
        lower = seen.lower if text is seen.output else text.lower()
        for stem in _TO_PIPELINE_STEMS:
            if stem in lower:
                if _TO_PIPELINE.search(text):
                    return why.AddressesTrainer()
                break
    return None


@_rule
def unclosed_reasoning(seen: Candidate) -> Reason | None:
    if reasoning_of.unclosed(seen.output, seen.markers):
        return why.UnclosedReasoning()
    return None


@_rule
def reasoning(seen: Candidate) -> Reason | None:
    if not reasoning_of.closes(seen.output, seen.markers):
        return None
    if not reasoning_of.stripped(seen.output, seen.markers):
        return why.OnlyReasoning()
    return why.ReasoningInAnswer()


_DANGLING = re.compile(r"(?:[,(\[{=+]|\b(?:the|an?|of|to|and|or|with|for|in|by|that|is|are|as|from|which|this|be))\s*$")


@_rule
def truncated(seen: Candidate) -> Reason | None:
    """Detected by the finish reason, an open code fence, the limit and an unfinished end, or a dangling word."""
    row, text = seen.row, seen.answer.rstrip()
    if row.finish_reason == "length":
        return why.CutByLimit()
    if row.output_calls and not text:
        return None
    if seen.open_fence if seen.answer is seen.output else fences(text) % 2:
        return why.OpenFence()
    if row.finish_reason is not None:
        return None
    if row.max_tokens is not None and len(text) > row.max_tokens and seen.output_tokens >= _NEAR_LIMIT * row.max_tokens:
        return stops_near_limit(text, seen.output_tokens, row.max_tokens)
    if row.max_tokens is None and _DANGLING.search(text[-40:]) and len(text) > 200:
        return why.DanglingWord()
    return None


def fences(text: str) -> int:
    """The number of lines that open or close a code block: optional blanks, then three backticks."""
    count, at = 0, text.find("```")
    while at >= 0:
        line = text.rfind("\n", 0, at) + 1
        count += not text[line:at].strip(" \t")
        end = text.find("\n", at)
        at = text.find("```", end) if end >= 0 else -1
    return count


@_rule
def bad_check(seen: Candidate) -> Reason | None:
    fault = seen.check_fault(seen.row) if seen.check_fault and seen.row.check else None
    return None if fault is None else why.BadCheck(fault)


@_rule
def teacher_terms(seen: Candidate) -> Reason | None:
    config, teacher = seen.config.teacher_terms, seen.row.teacher
    found = terms_of(teacher, config)
    if found == "deny":
        return why.DeniedTeacher(teacher)
    return why.UnknownTerms(teacher) if found == "unknown" and config.unknown == "drop" else None


RULES: Sequence[Rule] = tuple(_BY_NAME[name] for name in rules_of("row"))
"""Applied in this order; a dropped row counts for the first rule that drops it."""
_NUMBERS = {rule.__name__: number for number, rule in enumerate(RULES, start=1)}


def rule_numbers(*names: str) -> tuple[int, ...]:
    """The numbers, from 1, of these rules in the columns."""
    return tuple(_NUMBERS[name] for name in names)
