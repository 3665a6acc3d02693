"""How many conversations does a canary take, how soon does it notice a fault, and what would other methods do?

    python benchmarks/canary.py [--canaries 300]

Simulated canaries of known truth, alpha 0.05 and margin 0.05, through tests/helpers/canaries.py, which the tests prove
to be the class `journeyman.stats.canary.Canary`. The methods compared for the promotion:
    ours             fixed stakes, most of the capital on large ones, and a guess of the failure rate subtracted
    without guess    the same without the guess
    equal weights    stakes of 2^-1 to 2^-8 of the largest with equal weights, without the guess
    adaptive         one stake, set before each conversation from the mean and variance so far (aGRAPA, Waudby-Smith &
                     Ramdas 2024), with the guess: its level holds only if the difference never falls below the margin
    two intervals    the student's upper end below the teacher's lower end + margin, each at alpha / 2 (upper_rate):
                     its level does not hold if the share changes while rates drift
Results: benchmarks/results/canary.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

from canaries import NEVER, Stream, alarms, draw, run
from journeyman.stats.betting import FRACTIONS, WEIGHTS, upper_rate

ALPHA, MARGIN = 0.05, 0.05
RESULT = Path(__file__).parent / "results" / "canary.json"


def median(ends: np.ndarray, start: int = 0) -> int | None:
    """The median number of conversations after `start`; None if fewer than half came to an end."""
    middle = float(np.median(ends))
    return None if middle >= NEVER / 2 else round(middle - start)


def first(crossed: np.ndarray) -> np.ndarray:
    return np.where(crossed.any(axis=1), crossed.argmax(axis=1) + 1, NEVER)


def guesses(stream: Stream) -> np.ndarray:
    before = np.cumsum(stream.failed, axis=1) - stream.failed
    return before / (np.arange(stream.failed.shape[1]) + 20)


def fixed_stakes(stream: Stream, fractions: np.ndarray, weights: np.ndarray, *, guess: bool) -> np.ndarray:
    share, capital = stream.share, np.zeros(stream.failed.shape)
    for fraction, weight in zip(fractions, weights, strict=True):
        stake = fraction / (1 / share - MARGIN)
        used = np.minimum(guesses(stream), 0.5 * (1 - share) * (1 / stake + MARGIN)) if guess else 0.0
        y = (stream.failed - used) * np.where(stream.student, 1 / share, -1 / (1 - share))
        capital += weight * np.exp(np.cumsum(np.log1p(stake * (MARGIN - y)), axis=1))
    return first(capital >= 1 / ALPHA)


def adaptive(stream: Stream) -> np.ndarray:
    share, n = stream.share, np.arange(stream.failed.shape[1])
    guess = np.minimum(guesses(stream), 0.5 * (1 - share) / share)
    y = (stream.failed - guess) * np.where(stream.student, 1 / share, -1 / (1 - share))
    before, squares = np.cumsum(y, axis=1) - y, np.cumsum(y * y, axis=1) - y * y
    gap = MARGIN - before / (n + 1)
    variance = (squares + 0.25 / share) / (n + 1) - (before / (n + 1)) ** 2
    stake = np.clip(gap / (variance + gap**2), 0, 0.75 / (1 / share - MARGIN))
    return first(np.cumsum(np.log1p(stake * (MARGIN - y)), axis=1) >= np.log(1 / ALPHA))


def upper_rates(failed: np.ndarray, n: np.ndarray) -> np.ndarray:
    """`upper_rate` at alpha / 2, computed once for each pair."""
    table = {key: upper_rate(float(key[0]), int(key[1]), ALPHA / 2) for key in set(zip(failed, n, strict=True))}
    return np.array([table[key] for key in zip(failed, n, strict=True)])


def two_intervals(stream: Stream, every: int = 50) -> np.ndarray:
    """Looked at after every 50 conversations only, to save time; the median is rounded up accordingly."""
    columns = np.arange(every - 1, stream.failed.shape[1], every)
    crossed = []
    for column in columns:
        student, failed = stream.student[:, : column + 1], stream.failed[:, : column + 1]
        n, bad = student.sum(axis=1), (failed * student).sum(axis=1)
        n_teacher, bad_teacher = (~student).sum(axis=1), (failed * ~student).sum(axis=1)
        low = 1 - upper_rates(n_teacher - bad_teacher, n_teacher)
        crossed.append(upper_rates(bad, n) <= low + MARGIN)
    ends = first(np.array(crossed).T)
    return np.where(ends < NEVER, ends * every, NEVER)


def methods(rng: np.random.Generator, canaries: int) -> list[dict[str, object]]:
    rows = []
    equal = 2.0 ** -np.arange(1, 9)
    for share, rate, length in ((0.5, 0.02, 2000), (0.5, 0.1, 3000), (0.5, 0.3, 5000), (0.1, 0.02, 5000)):
        stream = draw(rng, min(canaries, 100), length, share, rate, rate)
        rows.append(
            {
                "share": share,
                "rate": rate,
                "ours": median(fixed_stakes(stream, FRACTIONS, WEIGHTS, guess=True)),
                "without guess": median(fixed_stakes(stream, FRACTIONS, WEIGHTS, guess=False)),
                "equal weights": median(fixed_stakes(stream, equal, np.full(8, 1 / 8), guess=False)),
                "adaptive": median(adaptive(stream)),
                "two intervals": median(two_intervals(stream)),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def drifting(rng: np.random.Generator) -> dict[str, float]:
    """The share of wrong promotions if the student is 20 points worse for 150 of 600 conversations: first, or last.

    The running mean of the difference is at least the margin up to conversation 600, or from 600 on.
    """
    worse = np.where(np.arange(600) < 150, 0.2, 0.0)
    first_bad = draw(rng, 2000, 600, 0.5, 0.02 + worse, 0.02)
    last_bad = draw(rng, 2000, 900, 0.5, 0.02 + np.where(np.arange(900) < 450, 0.0, 0.2), 0.02)

    def wrong(ends: np.ndarray, low: int, high: int) -> float:
        return float(((ends >= low) & (ends <= high)).mean())

    found = {
        "ours, bad first": wrong(fixed_stakes(first_bad, FRACTIONS, WEIGHTS, guess=True), 1, 600),
        "adaptive, bad first": wrong(adaptive(first_bad), 1, 600),
        "ours, bad last": wrong(fixed_stakes(last_bad, FRACTIONS, WEIGHTS, guess=True), 600, 900),
        "adaptive, bad last": wrong(adaptive(last_bad), 600, 900),
    }
    print(json.dumps(found), flush=True)
    return found


def power(rng: np.random.Generator, canaries: int) -> list[dict[str, object]]:
    rows = []
    for share, length in ((0.5, 4000), (0.1, 8000), (0.05, 12000)):
        for student, teacher in ((0.01, 0.01), (0.02, 0.02), (0.02, 0.05), (0.05, 0.05), (0.1, 0.1), (0.3, 0.3)):
            ends = run(draw(rng, canaries, length, share, student, teacher))
            rows.append(
                {
                    "share": share,
                    "student": student,
                    "teacher": teacher,
                    "conversations": median(ends.promoted),
                    "of_the_student": None if median(ends.promoted) is None else round(share * median(ends.promoted)),
                    "rolled_back": float((ends.rolled_back < NEVER).mean()),
                    "limit": length,
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def delays(rng: np.random.Generator, canaries: int) -> list[dict[str, object]]:
    rows = []
    for share in (0.5, 0.1, 0.05):
        for fault, length in ((0.1, 10_000), (0.3, 3000), (1.0, 1000)):
            for start in (0, 500):
                rates = np.minimum(1.0, np.where(np.arange(length) < start, 0.02, 0.02 + fault))
                ends = run(draw(rng, canaries, length, share, rates, 0.02), promote=False)
                rows.append({"share": share, "fault": fault, "start": start, "delay": median(ends.rolled_back, start)})
                print(json.dumps(rows[-1]), flush=True)
    return rows


def watching(rng: np.random.Generator, canaries: int) -> list[dict[str, object]]:
    rows = []
    for rate in (0.12, 0.32, 1.0):
        rates = np.where(np.arange(5000) < 2000, 0.02, rate)
        ends = alarms((rng.random((canaries, 5000)) < rates).astype(float), 0.07, ALPHA, 10_000)
        rows.append({"held_to": 0.07, "rate": rate, "delay": median(ends, 2000)})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--canaries", type=int, default=300)
    canaries = parser.parse_args().canaries
    rng = np.random.default_rng(1)
    found = {
        "canaries": canaries,
        "drift": drifting(rng),
        "delays": delays(rng, canaries),
        "power": power(rng, canaries),
        "watch": watching(rng, canaries),
        "methods": methods(rng, canaries),
    }
    RESULT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
