"""Intervals and tests against scipy; the decision's logic."""

from __future__ import annotations

import pytest
from scipy import stats

from journeyman.manifests import (
    AdapterManifest,
    ArmSummary,
    Durations,
    LogGroup,
    Rate,
    RoleSummary,
    Rules,
    ValidationPoint,
)
from journeyman.stages.decide import decide_role
from journeyman.stats.describe import mean, median, percentile
from journeyman.stats.rates import mcnemar, rows_needed, wilson


@pytest.mark.parametrize(("passed", "n"), [(0, 1), (0, 27), (20, 27), (31, 31), (298, 302)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_equals_scipy(passed: int, n: int, confidence: float) -> None:
    expected = stats.binomtest(passed, n).proportion_ci(confidence, method="wilson")
    assert wilson(passed, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_no_interval_of_nothing() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        wilson(0, 0, 0.95)


@pytest.mark.parametrize(("wins", "losses"), [(0, 1), (5, 0), (13, 2), (4, 4), (30, 12)])
def test_mcnemar_equals_scipy(wins: int, losses: int) -> None:
    assert mcnemar(wins, losses) == pytest.approx(stats.binomtest(wins, wins + losses).pvalue)


def test_mcnemar_of_nothing_is_unknown() -> None:
    assert mcnemar(0, 0) is None


@pytest.mark.parametrize(("rate", "threshold"), [(1.0, 0.98), (1.0, 0.5), (0.9, 0.98), (0.7, 0.5)])
def test_rows_needed_is_the_first_size_that_settles_it(rate: float, threshold: float) -> None:
    needed = rows_needed(rate, threshold, 0.95)
    assert needed is not None

    def settled(n: int) -> bool:
        interval = stats.binomtest(round(rate * n), n).proportion_ci(0.95, method="wilson")
        return bool(interval.low > threshold or interval.high < threshold)

    if rate == 1.0:
        assert settled(needed) and not settled(needed - 1)
    else:
        big = needed + 10 - needed % 10  # where the rate is a whole number of rows
        assert settled(big)
    assert rows_needed(threshold, threshold, 0.95) is None


def test_describe() -> None:
    assert mean([]) is None and median([]) is None and percentile([], 0.95) is None
    assert percentile([float(x) for x in range(1, 101)], 0.95) == 95


RULES = Rules(
    max_mean_latency_s=12, min_success=0.98, max_memory_gb=10, stretch_mean_latency_s=10, stretch_success=0.99,
    confidence=0.95, checks={},
)  # fmt: skip
ADAPTER = AdapterManifest(
    base_sha256="", trainable_parameters=1, steps=10, total_steps=10, stopped_early=False, best_step=10,
    validations=[ValidationPoint(step=0, loss=2.0), ValidationPoint(step=10, loss=1.0)], train_s=1, tokens=1,
    precision="float32", peak_memory_gb=None,
)  # fmt: skip


def _summary(passed: int, n: int, latency: float | None = 5.0, wins: int = 5, unscored: int = 0) -> RoleSummary:
    rate = Rate(passed=passed, n=n, low=wilson(passed, n, 0.95)[0], high=wilson(passed, n, 0.95)[1]) if n else None
    arm = ArmSummary(success=rate, unscored=unscored, mean_latency_s=latency, p95_latency_s=latency)
    return RoleSummary(rows=n, base=arm, tuned=arm, wins=wins, losses=0, p_value=None)


def _teacher(mean_s: float | None) -> LogGroup:
    return LogGroup(rows=9, successes=9, durations=Durations(n=9, mean_s=mean_s, median_s=mean_s, p95_s=mean_s))


def test_the_users_31_faultless_rows_are_not_enough_and_189_are() -> None:
    few = decide_role(_summary(31, 31), 3.0, RULES, ADAPTER, None)
    assert (few.verdict, few.rows_needed) == ("insufficient", 189)
    enough = decide_role(_summary(189, 189), 3.0, RULES, ADAPTER, None)
    assert enough.verdict == "deploy" and enough.stretch is False
    assert decide_role(_summary(400, 400), 3.0, RULES, ADAPTER, None).stretch is True


def test_a_failed_rule_iterates_where_something_improved_and_aborts_where_nothing_did() -> None:
    iterate = decide_role(_summary(50, 100), 3.0, RULES, ADAPTER, None)
    assert iterate.verdict == "iterate" and any("more epochs" in step for step in iterate.next_steps)
    assert decide_role(_summary(50, 100, wins=0), 3.0, RULES, ADAPTER, None).verdict == "abort"
    faster = decide_role(_summary(50, 100, wins=0), 3.0, RULES, ADAPTER, _teacher(20.0))
    assert faster.verdict == "iterate"
    slower = decide_role(_summary(50, 100, wins=0), 3.0, RULES, ADAPTER, _teacher(2.0))
    assert slower.verdict == "abort"


def test_latency_at_the_limit_fails_and_memory_at_the_limit_passes() -> None:
    late = decide_role(_summary(400, 400, latency=12.0), 10.0, RULES, ADAPTER, None)
    assert {r.rule: r.outcome for r in late.reasons} == {"success": "pass", "latency": "fail", "memory": "pass"}


def test_the_unknown_never_deploys() -> None:
    assert decide_role(_summary(400, 400), None, RULES, ADAPTER, None).verdict == "insufficient"
    assert decide_role(_summary(0, 0, latency=None), 3.0, RULES, ADAPTER, None).verdict == "insufficient"
    assert decide_role(_summary(400, 400, unscored=3), 3.0, RULES, ADAPTER, None).verdict == "insufficient"
