"""Compares intervals and tests with scipy; groups, judges and latencies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from journeyman.records import Prediction, Score
from journeyman.scoring.agreement import judge_agreement
from journeyman.scoring.summary import Results
from journeyman.stats.describe import bootstrap_mean, mean, median, percentile
from journeyman.stats.groups import effective_rows, one_sided_mcnemar, sign_flip, sign_flip_of_losses
from journeyman.stats.power import power
from journeyman.stats.rates import kappa, mcnemar, paired_difference, rows_needed, wilson


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


def test_the_paired_interval_covers_the_truth() -> None:
    """10,000 draws each of 40 paired rows; the interval may be wide, never too narrow by more than a point."""
    rng = np.random.default_rng(1)
    for won, lost in ((0.1, 0.1), (0.3, 0.05), (0.02, 0.0), (0.6, 0.3)):
        wins, losses, _ = rng.multinomial(40, (won, lost, 1 - won - lost), 10_000).T
        intervals = [paired_difference(int(w), int(n), 40, 0.95) for w, n in zip(wins, losses, strict=True)]
        covered = np.mean([low <= won - lost <= high for low, high in intervals])
        assert covered >= 0.94, (won, lost, covered)


@pytest.mark.parametrize(("spread", "n", "most"), [(0.3, 10, 0.06), (0.3, 30, 0.045), (0.6, 10, 0.085)])
def test_the_mean_lies_above_the_upper_end_as_rarely_as_is_said(spread: float, n: int, most: float) -> None:
    """Skewed times, 2,000 draws, nominally 2.5 %. Documents how far off the interval is with few skewed values."""
    rng, truth = np.random.default_rng(2), float(np.exp(spread**2 / 2))
    missed = missed_by_percentiles = 0
    for _ in range(2_000):
        values = rng.lognormal(0, spread, n)
        ends = bootstrap_mean(values.tolist(), 0.95, resamples=600)
        assert ends is not None
        missed += ends[1] < truth
        resampled = values[rng.integers(0, n, (600, n))].mean(axis=1)
        missed_by_percentiles += np.quantile(resampled, 0.975) < truth
    assert missed / 2_000 <= most
    assert missed < missed_by_percentiles


def test_the_bootstrap_of_many_values_equals_the_t_interval() -> None:
    values = np.random.default_rng(3).normal(5, 1, 400)
    expected = stats.t.interval(0.95, 399, values.mean(), stats.sem(values))
    assert bootstrap_mean(values.tolist(), 0.95) == pytest.approx(expected, abs=0.01)


def test_too_few_values_have_no_interval() -> None:
    assert bootstrap_mean([], 0.95) is None and bootstrap_mean([2.0, 3.0], 0.95) is None
    assert bootstrap_mean([1.0, 2.0, 3.0], 0.999) is None, "three values cannot tell so much"
    assert bootstrap_mean([2.0] * 4, 0.95) == (2.0, 2.0)


def test_groups_count_as_less_than_their_rows() -> None:
    assert effective_rows([1] * 7) == 7 and effective_rows([7]) == 1 and effective_rows([]) == 0
    assert effective_rows([2, 2, 2]) == 3 and 2 < effective_rows([3, 1, 1]) < 3


@pytest.mark.parametrize(("wins", "losses"), [(0, 1), (5, 0), (8, 2), (4, 4)])
def test_the_sign_flip_of_single_rows_is_mcnemar(wins: int, losses: int) -> None:
    singles = {f"w{i}": 1 for i in range(wins)} | {f"l{i}": -1 for i in range(losses)} | {"tie": 0}
    assert sign_flip(singles) == pytest.approx(mcnemar(wins, losses))


def test_the_sign_flip_equals_scipy_and_groups_weigh_less_than_their_rows() -> None:
    differences = {"a": 5, "b": 3, "c": -1, "d": 2, "e": 1}
    values = np.array(list(differences.values()))
    ours = sign_flip(differences)
    theirs = stats.permutation_test(
        (values,), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    ).pvalue
    assert ours == pytest.approx(theirs)
    assert ours is not None and ours > (mcnemar(11, 1) or 0.0)
    many = {str(i): 1 if i < 30 else -1 for i in range(42)}
    assert sign_flip(many) == pytest.approx(mcnemar(30, 12), abs=0.003), "drawn, not counted"
    assert sign_flip({"a": 0}) is None


def test_a_one_sided_test_of_losses_equals_scipy() -> None:
    for wins, losses in ((0, 6), (3, 9), (5, 5)):
        expected = stats.binomtest(losses, wins + losses, alternative="greater").pvalue
        assert one_sided_mcnemar(wins, losses) == pytest.approx(expected)
        singles = {f"w{i}": 1 for i in range(wins)} | {f"l{i}": -1 for i in range(losses)}
        assert sign_flip_of_losses(singles) == pytest.approx(expected)
    assert one_sided_mcnemar(0, 0) is None and sign_flip_of_losses({"a": 0}) is None
    assert sign_flip_of_losses({"a": -5}) == 0.5, "one group shows nothing"
    many = {str(i): 1 if i < 12 else -1 for i in range(42)}
    assert sign_flip_of_losses(many) == pytest.approx(one_sided_mcnemar(12, 30), abs=0.003)


def test_kappa_by_hand() -> None:
    """The textbook example: of 50, both judges agree on 20 and 15, and differ on 5 and 10."""
    assert kappa(20, 15, 5, 10) == pytest.approx(0.4)
    assert kappa(50, 0, 0, 0) is None and kappa(0, 0, 0, 0) is None


def test_power_is_the_share_of_samples_that_pass() -> None:
    for n, rate, threshold in ((30, 0.9, 0.7), (189, 0.999, 0.98), (31, 1.0, 0.98)):
        samples = np.random.default_rng(4).binomial(n, rate, 20_000)
        passing = {k: wilson(k, n, 0.95)[0] >= threshold for k in range(n + 1)}
        assert power(n, rate, threshold, 0.95) == pytest.approx(
            np.mean([passing[k] for k in samples.tolist()]), abs=0.012
        )


def _answer(row: str, arm: str, latency: float, first: float, tokens: int, load: int | None = 1) -> Prediction:
    return Prediction(
        id=row, role="coder", arm=arm, text="x", finish_reason="stop", latency_s=latency, first_token_s=first,
        prompt_tokens=1, answer_tokens=tokens, load=load,
    )  # fmt: skip


def _verdicts(outcomes: dict[str, str], rows: str = "abc") -> list[Score]:
    code = {"p": "pass", "f": "fail", "u": "unscored"}
    return [
        Score(id=row, role="coder", arm=arm, outcome=code[one], check="c")  # type: ignore[arg-type]
        for arm, of_arm in outcomes.items()
        for row, one in zip(rows, of_arm, strict=True)
    ]


def test_a_summary_by_hand() -> None:
    """Three rows: one won, one lost, and one unscored for the base."""
    asked = [_answer(row, arm, 9.0, 1.0, 2, load=4) for arm in ("base", "tuned") for row in "abc"]
    timed = [_answer(row, "tuned", 3.0, 1.0, 11) for row in "abc"]
    verdicts = _verdicts({"tuned": "pfp", "base": "fpu"})
    results = Results({row: row for row in "abc"}, ["base", "tuned"], ["tuned"], asked, timed, verdicts)
    made = results.summary("coder", 0.95)
    tuned, base = made.tuned, made.base
    assert tuned.success is not None and base.success is not None
    assert (made.rows, made.groups, tuned.success.passed, base.success.n, base.unscored) == (3, 3, 2, 2, 1)
    alone, loaded = tuned.speed, tuned.under_load
    assert alone is not None and loaded is not None and base.speed is None
    assert (alone.load, alone.mean_s, alone.p50_s, alone.first_token_s) == (1, 3.0, 3.0, 1.0)
    assert alone.latencies_s == [3.0] * 3
    assert alone.tokens_per_s == pytest.approx(5.0) and (loaded.load, loaded.mean_s) == (4, 9.0)
    assert [(one.check, one.code, one.n) for one in tuned.failures] == [("c", "", 1)]
    against = made.versus["tuned"]["base"]
    assert (against.wins, against.losses, against.ties, against.both, against.difference) == (1, 1, 0, 0, 0.0)
    assert results.summary("tester", 0.95).tuned.success is None


def test_a_summary_counts_groups() -> None:
    """Nine rows in three sessions: intervals and the test are those of three rows, the counts those of nine."""
    rows = "abcdefghi"
    verdicts = _verdicts({"tuned": "ppppppfff", "base": "ffffffppp"}, rows)
    groups = {row: str(place // 3) for place, row in enumerate(rows)}
    made = Results(groups, ["base", "tuned"], ["tuned"], [], [], verdicts).summary("coder", 0.95)
    assert made.groups == 3 and made.tuned.success is not None
    assert (made.tuned.success.passed, made.tuned.success.n, made.tuned.success.effective_n) == (6, 9, 3)
    assert (made.tuned.success.low, made.tuned.success.high) == pytest.approx(wilson(2, 3, 0.95))
    against = made.versus["tuned"]["base"]
    assert (against.wins, against.losses, against.p_value) == (6, 3, 1.0)
    assert (against.low, against.high) == pytest.approx(paired_difference(2, 1, 3, 0.95))


def test_the_judge_is_held_against_the_other_checks() -> None:
    def verdict(row: int, said: str, tests: str, arm: str = "tuned", role: str = "coder") -> Score:
        checks = {"answered": "pass", "python_tests": tests, "judge": said}
        return Score(id=str(row), role=role, arm=arm, outcome="pass", check="judge", checks=checks)

    said = ["pass"] * 6 + ["fail"] * 3 + ["unscored"]
    tests = ["pass"] * 5 + ["fail"] * 3 + ["pass", "pass"]
    verdicts = [verdict(row, a, b) for row, (a, b) in enumerate(zip(said, tests, strict=True))]
    verdicts += [verdict(99, "pass", "fail", arm="teacher")]  # compared with itself, which must not count
    verdicts += [Score(id="x", role="poet", arm="tuned", outcome="pass", check="judge", checks={"judge": "pass"})]
    (found,) = judge_agreement(verdicts, 0.95)
    assert (found.role, found.n, found.agree, found.unscored) == ("coder", 9, 7, 1)
    assert (found.too_kind, found.too_strict) == (1, 1)
    assert (found.low, found.high) == pytest.approx(wilson(7, 9, 0.95))
    assert found.kappa == pytest.approx(kappa(5, 2, 1, 1))
