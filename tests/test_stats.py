"""Intervals and tests against scipy; the decision's logic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from journeyman.manifests import (
    ArmSummary,
    DatasetManifest,
    Durations,
    LogGroup,
    Paired,
    Rate,
    RoleSummary,
    Rules,
    SplitCounts,
    TrainedAdapter,
    ValidationPoint,
)
from journeyman.records import Prediction, Verdict
from journeyman.scoring.summary import summarize
from journeyman.stages.decide import decide_role
from journeyman.stages.plan import _role_confidence
from journeyman.stats.describe import bootstrap_mean, mean, median, percentile
from journeyman.stats.rates import mcnemar, paired_difference, power, rows_needed, wilson


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
    confidence=0.95, role_confidence=0.95, margin=None, checks={},
)  # fmt: skip
ADAPTER = TrainedAdapter(
    folder="", steps=10, total_steps=10, stopped_early=False, best_step=10, train_s=1, tokens=1,
    validations=[ValidationPoint(step=0, loss=2.0), ValidationPoint(step=10, loss=1.0)],
)  # fmt: skip


def _summary(
    passed: int, n: int, latency: float | None = 5.0, wins: int = 5, unscored: int = 0, rate: Rate | None = None
) -> RoleSummary:
    if n and rate is None:
        rate = Rate(passed=passed, n=n, low=wilson(passed, n, 0.95)[0], high=wilson(passed, n, 0.95)[1])
    arm = ArmSummary(
        success=rate, unscored=unscored, mean_latency_s=latency, p95_latency_s=latency, mean_latency_high_s=latency,
        first_token_s=None, p50_latency_s=latency, tokens_per_s=None,
    )  # fmt: skip
    against = Paired(wins=wins, losses=0, ties=n - wins, p_value=None, difference=None, low=None, high=None)
    return RoleSummary(rows=n, arms={"base": arm, "tuned": arm}, versus={"base": against})


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


def test_answers_that_never_end_get_their_own_advice() -> None:
    summary = _summary(0, 19)
    for failures, expected in (
        ({"answered: did not end by itself: length": 12, "answered: empty answer": 7}, "did not end by themselves"),
        ({"answered: did not end by itself: length": 9, "answered: empty answer": 10}, "more epochs"),
    ):
        arm = summary.tuned.model_copy(update={"failures": failures})
        made = decide_role(summary.model_copy(update={"arms": {"tuned": arm}}), 3.0, RULES, ADAPTER, None)
        assert expected in made.next_steps[0]


def test_latency_at_the_limit_fails_and_memory_at_the_limit_passes() -> None:
    late = decide_role(_summary(400, 400, latency=12.0), 10.0, RULES, ADAPTER, None)
    assert {r.rule: r.outcome for r in late.reasons} == {"success": "pass", "latency": "fail", "memory": "pass"}


def test_the_unknown_never_deploys() -> None:
    assert decide_role(_summary(400, 400), None, RULES, ADAPTER, None).verdict == "insufficient"
    assert decide_role(_summary(0, 0, latency=None), 3.0, RULES, ADAPTER, None).verdict == "insufficient"
    assert decide_role(_summary(400, 400, unscored=3), 3.0, RULES, ADAPTER, None).verdict == "insufficient"


def test_the_paired_interval_covers_the_truth() -> None:
    """10,000 draws each of 40 paired rows; the interval may be wide, never too narrow by more than a point."""
    rng = np.random.default_rng(1)
    for won, lost in ((0.1, 0.1), (0.3, 0.05), (0.02, 0.0), (0.6, 0.3)):
        wins, losses, _ = rng.multinomial(40, (won, lost, 1 - won - lost), 10_000).T
        intervals = [paired_difference(int(w), int(n), 40, 0.95) for w, n in zip(wins, losses, strict=True)]
        covered = np.mean([low <= won - lost <= high for low, high in intervals])
        assert covered >= 0.94, (won, lost, covered)


def test_the_bootstrap_of_a_mean_equals_scipy() -> None:
    values = np.random.default_rng(2).lognormal(0.5, 0.6, 40).tolist()
    low, high = bootstrap_mean(values, 0.95) or (0.0, 0.0)
    expected = stats.bootstrap((values,), np.mean, confidence_level=0.95, method="percentile", rng=3)
    assert (low, high) == pytest.approx(tuple(expected.confidence_interval), rel=0.03)
    assert bootstrap_mean([], 0.95) is None and bootstrap_mean([2.0], 0.95) == (2.0, 2.0)


def test_power_is_the_share_of_samples_that_pass() -> None:
    for n, rate, threshold in ((30, 0.9, 0.7), (189, 0.999, 0.98), (31, 1.0, 0.98)):
        samples = np.random.default_rng(4).binomial(n, rate, 20_000)
        passing = {k: wilson(k, n, 0.95)[0] >= threshold for k in range(n + 1)}
        assert power(n, rate, threshold, 0.95) == pytest.approx(
            np.mean([passing[k] for k in samples.tolist()]), abs=0.012
        )


def _run(rng: np.random.Generator, rates: Sequence[float], n: int, rules: Rules) -> list[str]:
    """The verdicts of one synthetic run: every role's rows drawn from its true rate, all else within its limits."""
    verdicts = []
    for passed in rng.binomial(n, rates).tolist():
        low, high = wilson(passed, n, rules.role_confidence)
        summary = _summary(passed, n, rate=Rate(passed=passed, n=n, low=low, high=high))
        verdicts.append(decide_role(summary, 3.0, rules, ADAPTER, None).verdict)
    return verdicts


