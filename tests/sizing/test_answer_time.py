"""The time of answers: their pace, their length where some are cut off, and the sum with its interval."""

from __future__ import annotations

import random

import pytest

from journeyman.sizing.answer_time import (
    AnswerRate,
    Asking,
    Length,
    TimedAnswer,
    asking_seconds,
    length_of,
    rate_of,
)


def test_the_pace_is_seconds_over_tokens_after_the_first():
    made = rate_of([TimedAnswer(100, 2.0, 3.0, 31, True), TimedAnswer(300, 4.0, 1.0, 11, False)], load=4)
    assert made is not None
    assert (made.prompt_tokens, made.first_s, made.token_s) == (200, 3.0, 0.1)
    assert made.seconds(8, 400, 21) == pytest.approx(8 * (6.0 + 2.0) / 4)


def test_a_first_token_alone_has_no_pace():
    assert rate_of([TimedAnswer(100, 2.0, 0.0, 1, False)], 1) is None and rate_of([], 1) is None


@pytest.mark.parametrize("true_mean", [20, 80, 400])
def test_the_length_of_answers_that_are_cut_off_is_found(true_mean: int):
    """Answers end at a constant rate; 64 tokens of each are seen, and 512 are allowed."""
    chance = random.Random(true_mean)
    lengths = [1 + int(chance.expovariate(1 / true_mean)) for _ in range(400)]
    seen = [TimedAnswer(10, 0.1, 0.1, min(64, one), one <= 64) for one in lengths]
    wanted = sum(min(512, one) for one in lengths) / len(lengths)
    made = length_of(seen, 512)
    assert made.mean == pytest.approx(wanted, rel=0.15) and made.low < wanted < made.high


def test_a_length_of_which_no_end_was_seen_may_be_the_limit():
    made = length_of([TimedAnswer(10, 0.1, 0.1, 64, False)] * 4, 512)
    assert made.high == 512 and 64 < made.low < made.mean < 512


def test_an_arm_takes_longer_at_the_ends_of_both_intervals():
    rate = AnswerRate(2, 100.0, 1.0, 0.1, spread=0.05)
    made = asking_seconds(Asking("tuned", rate, 10, 100.0, Length(51, 41, 61)))
    assert made.seconds == pytest.approx(10 * 6.0 / 2)
    assert made.low == pytest.approx(0.9 * 10 * 5.0 / 2) and made.high == pytest.approx(1.1 * 10 * 7.0 / 2)
