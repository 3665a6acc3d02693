"""All curation rules, each defined once.

The keys of [curate.rules] in the config file, the texts of the lint report and the reference, and the order of the
rules come from this table. A new rule is one entry here and its code:

row       a function of the same name in curation/rules.py
compared  a call of Choice.found in curation/selection.py, and an entry in the table there for what its number means
rendered  raised or noted in curation/render.py
counted   counted while redacting or summing up
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
    """One rule.

    Attributes:
        level: what it looks at: a single row, rows compared with each other, a rendered row; or it only counts.
        what: what it finds, for the report.
        default: the default action for the rows that it finds.
        actions: the values that the config file may set; empty if it has no key.
        doc: documentation of the key, if `what` is not enough.
        key: the rule whose key applies to this one too.
    """

    name: str
    level: Level
    what: str
    default: Action = "drop"
    actions: tuple[Action, ...] = ()
    doc: str = ""
    key: str = ""


_ALL = (
    # Rules for single rows, in this order; the first that drops a row is reported for it.
    Rule("failed", "row", "the log says that the call failed", actions=("drop", "keep")),
    Rule("empty", "row", "no answer"),
    Rule(
        "mock_provider", "row", "answered by a mock or test provider",
        actions=("drop", "keep"), doc="answered by one of curate.drop_providers",
    ),
    Rule("other_teacher", "row", "not one of curate.teachers"),
    Rule("unclosed_reasoning", "row", "a reasoning block that is never closed, so there is no answer"),
    Rule(
        "reasoning", "row", "a closed reasoning block in the answer",
        "strip", ("strip", "drop", "keep"),
        "closed blocks of reasoning (<think>, <thinking>, …) in answers and history",
    ),
    Rule(
        "control_tokens", "row", "contains control tokens of the base model",
        actions=("drop",), doc="contains control tokens of the base; always dropped",
    ),
    Rule(
        "hidden_text", "row", "contains invisible or direction-changing characters",
        actions=DROP_NOTE_KEEP,
    ),
    Rule(
        "pipeline_instructions", "row", "contains instructions for the training pipeline, not for the agent",
        actions=DROP_NOTE_KEEP,
    ),
    Rule("refused", "row", "the teacher refuses", actions=DROP_NOTE_KEEP),
    Rule(
        "explained_refusal", "row", "a refusal that the system prompt or a tool's result asks for",
        "note", DROP_NOTE_KEEP, "a refusal that the system prompt's policy or a tool's result asks for",
    ),
    Rule(
        "asks_back", "row", "the teacher asks for input instead of answering",
        actions=DROP_NOTE_KEEP,
        doc="the teacher asks for input instead of answering, and no dialogue, tool or system prompt explains it",
    ),
    Rule(
        "truncated", "row", "the answer is cut off",
        "keep_without_end", ("drop", "keep_without_end", "keep"),
        "the answer is cut off; keep_without_end trains its text but no terminator",
    ),
    Rule(
        "bad_check", "row", "check data that the role's checks cannot use",
        "note", DROP_NOTE_KEEP,
        "check data that the role's checks cannot use; note trains on the row but never tests with it",
    ),
    # Rules that compare rows, and rules applied while rows are rendered.
    Rule(
        "duplicate", "compared", "repeats a task",
        actions=("drop", "keep"), doc="repeats a task, exactly or nearly",
    ),
    Rule("near_duplicate", "compared", "repeats a task with small changes", key="duplicate"),
    Rule(
        "contradictory", "compared", "a short answer that contradicts the majority of answers to the same input",
        actions=DROP_NOTE_KEEP,
    ),
    Rule("misrouted", "compared", "the task looks like another role's", "note", DROP_NOTE_KEEP),
    Rule(
        "system_prompt", "rendered", "trained with the role's system prompt instead of the one that was logged",
        "mend",
    ),
    Rule(
        "foreign", "compared", "another workload's system prompt",
        actions=DROP_NOTE_KEEP, doc="another workload, recognized by its system prompt",
    ),
    Rule(
        "schema_drift", "rendered", "calls that the newest tool schemas do not accept, or outdated tools on offer",
        actions=DROP_NOTE_KEEP, doc="calls that the newest tool schemas do not accept",
    ),
    Rule("poison", "compared", "a rare phrase that always gets the same answer (poisoning)", actions=DROP_NOTE_KEEP),
    Rule("credit", "compared", "the session lacks a later row that curate.credit requires"),
    Rule(
        "too_long", "rendered", "longer than max_length",
        actions=("drop", "cut"), doc="longer than curate.max_length; cut removes the oldest turns",
    ),
    Rule("template", "rendered", "the base's chat template refuses the conversation"),
    # Only counted, never a reason to drop a row.
    Rule("secrets", "counted", "secrets replaced by placeholders", "mend"),
    Rule("personal", "counted", "personal data replaced by placeholders", "mend"),
    Rule("too_few", "counted", "roles with few training rows", "note"),
)  # fmt: skip

RULESET: Mapping[str, Rule] = {rule.name: rule for rule in _ALL}
"""Name → rule, in the order of the report."""
assert len(RULESET) == len(_ALL), "two rules have the same name"


def rules_of(level: Level) -> tuple[str, ...]:
    """The names of a level's rules, in order."""
    return tuple(name for name, rule in RULESET.items() if rule.level == level)
