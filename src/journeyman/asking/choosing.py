"""The rows of a finished dataset whose prompts are put to the teacher again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from journeyman.artifacts import hash_of, read_rows
from journeyman.asking.kinds import KIND_OF
from journeyman.config import CurateConfig
from journeyman.curation.rules import Candidate, control_tokens, hidden_text, pipeline_instructions
from journeyman.reasons.curation import OnlyReasoning
from journeyman.records import Finding, Interaction
from journeyman.rendering.renderer import Renderer

SAME_QUESTION, ANSWERED, EMPTY_TASK, NO_ROOM, DONE, NOT_AGAIN = (
    "same_question", "answered", "empty_task", "no_room", "done", "failed_before",
)  # fmt: skip
"""Why a row that was found is not asked, besides the rules that it breaks: another row with the same question is asked,
another row has a complete answer to it, it asks nothing, no longer answer fits, it was asked before with success, or
without."""
_OF_PROMPTS = (control_tokens, hidden_text, pipeline_instructions)


@dataclass(frozen=True)
class Wanted:
    """A row to ask again.

    Attributes:
        kind: a name in kinds.KINDS.
        rule: the name of the rule that found it, in ruleset.RULESET.
        question: a hash of the role, the conversation and the tools.
        limit: of the new answer, in tokens; 0: not set yet.
        prompt_tokens: as the base's tokenizer counts them, an estimate of what the teacher's counts.
    """

    row: Interaction
    kind: str
    rule: str
    question: str
    limit: int = 0
    prompt_tokens: int = 0


@dataclass
class Chosen:
    """What was found.

    Attributes:
        found: rule → rows that it found, of the chosen kinds.
        left_out: reason → rows that are not asked; a reason is one above or the name of a rule.
    """

    wanted: list[Wanted] = field(default_factory=list)
    found: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)


def question_of(row: Interaction) -> str:
    """A hash of what is asked: the role, the conversation and the tools."""
    return hash_of([row.role, [turn.as_openai() for turn in row.messages], row.tools])


def choose(
    interactions: Path, findings: Sequence[Path], kinds: Collection[str], config: CurateConfig, renderer: Renderer
) -> Chosen:
    """Reads the findings of curate and the rows that they are about.

    Args:
        interactions: what ingest stored.
        findings: curate's files of dropped and noted rows.
        kinds: names in kinds.KINDS.
    """
    chosen = Chosen()
    rule_of: dict[str, str] = {}
    dropped_by: dict[str, str] = {}
    unusable: set[str] = set()
    for path in findings:
        for one in read_rows(path, Finding):
            dropped = one.action == "dropped"
            if dropped:
                dropped_by[one.id] = one.rule
            kind = KIND_OF.get(one.rule)
            if kind is None or (one.rule == "reasoning" and one.reason.code != OnlyReasoning.code):
                continue
            unusable.add(one.id)
            if kind in kinds and (dropped or one.id not in rule_of):
                rule_of[one.id] = one.rule
    answered: set[str] = set()
    asked: dict[str, Wanted] = {}
    for row in read_rows(interactions, Interaction):
        rule = rule_of.get(row.id)
        if rule is None:
            if row.id not in unusable and row.id not in dropped_by:
                answered.add(question_of(row))
            continue
        chosen.found[rule] += 1
        why = _why_not(row, rule, dropped_by.get(row.id, rule), config, renderer)
        if why is None and (question := question_of(row)) not in asked:
            asked[question] = Wanted(row, KIND_OF[rule], rule, question)
        else:
            chosen.left_out[why or SAME_QUESTION] += 1
    for question, wanted in asked.items():
        if question in answered:
            chosen.left_out[ANSWERED] += 1
        else:
            chosen.wanted.append(wanted)
    return chosen


def _why_not(row: Interaction, rule: str, dropped_by: str, config: CurateConfig, renderer: Renderer) -> str | None:
    """Why a row that `rule` found is not worth asking; None if it is."""
    if dropped_by != rule and dropped_by not in KIND_OF:
        return dropped_by
    if not any(turn.content.strip() for turn in row.messages if turn.role != "system"):
        return EMPTY_TASK
    # Rules stop at the first that drops a row, so of a failed row nobody has looked at the prompt.
    prompt = Candidate(row.model_copy(update={"output": None, "output_calls": []}), config, renderer)
    for check in _OF_PROMPTS:
        if config.rules.action(check.__name__) != "keep" and check(prompt) is not None:
            return check.__name__
    return None
