"""All curation rules, each defined once.

The keys of [curate.rules] in the config file, the texts of the lint report and of the reference, and the order in which
the rules are applied come from this table. A new rule needs an entry here and its code:

row       a function of the same name in curation/rules.py
compared  a call of Choice.found in curation/selection.py, and the meaning of its number in the table there
rendered  raised or noted in curation/render.py
counted   counted during redaction or in the summary
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Action = Literal["drop", "note", "keep", "strip", "cut", "keep_without_end", "mend"]
Level = Literal["row", "compared", "rendered", "counted"]
DROP_NOTE_KEEP: tuple[Action, ...] = ("drop", "note", "keep")


@dataclass(frozen=True)
class Rule:
    """A curation rule.

    Attributes:
        level: what it examines: a single row, rows compared with each other, or a row as it is rendered; "counted"
            rules never drop a row.
        what: description of its findings, for the report.
        default: the action on the rows that it finds.
        actions: the actions that the config file may choose; empty if the action is fixed.
        doc: documentation of the key, if `what` is not enough.
        key: the rule whose key sets the action of this one too.
    """

    name: str
    level: Level
    what: str
    default: Action = "drop"
    actions: tuple[Action, ...] = ()
    doc: str = ""
    key: str = ""


_ALL = (
    # Rules for single rows, applied in this order. A dropped row counts for the first rule that drops it.
    Rule("failed", "row", "the log says that the call failed", actions=("drop", "keep")),
    Rule("empty", "row", "no answer"),
    Rule(
        "mock_provider", "row", "answered by a mock or test provider",
        actions=("drop", "keep"), doc="answered by one of drop_providers",
    ),
    Rule("other_teacher", "row", "answered by a teacher that is not in curate.teachers"),
    Rule("unclosed_reasoning", "row", "a reasoning block that is never closed, so there is no answer"),
    Rule(
        "reasoning", "row", "a closed reasoning block in the answer",
        "strip", ("strip", "drop", "keep"),
        "closed reasoning blocks (<think>, <thinking>, …) in answers and history",
    ),
    Rule(
        "control_tokens", "row", "contains control tokens of the base model",
        actions=("drop",), doc="contains control tokens of the base; such rows are always dropped",
    ),
    Rule(
        "hidden_text", "row", "contains invisible or direction-changing characters",
        actions=DROP_NOTE_KEEP, doc="invisible or direction-changing characters",
    ),
    Rule(
        "pipeline_instructions", "row", "instructions addressed to whoever trains on the row",
        actions=DROP_NOTE_KEEP, doc="text that addresses whoever trains on the row, not the agent",
    ),
    Rule("refused", "row", "the teacher refuses", actions=DROP_NOTE_KEEP),
    Rule(
        "explained_refusal", "row", "a refusal that the system prompt or a tool result asks for",
        "note", DROP_NOTE_KEEP, "a refusal that the system prompt's policy or a tool result asks for",
    ),
    Rule(
        "asks_back", "row", "the teacher asks for input instead of answering",
        actions=DROP_NOTE_KEEP,
        doc="asks for input instead of answering, unless a dialogue, tool or system prompt explains it",
    ),
    Rule(
        "truncated", "row", "the answer is truncated",
        "keep_without_end", ("drop", "keep_without_end", "keep"),
        "truncated answers; keep_without_end trains on their text but on no terminator",
    ),
    Rule(
        "bad_check", "row", "check data that the role's checks cannot use",
        "note", DROP_NOTE_KEEP,
        "check data that the role's checks cannot use; note trains on the row but never tests it",
    ),
    # Last, because the numbers of the others are in columns that an interrupted curate resumes with.
    Rule("teacher_terms", "row", "its teacher's terms do not allow to train on it: curate.teacher_terms"),
    # Rules that compare rows, and findings while rows are rendered.
    Rule(
        "duplicate", "compared", "the same task again",
        actions=("drop", "keep"), doc="duplicates and near duplicates of a task",
    ),
    Rule("near_duplicate", "compared", "nearly the same task again", key="duplicate"),
    Rule(
        "contradictory", "compared", "a different short answer to the same input than most rows have",
        actions=DROP_NOTE_KEEP, doc="a different short answer to the same input than most rows have",
    ),
    Rule("misrouted", "compared", "the task looks like another role's", "note", DROP_NOTE_KEEP),
    Rule(
        "system_prompt", "rendered", "trained with the role's system prompt instead of the logged one",
        "mend",
    ),
    Rule(
        "foreign", "compared", "another workload's system prompt",
        actions=DROP_NOTE_KEEP, doc="another workload: a system prompt that is unlike the role's",
    ),
    Rule(
        "schema_drift", "rendered", "tool calls that do not match the newest definitions, or outdated tool definitions",
        actions=DROP_NOTE_KEEP, doc="tool calls that do not match the newest definitions",
    ),
    Rule("poison", "compared", "a rare trigger that always has the same answer", actions=DROP_NOTE_KEEP),
    Rule("credit", "compared", "the required outcome did not follow in the session"),
    Rule(
        "too_long", "rendered", "longer than max_length",
        actions=("drop", "cut"), doc="longer than max_length; cut removes the oldest turns",
    ),
    Rule("template", "rendered", "the base's chat template refuses the conversation"),
    # Counted, but never a reason to drop a row.
    Rule("secrets", "counted", "secrets replaced by placeholders", "mend"),
    Rule("personal", "counted", "personal data replaced by placeholders", "mend"),
    Rule("too_few", "counted", "roles with few training rows", "note"),
)  # fmt: skip

RULESET: Mapping[str, Rule] = {rule.name: rule for rule in _ALL}
"""Name → rule, in the order of the report."""
assert len(RULESET) == len(_ALL), "two rules have the same name"


def rules_of(level: Level) -> tuple[str, ...]:
    """The names of the rules of a level, in order."""
    return tuple(name for name, rule in RULESET.items() if rule.level == level)
