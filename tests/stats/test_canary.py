"""The canary's bets, its state on disk, and that the simulated canaries of test_canary_levels.py are the same."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from scipy import stats

from canaries import NEVER, Stream, alarms, run
from journeyman.errors import InputError
from journeyman.stats.betting import FRACTIONS, WEIGHTS, factors, upper_end, upper_rate
from journeyman.stats.canary import Arm, Canary, start_weight
from journeyman.stats.watch import Watch, decay_factors


def _expected(share: float, first: float, second: float, guess: float, margin: float) -> np.ndarray:
    """The mean of what a conversation multiplies the capitals by, over both arms and both outcomes."""
    total = np.zeros(len(FRACTIONS))
    for mine, failed in itertools.product((True, False), (0.0, 1.0)):
        rate = first if mine else second
        chance = (share if mine else 1 - share) * (rate if failed else 1 - rate)
        made = factors(np.array(mine), np.array(share), np.array(failed), np.array(guess), margin)
        assert (made > 0).all()
        total += chance * made
    return total


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("guess", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("margin", [0.0, 0.05, -0.05, 0.3])
def test_bets_are_fair_at_the_margin_and_lose_beyond(share: float, guess: float, margin: float) -> None:
    for second in (0.05, 0.3, 0.6):
        assert _expected(share, second + margin, second, guess, margin) == pytest.approx(1, abs=1e-12)
        assert (_expected(share, second + margin + 0.1, second, guess, margin) < 1).all()
        assert (_expected(share, second + margin - 0.01, second, guess, margin) > 1).all()


def test_the_capital_is_shared_out_and_no_more() -> None:
    assert WEIGHTS.sum() == pytest.approx(1)
    assert 0.5 + sum(start_weight(n) for n in range(1, 100_000)) == pytest.approx(1, abs=0.003)
    assert 0.5 + sum(start_weight(n) for n in range(1, 100_000)) < 1


def test_the_watch_bets_fairly_at_its_rate() -> None:
    for rate in (0.01, 0.07, 0.5, 1.0):
        fail, good = (decay_factors(np.array(failed), rate) for failed in (1.0, 0.0))
        assert rate * fail + (1 - rate) * good == pytest.approx(1)
        assert (good > 0).all()


def _random_stream(rng: np.random.Generator, n: int) -> Stream:
    """Shares that change, whole and partial failures, a student that becomes worse."""
    share = rng.choice([0.05, 0.1, 0.5, 0.9], size=(1, n))
    student = rng.random((1, n)) < share
    rate = np.where(student & (np.arange(n) > n * rng.random()), rng.choice([0.0, 0.1, 0.6]), rng.choice([0.01, 0.2]))
    part = np.where(rng.random((1, n)) < 0.5, 1.0, rng.integers(1, 5, (1, n)) / 5)
    return Stream(student, share, (rng.random((1, n)) < rate) * part)


@pytest.mark.parametrize("seed", range(12))
def test_simulated_canaries_are_the_class(seed: int) -> None:
    rng = np.random.default_rng(seed)
    stream = _random_stream(rng, 500)
    margin, least = float(rng.choice([0.02, 0.05, 0.2])), int(rng.choice([0, 30]))
    canary, first = Canary(margin=margin, least=least), {"promote": NEVER, "roll_back": NEVER, "go_on": NEVER}
    for n in range(500):
        arm: Arm = "student" if stream.student[0, n] else "teacher"
        verdict = canary.observe(arm, float(stream.share[0, n]), float(stream.failed[0, n])).verdict
        first[verdict] = min(first[verdict], n + 1)
    ends = run(stream, margin=margin, least=least, promote=False, roll_back=False)
    assert (ends.promoted[0], ends.rolled_back[0]) == (first["promote"], first["roll_back"])


def test_the_sequences_compared_have_all_verdicts() -> None:
    promoted = rolled_back = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        stream = _random_stream(rng, 500)
        margin, least = float(rng.choice([0.02, 0.05, 0.2])), int(rng.choice([0, 30]))
        ends = run(stream, margin=margin, least=least, promote=False, roll_back=False)
        promoted += ends.promoted[0] < NEVER
        rolled_back += ends.rolled_back[0] < NEVER
    assert promoted >= 2 and rolled_back >= 2


def test_simulated_watches_are_the_class() -> None:
    rng = np.random.default_rng(3)
    failed = (rng.random((20, 400)) < np.where(np.arange(400) < 200, 0.05, 0.3)).astype(float)
    ends = alarms(failed, 0.07, 0.05, 1000)
    assert (ends < NEVER).all()
    for row, end in zip(failed, ends, strict=True):
        watch = Watch(0.07, horizon=1000)
        verdicts = [watch.observe(float(one)).verdict for one in row]
        assert verdicts.index("roll_back") + 1 == end


def test_a_loaded_state_continues_exactly() -> None:
    rng = np.random.default_rng(1)
    stream = _random_stream(rng, 200)
    kept, loaded = Canary(), Canary()
    for n in range(200):
        arm: Arm = "student" if stream.student[0, n] else "teacher"
        failed = None if n % 7 == 0 else float(stream.failed[0, n])
        loaded = Canary.from_json(loaded.to_json())
        assert kept.observe(arm, float(stream.share[0, n]), failed) == loaded.observe(arm, stream.share[0, n], failed)
        assert kept.to_json() == loaded.to_json()
    assert kept.difference() == loaded.difference() and kept.failure_rate("student") == loaded.failure_rate("student")
    assert len(kept.to_json()) < 3000  # however many conversations there were

    watch, again = Watch(0.1), Watch(0.1)
    for n in range(200):
        again = Watch.from_json(again.to_json())
        failed = None if n % 7 == 0 else float(stream.failed[0, n])
        assert watch.observe(failed) == again.observe(failed) and watch.to_json() == again.to_json()


@pytest.mark.parametrize(
    "change", [{"late": [0.0]}, {"better": None}, {"alpha": "x"}, {"new_key": 1}, {"student": {"a": 1}}]
)
def test_a_damaged_state_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match="state of a canary"):
        Canary.from_json(json.dumps(json.loads(Canary().to_json()) | change))
    for text in ("", "[]", "{}", "null"):
        with pytest.raises(InputError):
            Canary.from_json(text)
        with pytest.raises(InputError):
            Watch.from_json(text)


@pytest.mark.parametrize(
    ("share", "failed"), [(0.0, 0.0), (1.0, 0.0), (0.5, 1.1), (0.5, -0.1), (0.5, math.nan), (math.nan, 0)]
)
def test_what_is_no_conversation_is_refused_and_changes_nothing(share: float, failed: float) -> None:
    canary = Canary()
    with pytest.raises(ValueError, match="no conversation of a canary"):
        canary.observe("student", share, failed)
    assert canary.to_json() == Canary().to_json()


def test_the_ends_agree_with_the_evidence() -> None:
    """The upper end is below the margin exactly when the promotion is shown, and so is the lower one for "worse"."""
    rng = np.random.default_rng(5)
    sides = set()
    for rate in (0.0, 0.02, 0.3):
        canary = Canary()
        for _ in range(600):
            student = rng.random() < 0.5
            canary.observe("student" if student else "teacher", 0.5, float(rng.random() < (rate if student else 0.02)))
            if canary.scored % 20 == 0:
                interval = canary.difference()
                assert interval.low <= canary.estimate <= interval.high
                assert (interval.high <= canary.margin + 2e-6) == (canary.evidence >= 20)
                assert (interval.low >= canary.margin - 2e-6) == (2 * canary.evidence_against[0] >= 20)
                sides |= {interval.high <= canary.margin, interval.low >= canary.margin}
    assert sides == {True, False}


def test_ends_of_nothing_are_the_whole_range() -> None:
    assert Canary().difference().low == -1 and Canary().difference().high == 1
    assert (Canary().failure_rate("student").low, Canary().failure_rate("student").high) == (0, 1)


def test_an_end_at_another_value_is_that_of_bets_on_this_value() -> None:
    """Bets placed against 0.05 give the same verdict about 0.2 as bets placed against 0.2 with equivalent stakes."""
    rng = np.random.default_rng(2)
    student = rng.random(300) < 0.5
    failed = (rng.random(300) < 0.1).astype(float)
    share, guess = np.full(300, 0.5), np.zeros(300)
    logs = np.log(factors(student, share, failed, guess, 0.05)).sum(0)
    end = upper_end(logs, 300 / (1 / 0.5 - 0.05), 300, 0.05, 0.05)
    stake = FRACTIONS / (1 / 0.5 - 0.05)
    stake_there = stake / (1 + stake * (0.05 - end))
    y = np.where(student, failed, -failed) / 0.5
    capital = WEIGHTS @ np.prod(1 + stake_there * (end - y)[:, None], axis=0)
    assert capital == pytest.approx(20, rel=1e-3)


@pytest.mark.parametrize(("failed", "n"), [(0, 50), (1, 50), (3, 200), (100, 200), (5, 5)])
def test_a_rate_that_holds_at_any_time_is_wider_than_one_that_holds_once(failed: int, n: int) -> None:
    once = stats.beta.ppf(0.95, failed + 1, n - failed) if failed < n else 1.0  # Clopper & Pearson
    assert once <= upper_rate(failed, n, 0.05) <= min(1.0, once + 3 / math.sqrt(n))


def test_results_that_are_missing_in_one_arm_prevent_a_promotion() -> None:
    """Both arms fail in 2 %, but the student leaves 40 % of its conversations without a result."""
    rng = np.random.default_rng(4)
    canary, codes = Canary(), set()
    for _ in range(3000):
        student = rng.random() < 0.5
        failed: float | None = float(rng.random() < 0.02)
        if student and rng.random() < 0.4:
            failed = None
        codes.add(canary.observe("student" if student else "teacher", 0.5, failed).reason.code)
    assert "unscored_unequally" in codes and "student_not_worse" not in codes
    assert canary.student.unscored > 400 and canary.scored + canary.student.unscored == 3000


def test_results_that_are_missing_at_random_change_nothing() -> None:
    rng = np.random.default_rng(4)
    all_of_them, some = Canary(), Canary()
    for _ in range(500):
        student = rng.random() < 0.5
        arm: Arm = "student" if student else "teacher"
        if rng.random() < 0.5:
            some.observe(arm, 0.5, None)
        else:
            assert some.observe(arm, 0.5, 0.0).verdict == all_of_them.observe(arm, 0.5, 0.0).verdict
    assert some.decision().verdict == "promote" and some.difference() == all_of_them.difference()


def test_a_late_fault_is_named_as_one() -> None:
    rng = np.random.default_rng(6)
    canary = Canary()
    for n in range(2000):
        student = rng.random() < 0.1
        decision = canary.observe("student" if student else "teacher", 0.1, float(student and n >= 1000))
        if decision.verdict == "roll_back":
            break
    assert decision.reason.code == "student_became_worse" and 1000 < n < 1200


def test_few_conversations_of_the_student_are_not_enough() -> None:
    canary = Canary(margin=0.9, least=40)
    for _ in range(39):
        for arm in ("student", "teacher"):
            assert canary.observe(arm, 0.5, 0.0).reason.code == "few_conversations"
    assert canary.observe("student", 0.5, 0.0).verdict == "promote"


def test_a_watch_is_set_to_what_was_shown() -> None:
    canary = Canary()
    for _ in range(200):
        canary.observe("student", 0.5, 0.0)
    assert canary.most_failed() == 0.05 > canary.failure_rate("student").high
    canary = Canary()
    canary.observe("student", 0.5, 0.0)
    assert canary.most_failed() == canary.failure_rate("student").high > 0.9
