"""What held-out rows can show: compared with scipy, and with simulated runs of the rules themselves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from journeyman.manifests import RegressionResult
from journeyman.stats.binomial import at_least, at_most, probabilities
from journeyman.stats.groups import one_sided_mcnemar
from journeyman.stats.power import (
    POWER,
    failing_power,
    largest_rate_refuted,
    least_loss_vetoed,
    least_margin_shown,
    least_rate_shown,
    margin_power,
    power,
    rows_to_refute,
    rows_to_show,
    veto_power,
)
from journeyman.stats.rates import paired_difference, wilson

RUNS = 10_000


@pytest.mark.parametrize(("n", "rate"), [(1, 0.5), (31, 0.98), (306, 0.02), (5000, 0.5), (7, 0.0), (7, 1.0)])
def test_probabilities_are_those_of_scipy(n: int, rate: float) -> None:
    assert probabilities(n, rate) == pytest.approx(binom.pmf(range(n + 1), n, rate), abs=1e-12, rel=1e-8)
    assert at_least(n // 2, n, rate) == pytest.approx(binom.sf(n // 2 - 1, n, rate), abs=1e-10)
    assert at_most(n // 2, n, rate) == pytest.approx(binom.cdf(n // 2, n, rate), abs=1e-10)


def test_thousands_of_rows_are_no_overflow() -> None:
    assert power(5000, 0.6, 0.5, 0.95) == pytest.approx(1.0)
    assert power(5000, 0.5, 0.5, 0.95) < 0.03


@pytest.mark.parametrize(("n", "threshold"), [(31, 0.5), (200, 0.9), (400, 0.98)])
def test_the_rates_shown_and_refuted_hold_in_simulated_runs(n: int, threshold: float) -> None:
    rng = np.random.default_rng(0)
    shown, refuted = least_rate_shown(n, threshold, 0.95), largest_rate_refuted(n, threshold, 0.95)
    assert shown is not None and refuted is not None and refuted < threshold < shown
    intervals = [wilson(k, n, 0.95) for k in range(n + 1)]
    above = np.array([low >= threshold for low, _ in intervals])
    below = np.array([high < threshold for _, high in intervals])
    assert above[rng.binomial(n, shown, RUNS)].mean() == pytest.approx(POWER, abs=0.015)
    assert below[rng.binomial(n, refuted, RUNS)].mean() == pytest.approx(POWER, abs=0.015)
    assert above[rng.binomial(n, (shown + threshold) / 2, RUNS)].mean() < POWER - 0.05


def test_31_rows_cannot_tell_98_from_93_percent() -> None:
    assert least_rate_shown(31, 0.98, 0.95) is None, "not even 31 of 31"
    refuted = largest_rate_refuted(31, 0.98, 0.95)
    assert refuted is not None and refuted < 0.90
    assert failing_power(31, 0.93, 0.98, 0.95) < 0.5
    needed = rows_to_refute(0.93, 0.98, 0.95)
    assert needed is not None and needed > 100
    assert failing_power(needed, 0.93, 0.98, 0.95) >= POWER > failing_power(needed // 2, 0.93, 0.98, 0.95)


def test_the_rows_that_a_rule_needs_are_enough_and_half_are_not() -> None:
    needed = rows_to_show(0.99, 0.98, 0.95)
    assert needed is not None
    below = np.array([wilson(k, needed, 0.95)[0] >= 0.98 for k in range(needed + 1)])
    assert below[np.random.default_rng(1).binomial(needed, 0.99, RUNS)].mean() > POWER - 0.015
    assert power(needed // 2, 0.99, 0.98, 0.95) < POWER
    assert rows_to_show(0.98, 0.98, 0.95) is None and rows_to_refute(0.98, 0.98, 0.95) is None


@pytest.mark.parametrize(("n", "differing"), [(60, 0.1), (200, 0.2)])
def test_the_margin_that_rows_show_holds_in_simulated_runs(n: int, differing: float) -> None:
    margin = least_margin_shown(n, differing, 0.95)
    assert margin is not None
    drawn = np.random.default_rng(2).multinomial(n, [differing / 2, differing / 2, 1 - differing], RUNS)
    passed = [paired_difference(wins, losses, n, 0.95)[0] > -margin for wins, losses, _ in drawn.tolist()]
    assert np.mean(passed) == pytest.approx(margin_power(n, differing, margin, 0.95), abs=0.015)
    assert np.mean(passed) >= POWER - 0.015
    assert margin_power(n, differing, margin / 2, 0.95) < POWER


def test_margins_need_rows() -> None:
    assert margin_power(0, 0.1, 0.5, 0.95) == 0.0 and least_margin_shown(0, 0.1, 0.95) is None
    wide, narrow = least_margin_shown(20, 0.1, 0.95), least_margin_shown(500, 0.1, 0.95)
    assert wide is not None and narrow is not None and narrow < 0.06 < wide


@pytest.mark.parametrize(("n", "margin"), [(40, 0.1), (8, 0.1), (48, 0.3)])
def test_the_loss_that_the_suite_finds_is_vetoed_in_simulated_runs(n: int, margin: float) -> None:
    lost = least_loss_vetoed(n, margin, 0.95)
    assert lost is not None

    def vetoed(losses: int) -> bool:
        p_value = one_sided_mcnemar(0, losses)
        one = RegressionResult(n=n, base=n, tuned=n - losses, wins=0, losses=losses, p_value=p_value, note=None)
        return one.fall > margin and p_value is not None and p_value < 0.05

    verdicts = np.array([vetoed(losses) for losses in range(n + 1)])
    assert verdicts[np.random.default_rng(3).binomial(n, lost, RUNS)].mean() == pytest.approx(POWER, abs=0.015)
    assert veto_power(n, lost / 2, margin, 0.95) < POWER


def test_few_questions_find_no_loss() -> None:
    assert least_loss_vetoed(4, 0.1, 0.95) is None, "four losses of four have p = 0.06"
    assert least_loss_vetoed(0, 0.1, 0.95) is None