@pytest.mark.parametrize(("n", "threshold"), [(27, 0.5), (60, 0.9), (400, 0.98)])
def test_wrong_deployments_stay_under_the_level_and_the_power_is_what_the_plan_says(n: int, threshold: float) -> None:
    """10,000 runs of four roles of known truth: all just below the threshold, then all at the plan's power_rate."""
    runs, roles, confidence = 10_000, 4, 0.95
    of_roles = {f"role {i}": SplitCounts(train=9, val=9, test=n) for i in range(roles)}
    role_confidence = 1 - (1 - confidence) / roles
    assert _role_confidence(DatasetManifest.model_construct(splits=of_roles), confidence) == role_confidence
    rules = RULES.model_copy(update={"min_success": threshold, "role_confidence": role_confidence})
    rng = np.random.default_rng(n)
    wrong = sum("deploy" in _run(rng, [threshold - 1e-4] * roles, n, rules) for _ in range(runs)) / runs
    assert wrong <= 1 - confidence, "any role deployed that must not be"
    rate = (1 + threshold) / 2
    right = [verdict == "deploy" for _ in range(runs // 4) for verdict in _run(rng, [rate] * roles, n, rules)]
    assert np.mean(right) == pytest.approx(power(n, rate, threshold, role_confidence), abs=0.015)


def test_a_role_may_be_held_against_the_teacher() -> None:
    rules = RULES.model_copy(update={"margin": 0.05})

    def outcome(low: float | None, high: float | None) -> str:
        against = Paired(wins=0, losses=0, ties=9, p_value=None, difference=low, low=low, high=high)
        summary = _summary(400, 400)
        summary = summary.model_copy(update={"versus": {**summary.versus, "teacher": against}})
        return {r.rule: r.outcome for r in decide_role(summary, 3.0, rules, ADAPTER, None).reasons}["teacher"]

    assert [outcome(*ends) for ends in ((-0.04, 0.1), (-0.2, 0.1), (-0.2, -0.06), (None, None))] == [
        "pass", "unknown", "fail", "unknown",
    ]  # fmt: skip


def test_a_mean_latency_whose_interval_reaches_the_limit_is_not_yet_known() -> None:
    summary = _summary(400, 400, latency=11.0)
    arm = summary.tuned.model_copy(update={"mean_latency_high_s": 12.5})
    late = decide_role(summary.model_copy(update={"arms": {**summary.arms, "tuned": arm}}), 3.0, RULES, ADAPTER, None)
    assert late.verdict == "insufficient"


def _answer(row: str, arm: str, latency: float, first: float, tokens: int) -> Prediction:
    return Prediction(
        id=row, role="coder", arm=arm, text="x", finish_reason="stop", latency_s=latency, first_token_s=first,
        prompt_tokens=1, answer_tokens=tokens,
    )  # fmt: skip


def test_a_summary_by_hand() -> None:
    """Three rows: won, lost, and one that could not be judged for the base."""
    answers = [_answer(row, "tuned", 3.0, 1.0, 11) for row in "abc"] + [
        _answer(row, "base", 9.0, 1.0, 2) for row in "abc"
    ]
    outcomes = {"tuned": ("pass", "fail", "pass"), "base": ("fail", "pass", "unscored")}
    verdicts = [
        Verdict(id=row, role="coder", arm=arm, outcome=outcome, check="c")  # type: ignore[arg-type]
        for arm, of_arm in outcomes.items()
        for row, outcome in zip("abc", of_arm, strict=True)
    ]
    made = summarize("coder", answers, verdicts, 0.95)
    assert (made.rows, made.tuned.success.passed, made.base.success.n, made.base.unscored) == (3, 2, 2, 1)  # type: ignore[union-attr]
    assert (made.tuned.mean_latency_s, made.tuned.p50_latency_s, made.tuned.first_token_s) == (3.0, 3.0, 1.0)
    assert made.tuned.tokens_per_s == pytest.approx(5.0)
    assert made.tuned.failures == {"c: ": 1}
    against = made.versus["base"]
    assert (against.wins, against.losses, against.ties, against.difference) == (1, 1, 0, 0.0)
    assert summarize("tester", answers, verdicts, 0.95).tuned.success is None
