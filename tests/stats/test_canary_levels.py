"""Simulated canaries of known truth: wrong promotions, wrong rollbacks and misses of intervals stay below the level.

10,000 canaries for each claim. A claim is accepted only if the upper end of the exact binomial interval (99.9 %,
one-sided) of the wrong ones is below alpha. `test_a_wrong_share_breaks_the_level` shows that the bounds can fail.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from canaries import NEVER, Ends, Stream, alarms, draw, misses, run
from journeyman.stats.betting import Array, upper_rate
from journeyman.stats.canary import Canary

ALPHA = 0.05
pytestmark = pytest.mark.slow


def _bound(wrong: int, of: int) -> float:
    return float(stats.beta.ppf(0.999, wrong + 1, of - wrong))


def _holds(wrong: list[np.ndarray]) -> None:
    """The level holds in each group of canaries, and there are 10,000 in all."""
    assert sum(map(len, wrong)) >= 10_000
    for one in wrong:
        assert _bound(int(one.sum()), len(one)) <= ALPHA, f"{one.mean():.3f} of {len(one)} are wrong"


def _outcomes(
    rng: np.random.Generator, student: np.ndarray, share: float | Array, of_student: Array, of_teacher: Array
) -> Stream:
    failed = rng.random(student.shape) < np.where(student, of_student, of_teacher)
    return Stream(student, np.broadcast_to(share, student.shape), failed.astype(float))


def _promoted(ends: Ends) -> np.ndarray:
    made: np.ndarray = ends.promoted < NEVER
    return made


def _rolled_back(ends: Ends) -> np.ndarray:
    made: np.ndarray = ends.rolled_back < NEVER
    return made


# share, margin, the teacher's rate: with a small share, a small margin would need thousands of conversations
GROUPS = [(0.5, 0.05, 0.02), (0.5, 0.05, 0.3), (0.1, 0.2, 0.02), (0.05, 0.2, 0.1)]


def test_wrong_promotions_at_the_margin() -> None:
    rng = np.random.default_rng(1)
    wrong = [
        _promoted(run(draw(rng, 2500, 800, share, rate + margin, rate), margin=margin, roll_back=False))
        for share, margin, rate in GROUPS
    ]
    _holds(wrong)
    assert sum(one.sum() for one in wrong) > 50  # the test is near the level, not far from everything


def test_a_wrong_share_breaks_the_level() -> None:
    """If 0.5 were taken for the share while it is 0.3, or the arms were confused, the bound would not hold."""
    rng = np.random.default_rng(1)
    stream = draw(rng, 1000, 800, 0.3, 0.07, 0.02)
    wrong_share = Stream(stream.student, np.full_like(stream.share, 0.5), stream.failed)
    confused = Stream(~stream.student, 1 - stream.share, stream.failed)
    for one in (wrong_share, confused):
        with pytest.raises(AssertionError, match="are wrong"):
            _holds([_promoted(run(one, roll_back=False))] * 10)


@pytest.mark.parametrize("excess", [0.0, 1.0])
def test_wrong_rollbacks(excess: float) -> None:
    """Of equal arms, and of a student that is worse by exactly the margin; promotions don't end them."""
    rng = np.random.default_rng(2)
    _holds(
        [
            _rolled_back(run(draw(rng, 2500, 800, share, rate + excess * margin, rate), margin=margin, promote=False))
            for share, margin, rate in GROUPS
        ]
    )


def test_equal_arms_are_promoted() -> None:
    rng = np.random.default_rng(3)
    for share, margin, rate in ((0.5, 0.05, 0.02), (0.1, 0.2, 0.02), (0.05, 0.2, 0.02)):
        ends = run(draw(rng, 1000, 1500, share, rate, rate), margin=margin)
        assert _promoted(ends).mean() > 0.95 and np.median(ends.promoted) < 900


def _day(conversations: int) -> Array:
    """Additional failures by time of day: from 0 to 50 points, four days."""
    day: Array = 0.25 - 0.25 * np.cos(np.arange(conversations) * 8 * np.pi / conversations)
    return day


def test_both_arms_drift_together() -> None:
    rng, day = np.random.default_rng(4), _day(600)
    _holds([_promoted(run(draw(rng, 10_000, 600, 0.5, 0.07 + day, 0.02 + day), roll_back=False))])


def test_no_rollback_because_both_drift_together() -> None:
    rng, day = np.random.default_rng(5), _day(600)
    _holds([_rolled_back(run(draw(rng, 10_000, 600, 0.5, 0.02 + day, 0.02 + day), promote=False))])


