"""The time of training from measured steps: known laws are recovered, and what a schedule computes is counted."""

from __future__ import annotations

import random

import pytest

from journeyman.models.known import known_base
from journeyman.sizing.step_time import StepTime, Timed, Work, fit, operations, spread_of
from journeyman.sizing.training_time import EpochWork, Rates, RunWork, extrapolate

_KNOWN = known_base("Qwen/Qwen2.5-0.5B-Instruct")
assert _KNOWN is not None
SIZES = _KNOWN.geometry


def _works() -> list[Work]:
    """One row of so many tokens each, 40 labels."""
    return [Work(1, n, n * (n + 1) // 2, 40) for n in (64, 300, 700, 1200, 2000)]


def _law(work: Work, launch: float, per_product: float, per_attention: float) -> float:
    products, attention = operations(work, SIZES)
    return launch * work.packs + per_product * products + per_attention * attention


def test_the_time_of_other_lengths_follows_a_law_of_launches_products_and_attention():
    law = (0.02, 1e-12, 3e-12)
    made = fit([Timed(one, [_law(one, *law)]) for one in _works()], SIZES)
    for tokens in (100, 500, 1500, 1900):
        work = Work(2, tokens, tokens * 80, 90)
        assert made.seconds(work) == pytest.approx(_law(work, *law), rel=0.01)
    assert made.residual is not None and made.residual < 0.01


def test_three_groups_are_enough_where_attention_is_cheap():
    law = (0.05, 2e-12, 4e-12)
    made = fit([Timed(one, [_law(one, *law)]) for one in (_works()[0], _works()[4], _works()[2])], SIZES)
    work = Work(1, 900, 900 * 450, 40)
    assert made.seconds(work) == pytest.approx(_law(work, *law), rel=0.03)


def test_noise_widens_the_interval_and_no_coefficient_is_negative():
    chance = random.Random(1)
    noisy = [Timed(one, [_law(one, 0.01, 1e-12, 1e-12) * chance.uniform(0.7, 1.3) for _ in range(3)])
             for one in _works()]  # fmt: skip
    calm = fit([Timed(one.work, [one.seconds[0]] * 3) for one in [Timed(w, [_law(w, 0.01, 1e-12, 1e-12)])
                                                                  for w in _works()]], SIZES)  # fmt: skip
    made = fit(noisy, SIZES)
    assert made.width > calm.width and calm.width == pytest.approx(0.1)
    assert all(value >= 0 for value in made.coefficients.values())


def test_one_group_alone_gives_a_wide_interval():
    made = fit([Timed(_works()[1], [2.0])], SIZES)
    assert made.seconds(_works()[1]) == pytest.approx(2.0)
    assert made.residual is None and made.spread is None and made.width > 0.3


def test_the_spread_is_that_of_repetitions_alone():
    works = _works()
    assert spread_of([Timed(works[0], [1.0]), Timed(works[1], [9.0])]) is None
    assert spread_of([Timed(works[0], [0.9, 1.1]), Timed(works[1], [9.0, 11.0])]) == pytest.approx(0.1414, abs=1e-3)


def test_a_run_is_the_sum_of_its_steps_updates_and_validations():
    a, b = Work(1, 100, 5050, 10), Work(1, 200, 20100, 10)
    step = StepTime(SIZES, {"packs": 2.0}, 0.0, 0.01)
    rates = Rates(step, StepTime(SIZES, {"packs": 0.5}, 0.0, 0.0), update_s=0.25)
    run = RunWork([EpochWork(2, [a, b], 1.0, 3), EpochWork(2, [b], 0.5, 2)], [a, b, b])
    made = extrapolate([run], rates)
    assert list(made.epochs) == [2 * 2.0 + 2 * 0.25 + 3 * 1.5, 4.0 + 0.5 + 2 * 1.5]  # half of an epoch stands for all
    assert made.validation_s == 5 * 1.5
    assert made.low < made.seconds < made.high and made.width == pytest.approx(0.1)
    unknown = RunWork([EpochWork(2, [a, b], 1.0, 0), EpochWork(2, [], 0.0, 0)], [])
    assert list(extrapolate([unknown, run], rates).epochs)[1] == pytest.approx(4.5 + 4.5 + 3.0)
