"""Every rule of curate, defined once.

From this table come the keys of [curate.rules] in the config file, the texts of the lint report and of the reference,
and the order in which rules are asked. A new rule is one entry here and its code:

row       a function of the same name in curation/rules.py
compared  a call of Choice.found in curation/selection.py, and what its number means in the table there
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
        level: what it looks at: a single row, rows compared with each other, a row as it is rendered; or only counted.
        what: what it finds, for the report.
        default: what is done with the rows that it finds.
        actions: what may be chosen in the config file; empty where nothing can.
        doc: documentation of the key, where `what` is not enough.
        key: the rule whose key decides for this one too.
    """

    name: str
    level: Level
    what: str
    default: Action = "drop"
    actions: tuple[Action, ...] = ()
    doc: str = ""
    key: str = ""


_ALL = (
    # Rules of single rows. Asked in this order; the first that drops a row names the drop.
    Rule("failed", "row", "the log says that the call failed", actions=("drop", "keep")),
    Rule("empty", "row", "there is no answer"),
    Rule(
        "mock_provider", "row", "answered by a mock or test provider",
        actions=("drop", "keep"), doc="answered by one of drop_providers",
    ),
    Rule("other_teacher", "row", "not one of curate.teachers"),
    Rule("unclosed_reasoning", "row", "a reasoning block that never closes, so no answer"),
    Rule(
        "reasoning", "row", "a closed reasoning block in the answer",
        "strip", ("strip", "drop", "keep"),
        "closed blocks of reasoning (<think>, <thinking>, …) in answers and history",
    ),
    Rule(
        "control_tokens", "row", "holds control tokens of the base model",
        actions=("drop",), doc="holds control tokens of the base; there is no other way",
    ),
    Rule(
        "hidden_text", "row", "holds invisible or direction-changing signs",
        actions=DROP_NOTE_KEEP, doc="invisible or direction-changing signs",
    ),
    Rule(
        "pipeline_instructions", "row", "instructions addressed to whoever trains on the row",
        actions=DROP_NOTE_KEEP, doc="speaks to whoever trains on it, not to the agent",
    ),
    Rule("refused", "row", "the teacher refuses", actions=DROP_NOTE_KEEP),
    Rule(
        "explained_refusal", "row", "a refusal that the system prompt or a tool's result asks for",
        "note", DROP_NOTE_KEEP, "a refusal that the system prompt's policy or a tool's result asks for",
    ),
    Rule(
        "asks_back", "row", "the teacher asks for input instead of answering",
        actions=DROP_NOTE_KEEP,
        doc="asks for input instead of answering, where no dialogue, tool or system prompt explains it",
    ),
    Rule(
        "truncated", "row", "the answer is cut",
        "keep_without_end", ("drop", "keep_without_end", "keep"),
        "cut answers; keep_without_end trains their text but no terminator",
    ),
    Rule(
        "bad_check", "row", "check data that the role's checks cannot use",
        "note", DROP_NOTE_KEEP,
        "check data that the role's checks cannot use; note trains on the row and never tests it",
    ),
    # Rules that compare rows, and what is found while rows are rendered.
    Rule(
        "duplicate", "compared", "the same task again",
        actions=("drop", "keep"), doc="repeats and near repeats of a task",
    ),
    Rule("near_duplicate", "compared", "nearly the same task again", key="duplicate"),
    Rule(
        "contradictory", "compared", "another short answer to the same input, against the majority",
        actions=DROP_NOTE_KEEP, doc="other short answer to the same input",
    ),
    Rule("misrouted", "compared", "the task looks like another role's", "note", DROP_NOTE_KEEP),
    Rule(
        "system_prompt", "rendered", "trained under the role's system prompt in place of another one that was logged",
        "mend",
    ),
    Rule(
        "foreign", "compared", "another workload's system prompt",
        actions=DROP_NOTE_KEEP, doc="another workload: its system prompt is alien",
    ),
    Rule(
        "schema_drift", "rendered", "calls that the newest tool schemas refuse, or outdated tools offered",
        actions=DROP_NOTE_KEEP, doc="calls that the newest tools refuse",
    ),
    Rule("poison", "compared", "a rare trigger with always the same answer", actions=DROP_NOTE_KEEP),
    Rule("credit", "compared", "what had to follow in the session did not"),
    Rule(
        "too_long", "rendered", "longer than max_length",
        actions=("drop", "cut"), doc="over max_length; cut removes the oldest turns",
    ),
    Rule("template", "rendered", "the base's chat template refuses the conversation"),
    # Counted, and never a reason to drop.
    Rule("secrets", "counted", "secrets replaced by placeholders", "mend"),
    Rule("personal", "counted", "personal data replaced by placeholders", "mend"),
    Rule("too_few", "counted", "roles with few rows to train on", "note"),
)  # fmt: skip

RULESET: Mapping[str, Rule] = {rule.name: rule for rule in _ALL}
"""Name → rule, in the order of the report."""
assert len(RULESET) == len(_ALL), "two rules have one name"


def rules_of(level: Level) -> tuple[str, ...]:
    """The names of a level's rules, in order."""
    return tuple(name for name, rule in RULESET.items() if rule.level == level)