def test_the_user_changes_the_share_when_the_results_look_good() -> None:
    """The share is 0.5 while fewer than two of the last ten conversations failed, else 0.1; by day, more fail.

    So the student answers mostly when failures are rare: compared without weights, it would look better than it is.
    """
    rng, day, size = np.random.default_rng(6), _day(600), (10_000, 600)
    student, failed, share = np.zeros(size, dtype=bool), np.zeros(size), np.zeros(size)
    for n in range(600):
        share[:, n] = np.where(failed[:, max(0, n - 10) : n].sum(1) < 2, 0.5, 0.1)
        student[:, n] = rng.random(size[0]) < share[:, n]
        failed[:, n] = rng.random(size[0]) < 0.02 + day[n] + 0.05 * student[:, n]
    naive = failed[student].mean() - failed[~student].mean()
    assert naive < -0.02  # the truth is + 0.05
    _holds([_promoted(run(Stream(student, share, failed), roll_back=False))])


def test_both_fail_more_only_while_the_student_was_drawn_seldom() -> None:
    """An adversary that knows the draws: the failure rate of both depends on how many the student has had so far."""
    rng, share = np.random.default_rng(7), 0.5
    student = rng.random((10_000, 600)) < share
    before = np.cumsum(student, axis=1) - student
    more = 0.4 * (before < share * np.arange(600))
    _holds([_promoted(run(_outcomes(rng, student, share, 0.07 + more, 0.02 + more), roll_back=False))])


def test_an_adversary_that_knows_all_results_so_far() -> None:
    """Outcomes are noisy until the student is lucky, and quiet from then on; the difference is always the margin."""
    rng, size = np.random.default_rng(8), (10_000, 600)
    student, failed, luck = rng.random(size) < 0.5, np.zeros(size), np.zeros(size[0])
    for n in range(600):
        rate = np.where(luck < 0, 0.0, 0.5) + 0.05 * student[:, n]
        failed[:, n] = rng.random(size[0]) < rate
        luck += failed[:, n] * np.where(student[:, n], 2.0, -2.0) - 0.05
    _holds([_promoted(run(Stream(student, np.full(size, 0.5), failed), roll_back=False))])


def test_bad_first_then_good_is_not_promoted_before_the_mean_is_good() -> None:
    """20 points worse for 150 conversations, then equal: the running mean is the margin after 600."""
    rng, worse = np.random.default_rng(9), np.where(np.arange(600) < 150, 0.2, 0.0)
    ends = run(draw(rng, 10_000, 600, 0.5, 0.02 + worse, 0.02), roll_back=False)
    _holds([ends.promoted <= 600])


def test_good_first_then_bad_is_not_promoted_after_the_mean_is_bad() -> None:
    """Good for 300, then 50 points worse: the running mean reaches the margin after 334; before, it is right."""
    rng, worse = np.random.default_rng(10), np.where(np.arange(700) < 300, 0.0, 0.5)
    ends = run(draw(rng, 10_000, 700, 0.5, 0.02 + worse, 0.02))
    _holds([(ends.promoted >= 334) & (ends.promoted < NEVER)])
    assert (ends.promoted <= 300).mean() > 0.3
    late = ends.rolled_back[ends.promoted == NEVER]
    assert (late < NEVER).mean() > 0.98


def test_a_newer_half_that_looks_worse_holds_the_promotion() -> None:
    """What is shown over all conversations would otherwise promote a student that has just become worse."""
    canary, codes = Canary(), []
    for n in range(1200):
        failed = 0.3 if n >= 1000 and n % 2 else 0.0
        codes.append(canary.observe("student" if n % 2 else "teacher", 0.5, failed).reason.code)
    assert codes[999] == "student_not_worse"
    assert "newer_half_worse" in codes[1000:] and codes[-1] == "student_became_worse"


@pytest.mark.parametrize(
    ("share", "worse", "delay"), [(0.5, 1.0, 45), (0.5, 0.3, 200), (0.1, 1.0, 90), (0.1, 0.3, 420)]
)
def test_a_late_fault_is_noticed(share: float, worse: float, delay: int) -> None:
    """Good for 500 conversations, then 30 or 100 points worse: half are rolled back within `delay` more."""
    rng = np.random.default_rng(11)
    rates = np.minimum(1.0, np.where(np.arange(1500) < 500, 0.02, 0.02 + worse))
    ends = run(draw(rng, 1000, 1500, share, rates, 0.02), promote=False)
    assert _bound(int((ends.rolled_back <= 500).sum()), 1000) <= ALPHA
    assert np.median(ends.rolled_back) - 500 < delay
    assert (ends.rolled_back < NEVER).mean() > 0.9


