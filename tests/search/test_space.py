"""The settings that are searched, and the order of candidates."""

from __future__ import annotations

from itertools import islice

import pytest

from conftest import example_of
from journeyman.config import LoraConfig, TrainConfig
from journeyman.records import Example, Message
from journeyman.search.space import ATTENTION, applied, at_share, candidates, dimensions, not_searched

DEFAULT = TrainConfig()


def _rows(count: int, *roles: str) -> list[Example]:
    return [
        example_of([Message(role="user", content="x")], "y", id=f"{role}{number}", role=role)
        for role in roles
        for number in range(count)
    ]


def _candidates(count: int, seed: int = 0, default: TrainConfig = DEFAULT) -> list[TrainConfig]:
    found = dimensions(default, _rows(40, "a", "b"))
    return [applied(default, one) for one in islice(candidates(default, found, seed), count)]


def test_the_default_comes_first_then_its_neighbours() -> None:
    found = _candidates(5)
    assert found[0] == DEFAULT
    assert [one.learning_rate for one in found[1:4]] == [1e-3, 5e-4, 2.5e-4]
    assert found[2].epochs == 6
    assert found[4].batch_size == 4


def test_candidates_differ_depend_on_the_seed_alone_and_a_longer_list_begins_with_the_shorter() -> None:
    found = _candidates(24)
    assert len({one.model_dump_json() for one in found}) == 24
    assert _candidates(12) == found[:12]
    assert _candidates(24, seed=1)[:5] == found[:5]
    assert _candidates(24, seed=1)[5:] != found[5:]


def test_every_setting_takes_each_of_its_values() -> None:
    found = _candidates(60)
    assert {one.lora.rank for one in found} == {8, 16, 32, 64}
    assert {one.epochs for one in found} == {1, 3, 6, 9}
    assert {one.batch_size for one in found} == {4, 8, 16}
    assert {one.adapters for one in found} == {"shared", "per-role"}
    assert {tuple(one.lora.targets) for one in found} == {tuple(DEFAULT.lora.targets), tuple(ATTENTION)}
    rates = sorted(one.learning_rate for one in found)
    assert rates[0] >= DEFAULT.learning_rate / 4.1
    assert rates[-1] <= DEFAULT.learning_rate * 4.1
    assert rates[0] < 2e-4 < 1.5e-3 < rates[-1]


def test_the_scale_of_the_update_stays_with_the_rank() -> None:
    default = TrainConfig(lora=LoraConfig(rank=16, alpha=24))
    assert applied(default, {"lora.rank": 32}).lora.alpha == 48
    assert applied(default, {"lora.rank": 32, "lora.alpha": 5.0}).lora.alpha == 5


def test_what_the_user_has_set_stays_known() -> None:
    made = applied(TrainConfig(epochs=2), {"lora.rank": 32})
    assert made.model_fields_set == {"epochs", "lora"}
    assert made.retention.model_fields_set == set()
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        applied(DEFAULT, {"epochs": 0})


def test_the_warm_up_is_the_same_part_of_a_shorter_schedule() -> None:
    assert at_share(TrainConfig(warmup_steps=20), 0.25).warmup_steps == 5


@pytest.mark.parametrize(
    ("rows", "one"), [(_rows(40, "a"), False), (_rows(5, "a", "b"), False), (_rows(40, "a", "b"), True)]
)
def test_adapters_by_role_need_roles_with_rows(rows: list[Example], one: bool) -> None:
    found = dimensions(DEFAULT, rows, one_adapter=one)
    assert "adapters" not in {dimension.key for dimension in found}
    assert not_searched(found)[0].startswith("adapters: ")


def test_data_rules_are_searched_where_rows_differ() -> None:
    rows = _rows(40, "a")
    cut, light = rows[0].model_copy(update={"ends": False}), rows[1].model_copy(update={"weight": 0.5})
    keys = {one.key for one in dimensions(DEFAULT, [cut, light, *rows[2:]])}
    assert {"rows.cut_answers", "rows.weights"} <= keys
    assert not {"rows.cut_answers", "rows.weights"} & {one.key for one in dimensions(DEFAULT, rows)}
    alone = rows[0].model_copy(update={"role": "b", "ends": False})  # its role would have no rows left
    assert "rows.cut_answers" not in {one.key for one in dimensions(DEFAULT, [alone, *rows])}
    assert applied(DEFAULT, {"rows.cut_answers": "drop"}).rows.cut_answers == "drop"


def test_a_batch_is_smaller_than_the_training_set() -> None:
    found = dimensions(DEFAULT, _rows(10, "a"))
    assert {one.batch_size for one in (applied(DEFAULT, c) for c in islice(candidates(DEFAULT, found, 0), 40))} <= {
        4,
        8,
    }
