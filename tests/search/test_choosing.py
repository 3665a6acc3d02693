"""Which trials go on and which is recommended, on made outcomes; the rule's error rate is simulated."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from journeyman.search.choosing import Choice, Outcome, RowsScored, Scored, chosen, promoted, ranked, success_by_role


def _rows(count: int, roles: tuple[str, ...] = ("coder",)) -> RowsScored:
    names = [f"r{number}" for number in range(count)]
    return RowsScored(
        {name: name for name in names}, {name: roles[place % len(roles)] for place, name in enumerate(names)}
    )


def _scored(number: int, passes: str, loss: float | None = 1.0, seconds: float = 1.0) -> Scored:
    """A trial of which 1 is a pass, 0 a fail and ? unscored."""
    kinds: Mapping[str, Outcome] = {"1": "pass", "0": "fail", "?": "unscored"}
    return Scored(number, {f"r{place}": kinds[one] for place, one in enumerate(passes)}, loss, seconds)


class TestRanked:
    def test_success_comes_first_then_loss_then_time(self) -> None:
        trials = [
            _scored(1, "1100", 0.1), _scored(2, "1110", 0.9), _scored(3, "1101", 0.5, 9.0), _scored(4, "1101", 0.5, 2.0)
        ]  # fmt: skip
        assert [one.number for one in ranked(trials)] == [4, 3, 2, 1]

    def test_a_trial_without_outcomes_is_last_and_an_unknown_loss_behind_a_known_one(self) -> None:
        trials = [Scored(1, {}, 0.01), _scored(2, "00", None), _scored(3, "00", 5.0)]
        assert [one.number for one in ranked(trials)] == [3, 2, 1]

    def test_an_unscored_row_is_not_a_pass(self) -> None:
        assert [one.number for one in ranked([_scored(1, "1?"), _scored(2, "11")])] == [2, 1]


class TestPromoted:
    def test_the_best_go_on_without_the_default(self) -> None:
        trials = [_scored(0, "1111"), _scored(1, "1000", 1), _scored(2, "1100", 1), _scored(3, "1110", 0.5)]
        assert promoted(trials, 2) == [3, 2]

    def test_the_lowest_loss_takes_the_last_place_but_never_the_only_one(self) -> None:
        trials = [_scored(1, "1110", 3.0), _scored(2, "1100", 2.0), _scored(3, "1000", 1.0)]
        assert promoted(trials, 2) == [1, 3]
        assert promoted(trials, 1) == [1]

    def test_what_failed_does_not_go_on(self) -> None:
        assert promoted([_scored(0, "11"), Scored(1, {}, 0.1), _scored(2, "00")], 2) == [2]


def _choice(*passes: str, roles: tuple[str, ...] = ("coder",), confidence: float = 0.9) -> Choice:
    rows = _rows(len(passes[0]), roles)
    return chosen([_scored(number, one) for number, one in enumerate(passes)], rows, confidence)


class TestChosen:
    def test_a_difference_within_the_noise_keeps_the_default(self) -> None:
        found = _choice("1" * 20 + "0" * 8, "1" * 22 + "0" * 6)
        assert (found.number, found.best) == (0, 1)
        assert found.versus[1].wins == 2
        assert found.versus[1].low < 0 < found.versus[1].high

    def test_a_clear_difference_is_recommended(self) -> None:
        found = _choice("1" * 14 + "0" * 14, "1" * 24 + "0" * 4)
        assert found.number == 1
        assert found.versus[1].difference == pytest.approx(10 / 28)
        assert found.versus[1].low > 0

    def test_the_intervals_are_wider_if_several_are_compared(self) -> None:
        one = _choice("1" * 20 + "0" * 8, "1" * 25 + "0" * 3)
        several = _choice("1" * 20 + "0" * 8, "1" * 25 + "0" * 3, *["0" * 28] * 9)
        assert one.number == 1
        assert several.number == 0
        assert several.confidence == pytest.approx(1 - 0.1 / 10)

    def test_related_rows_count_as_fewer(self) -> None:
        rows = RowsScored({f"r{n}": f"g{n // 7}" for n in range(28)}, dict.fromkeys((f"r{n}" for n in range(28)), "a"))
        trials = [_scored(0, "1" * 20 + "0" * 8), _scored(1, "1" * 27 + "0")]
        assert chosen(trials, rows, 0.9).number == 0
        assert chosen(trials, _rows(28), 0.9).number == 1

    def test_a_role_that_is_lost_is_named_and_one_that_is_clearly_lost_is_not_paid_for_the_mean(self) -> None:
        roles = ("a", "b")  # rows in turn
        default, good = "01" * 30, "11" * 27 + "10" * 3
        found = _choice(default, good, roles=roles)
        assert (found.number, list(found.lost), list(found.vetoed)) == (1, ["b"], [])
        robbed = "11" * 18 + "10" * 12
        found = _choice(default, robbed, roles=roles)
        assert found.versus[1].low > 0
        assert (found.number, list(found.vetoed)) == (0, ["b"])

    def test_the_next_is_taken_if_the_first_is_vetoed(self) -> None:
        default, robbed, fair = "01" * 30, "11" * 20 + "10" * 10, "11" * 18 + "01" * 12
        assert _choice(default, robbed, fair, roles=("a", "b")).number == 2

    def test_a_default_that_diverged_passes_nothing(self) -> None:
        found = chosen([Scored(0, {}), _scored(1, "1" * 10)], _rows(10), 0.9)
        assert found.number == 1
        assert found.versus[1].wins == 10

    def test_without_others_the_default_stays(self) -> None:
        found = chosen([_scored(0, "10"), Scored(1, {})], _rows(2), 0.9)
        assert (found.number, found.best) == (0, None)

    def test_rows_that_cannot_be_scored_for_both_are_left_out(self) -> None:
        assert _choice("1?0", "11?").versus[1].rows == 1
        none = _choice("??", "11").versus[1]
        assert (none.rows, none.low, none.high) == (0, -1.0, 1.0)


def test_success_is_counted_by_role() -> None:
    assert success_by_role(_scored(0, "110?"), _rows(4, ("a", "b"))) == {"a": (1, 2), "b": (1, 1)}


def test_chance_alone_rarely_leads_to_another_recipe() -> None:
    """4,000 searches in which no candidate is better: at most (1 - confidence) / 2 of them may recommend one."""
    rng, wrong, searches = random.Random(1), 0, 4000
    rows = _rows(28, ("a", "b"))
    for _ in range(searches):
        hard = [rng.random() for _ in range(28)]  # rows differ, for all recipes alike
        trials = [
            _scored(number, "".join("1" if rng.random() < 0.15 + 0.8 * one else "0" for one in hard), rng.random())
            for number in range(3)
        ]
        wrong += chosen(trials, rows, 0.9).number != 0
    assert wrong / searches < 0.05


def test_a_recipe_that_is_much_better_is_mostly_found() -> None:
    rng, found, searches = random.Random(2), 0, 400
    rows = _rows(40)
    for _ in range(searches):
        trials = [
            _scored(number, "".join("1" if rng.random() < rate else "0" for _ in range(40)))
            for number, rate in enumerate((0.5, 0.5, 0.9))
        ]
        found += chosen(trials, rows, 0.9).number == 2
    assert found / searches > 0.9
