"""Tests of two samples against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from journeyman.stats.two_samples import holm, kolmogorov_smirnov, larger_mean, mann_whitney, same_categories

RNG = np.random.default_rng(5)
PAIRS = [
    (RNG.normal(0, 1, 30), RNG.normal(0.4, 1, 45)),
    (RNG.normal(0, 1, 400), RNG.normal(0.1, 1, 300)),
    (RNG.integers(0, 6, 200).astype(float), RNG.integers(0, 7, 150).astype(float)),
    (RNG.normal(0, 1, 1500), RNG.normal(0, 1, 1500)),
]


@pytest.mark.parametrize("pair", PAIRS)
def test_kolmogorov_smirnov_is_that_of_scipy(pair) -> None:
    made, told = kolmogorov_smirnov(*pair), stats.ks_2samp(*pair, method="exact")
    assert made.effect == pytest.approx(told.statistic, abs=1e-12)
    assert made.p_value == pytest.approx(told.pvalue, rel=0.15, abs=0.01)
    assert made == kolmogorov_smirnov(pair[1], pair[0])


@pytest.mark.parametrize("pair", PAIRS)
def test_mann_whitney_is_that_of_scipy(pair) -> None:
    for first, second in (pair, pair[::-1]):
        made = mann_whitney(first, second)
        told = stats.mannwhitneyu(first, second, alternative="greater", method="asymptotic")
        assert made.p_value == pytest.approx(told.pvalue, rel=1e-9)
        assert made.effect == pytest.approx(told.statistic / len(first) / len(second), abs=1e-12)


@pytest.mark.parametrize("pair", PAIRS[:2])
def test_the_permutation_test_of_means_is_that_of_scipy(pair) -> None:
    for first, second in (pair, pair[::-1]):
        told = stats.permutation_test(
            (first, second), lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis), vectorized=True,
            alternative="greater", n_resamples=9999, rng=1,
        )  # fmt: skip
        made = larger_mean(first, second)
        assert made.p_value == pytest.approx(told.pvalue, abs=0.02)
        assert made.effect == pytest.approx(told.statistic)


@pytest.mark.parametrize(
    "table", [([120, 80, 40], [100, 90, 60]), ([300, 20, 0, 5], [280, 30, 4, 9]), ([50, 50], [30, 70])]
)
def test_the_test_of_categories_is_that_of_scipy(table) -> None:
    made = same_categories(*table)
    assert made.p_value == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue, abs=0.03)


def test_the_test_of_categories_is_exact_for_few() -> None:
    """With equal margins, the tables ordered by chi-squared are those ordered by probability: Fisher's test."""
    told = stats.fisher_exact([[9, 3], [2, 10]]).pvalue
    assert same_categories([9, 3], [2, 10]).p_value == pytest.approx(told, abs=0.01)
    assert same_categories([9, 3], [2, 10]).effect == pytest.approx(7 / 12)


def test_equal_samples_differ_in_nothing() -> None:
    same = np.ones(30)
    assert kolmogorov_smirnov(same, same) == (1.0, 0.0)
    assert mann_whitney(same, same) == (1.0, 0.5)
    assert larger_mean(same, same) == (1.0, 0.0)
    assert same_categories([30, 0], [30, 0]) == (1.0, 0.0)
    assert same_categories([30], [20]) == (1.0, 0.0)


@pytest.mark.parametrize("test", [kolmogorov_smirnov, mann_whitney, larger_mean])
def test_an_empty_sample_is_refused(test) -> None:
    with pytest.raises(ValueError, match="empty"):
        test(np.ones(0), np.ones(3))
    with pytest.raises(ValueError, match="empty"):
        same_categories([0, 0], [1, 2])


def test_holm_is_that_of_the_paper() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
