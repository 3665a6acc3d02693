"""What fits into a budget, and how a budget is given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from journeyman.cli.probe import budget_of
from journeyman.errors import UsageError
from journeyman.manifests import PlanManifest
from journeyman.probing.costs import PartCost, affordable, train_seconds

COSTS = [PartCost("eighth", 10, 50, 10), PartCost("quarter", 20, 100, 10), PartCost("half", 40, 200, 10)]


@pytest.mark.parametrize(
    ("budget", "kept"), [(59, 0), (60, 1), (169, 1), (170, 2), (379, 2), (380, 3)]
)  # fmt: skip
def test_parts_are_kept_in_order_as_long_as_their_sum_fits(budget: float, kept: int) -> None:
    names, left_out = affordable(COSTS, budget)
    assert names == [one.name for one in COSTS][:kept]
    assert [one.part for one in left_out] == [one.name for one in COSTS][kept:]
    assert all(one.budget_s == budget < one.estimated_s for one in left_out)


def test_a_part_takes_its_share_of_the_steps_and_all_of_the_validations() -> None:
    time = SimpleNamespace(seconds=110.0, validation_s=10.0, load_s=5.0)
    planned = cast(PlanManifest, SimpleNamespace(train_time=time, estimated_train_s=110.0))
    assert train_seconds(planned, 0.25) == 40.0
    older = cast(PlanManifest, SimpleNamespace(train_time=None, estimated_train_s=110.0))
    assert train_seconds(older, 0.25) == 27.5


def test_what_is_no_time_is_refused() -> None:
    assert budget_of(None) == 600
    with pytest.raises(UsageError, match="is no duration"):
        budget_of("soon")
