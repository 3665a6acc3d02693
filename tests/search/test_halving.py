"""The arithmetic of a search's budget."""

from __future__ import annotations

import pytest

from journeyman.search.halving import (
    MARGIN,
    Costs,
    Rung,
    Schedule,
    counts,
    later_seconds,
    rung_seconds,
    schedule,
    shares_for,
    that_fit,
    wave,
)

COSTS = Costs(token_s=0.01, trial_s=2.0, answer_s=0.5, engine_s=3.0)
RUNGS = [Rung(0.25, 60, 600, 32), Rung(0.5, 120, 1200, 32), Rung(1.0, 240, 2400, 30)]


def _schedule(budget_s: float, most: int = 32, done_s: float = 0.0, rungs: list[Rung] = RUNGS) -> Schedule:
    return schedule(rungs, [3.0] * (1 + most), COSTS, budget_s, lambda rung: done_s if rung.share == 0.25 else 0.0)


def test_a_rung_costs_training_by_epochs_and_answers_from_one_engine() -> None:
    assert rung_seconds(RUNGS[0], [3, 1], COSTS) == pytest.approx(2 * 2 + 0.01 * 600 * 4 + 3 + 0.5 * 32 * 2)
    assert rung_seconds(RUNGS[0], [], COSTS) == 0


def test_shares_leave_enough_rows() -> None:
    assert shares_for(1000) == [0.25, 0.5, 1.0]
    assert shares_for(100) == [0.5, 1.0]
    assert shares_for(40) == [1.0]


def test_a_constant_share_goes_on_until_two_are_left() -> None:
    assert counts(32, 3) == [32, 8, 2]
    assert counts(8, 3) == [8, 4, 2]
    assert counts(3, 2) == [3, 2]
    assert counts(5, 1) == [5]
    assert counts(1, 3) == [1, 1, 1]


class TestSchedule:
    def test_it_fits_and_one_candidate_more_would_not(self) -> None:
        for budget in (400, 700, 1500, 4000):
            found = _schedule(budget)
            assert found.seconds <= budget
            more = [one.candidates for one in found.steps]
            assert more == sorted(more, reverse=True)
            assert found.steps[-1].rung.share == 1
            larger = _schedule(budget, most=found.candidates)
            assert larger.candidates == found.candidates
        assert _schedule(4000).candidates > _schedule(1500).candidates > _schedule(700).candidates

    def test_it_is_the_sum_of_its_rungs_with_the_margin(self) -> None:
        found = _schedule(1500)
        total = sum(rung_seconds(one.rung, [3.0] * (1 + one.candidates), COSTS) for one in found.steps)
        assert found.seconds == pytest.approx(MARGIN * total)

    def test_the_least_budget_is_that_of_the_default_and_one_candidate_on_all_rows(self) -> None:
        found = _schedule(10)
        assert not found.steps
        assert found.least_s == pytest.approx(MARGIN * rung_seconds(RUNGS[-1], [3, 3], COSTS))
        assert _schedule(found.least_s).candidates == 1
        assert not _schedule(found.least_s - 1).steps

    def test_two_candidates_are_trained_on_all_rows_at_once(self) -> None:
        found = _schedule(MARGIN * rung_seconds(RUNGS[-1], [3] * 3, COSTS))
        assert [one.rung.share for one in found.steps] == [1.0]
        assert found.candidates == 2

    def test_work_that_is_done_is_not_counted_again(self) -> None:
        assert _schedule(1000, done_s=400).candidates > _schedule(1000).candidates

    def test_no_more_than_allowed(self) -> None:
        assert _schedule(1e9, most=5).candidates == 5

    def test_with_few_rows_all_candidates_are_trained_on_all_of_them(self) -> None:
        found = _schedule(1e9, most=6, rungs=RUNGS[-1:])
        assert [one.candidates for one in found.steps] == [6]


def test_trials_that_fit_leave_time_for_the_last_rung() -> None:
    epochs = [3.0] * 5
    whole = rung_seconds(RUNGS[0], epochs, COSTS)
    assert that_fit(RUNGS[0], epochs, COSTS, whole, lambda _: 0) == 5
    assert that_fit(RUNGS[0], epochs, COSTS, whole, lambda _: 50) < 5
    assert that_fit(RUNGS[0], epochs, COSTS, 1, lambda _: 0) == 0


def test_later_rungs_are_reckoned_for_as_many_as_go_on() -> None:
    kept = later_seconds(RUNGS[1:], 8, 3.0, 6.0, COSTS)
    assert counts(8, 3) == [8, 4, 2]
    assert kept == sum(
        rung_seconds(rung, [3.0, *[6.0] * number], COSTS) for rung, number in zip(RUNGS[1:], (4, 2), strict=True)
    )
    assert later_seconds([], 8, 3.0, 6.0, COSTS) == 0


@pytest.mark.parametrize(("fitting", "made"), [(0, 0), (1, 1), (2, 2), (3, 2), (9, 5), (20, 10)])
def test_a_wave_is_half_of_what_fits(fitting: int, made: int) -> None:
    assert wave(fitting) == made
