"""The one table of curate's rules, and what is made from it."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from journeyman.config import CurateConfig, RulesConfig, parse_config
from journeyman.curation.lint import _rules
from journeyman.curation.rules import RULES, rule_numbers
from journeyman.curation.selection import _FOUND, DECISIONS
from journeyman.errors import UsageError
from journeyman.ruleset import RULESET, rules_of

SOURCE = Path(__file__).parents[2] / "src/journeyman"


def test_every_rule_of_a_row_has_its_function_and_they_are_asked_in_the_order_of_the_table() -> None:
    assert [rule.__name__ for rule in RULES] == list(rules_of("row"))
    assert rule_numbers("failed", "truncated") == (1, 13), "the numbers stand in the columns of an unfinished curate"
    with pytest.raises(KeyError):
        rule_numbers("no_such_rule")


def test_every_rule_that_compares_rows_says_what_it_found() -> None:
    assert set(_FOUND) == set(rules_of("compared")) == set(DECISIONS) - {""}


def test_every_rule_that_renders_or_counts_is_used() -> None:
    code = "".join(path.read_text() for path in (SOURCE / "curation").glob("*.py"))
    for name in (*rules_of("compared"), *rules_of("rendered"), *rules_of("counted")):
        assert f'"{name}"' in code, name


def test_the_config_has_a_key_for_each_rule_that_can_be_chosen() -> None:
    rules = parse_config({}, "x").curate.rules
    assert set(type(rules).model_fields) == {name for name, rule in RULESET.items() if rule.actions}
    for name, rule in RULESET.items():
        assert rules.action(name) == rule.default
        for action in rule.actions:
            chosen = parse_config({"curate": {"rules": {name: action}}}, "x").curate
            assert chosen.rules.action(name) == action
            assert pickle.loads(pickle.dumps(chosen)) == chosen, "it goes to worker processes"
    with pytest.raises(KeyError):
        rules.action("no_such_rule")


def test_the_defaults_are_among_what_may_be_chosen_and_a_shared_key_exists() -> None:
    for rule in RULESET.values():
        assert not rule.actions or rule.default in rule.actions
        assert not rule.key or RULESET[rule.key].actions
    kept = CurateConfig(rules=RulesConfig.model_validate({"duplicate": "keep"})).rules
    assert kept.action("near_duplicate") == "keep"


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"truncatd": "drop"}, "Did you mean curate.rules.truncated"),
        ({"empty": "keep"}, "unknown key curate.rules.empty"),
        ({"control_tokens": "keep"}, "curate.rules.control_tokens = 'keep'"),
        ({"poison": 3}, "curate.rules.poison = 3"),
    ],
)
def test_other_keys_and_values_are_refused(rules: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        parse_config({"curate": {"rules": rules}}, "x")


def test_the_report_names_the_action_of_every_rule() -> None:
    config = parse_config({"curate": {"rules": {"duplicate": "keep", "poison": "note"}}}, "x")
    made = _rules({}, {}, config)  # type: ignore[arg-type]
    assert list(made) == list(RULESET)
    actions = {name: made[name].action for name in ("near_duplicate", "poison", "empty", "secrets", "system_prompt")}
    assert actions == {
        "near_duplicate": "keep", "poison": "note", "empty": "drop", "secrets": "mend", "system_prompt": "mend",
    }  # fmt: skip