def test_sessions_of_related_exchanges() -> None:
    """Five exchanges, of which all, some or none fail; the failed part of a conversation is one value."""
    rng, size = np.random.default_rng(12), (10_000, 600)
    student = rng.random(size) < 0.5
    mean = np.where(student, 0.15, 0.10)
    rate = rng.beta(mean * 0.5, (1 - mean) * 0.5)  # of this session
    failed = rng.binomial(5, rate) / 5
    _holds([_promoted(run(Stream(student, np.full(size, 0.5), failed), roll_back=False))])


def test_conversations_in_the_order_of_their_ends_break_the_level() -> None:
    """Failures of the student take 150 conversations longer: routing/conversations.py keeps the order of beginning."""
    rng = np.random.default_rng(13)
    stream = draw(rng, 10_000, 500, 0.5, 0.07, 0.02)
    ends_at = np.arange(500) + 150 * ((stream.failed > 0) & stream.student)
    order = np.argsort(ends_at, axis=1, kind="stable")
    by_end = Stream(*(np.take_along_axis(one, order, 1) for one in (stream.student, stream.share, stream.failed)))
    _holds([_promoted(run(stream, roll_back=False))])
    sample = Stream(by_end.student[:500], by_end.share[:500], by_end.failed[:500])
    assert _promoted(run(sample, roll_back=False)).mean() > ALPHA


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_the_interval_of_the_difference_holds_at_any_time(share: float) -> None:
    """Equal arms, then a difference of 20 points, then equal again: the running mean drifts."""
    rng, worse = np.random.default_rng(14), np.where(np.arange(450) // 150 == 1, 0.2, 0.0)
    truth = np.cumsum(worse) / np.arange(1, 451)
    below, above = misses(draw(rng, 10_000, 450, share, 0.1 + worse, 0.1), truth)
    _holds([below])
    _holds([above])
    assert below.sum() + above.sum() > 0


def test_the_interval_of_a_rate_holds_at_any_time() -> None:
    """As in `upper_rate`: the truth is refuted when the mixture of capitals reaches 1 / alpha."""
    rng, n, tilts = np.random.default_rng(15), np.arange(1, 401), np.geomspace(0.01, 8.0, 32)
    wrong = []
    for rate in (0.02, 0.3):
        rates = rate * (1 + 0.5 * np.sin(np.arange(400) / 50))  # drifts
        failed = np.cumsum(rng.random((5000, 400)) < rates, axis=1)
        mean = np.cumsum(rates) / n
        for bad, truth in ((failed, mean), (n - failed, 1 - mean)):
            capital = np.zeros(bad.shape)
            for tilt in tilts:
                capital += np.exp(-tilt * bad - n * np.log1p(truth * np.expm1(-tilt))) / 32
            wrong.append((capital >= 1 / ALPHA).any(axis=1))
            row = int(np.argmax(capital[:, -1]))  # the same as what the library says of one canary
            refuted = upper_rate(float(bad[row, -1]), 400, ALPHA) <= truth[-1]
            assert refuted == (capital[row, -1] >= 1 / ALPHA)
    _holds(wrong)


def test_false_alarms_of_a_watch() -> None:
    """The horizon is short here, so that all of it can be simulated: 1,000 conversations."""
    rng = np.random.default_rng(16)
    wrong = []
    for rate in (0.02, 0.07, 0.3, 0.9):
        ends = alarms((rng.random((2500, 1000)) < rate).astype(float), rate, ALPHA, 1000)
        wrong.append(ends <= 1000)
    _holds(wrong)


def test_decay_is_noticed() -> None:
    """Held to 7 %, with the default horizon: from 2 % to 12, 32 and 100 %, after 2,000 good conversations."""
    rng = np.random.default_rng(17)
    for rate, delay in ((0.12, 700), (0.32, 60), (1.0, 9)):
        rates = np.where(np.arange(4000) < 2000, 0.02, rate)
        ends = alarms((rng.random((500, 4000)) < rates).astype(float), 0.07, ALPHA, 10_000)
        assert _bound(int((ends <= 2000).sum()), 500) <= ALPHA
        assert np.median(ends) - 2000 < delay
