"""How many candidates a budget allows, on how many rows: arithmetic on measured costs.

Successive halving (Jamieson and Talwalkar, 2016): all candidates are trained on a small share of the training rows, the
better ones on more, and the last ones on all. A trial always has a whole schedule, with all of its epochs, warm-up and
decay, on its share of the rows: a schedule that is cut short says little about one that ends, because most of the gain
comes with the decay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

SHARES = (0.25, 0.5, 1.0)
LEAST_ROWS = 48
"""Training rows below which a share is not worth a rung."""
FINALISTS = 2
"""Candidates that are trained on all rows and compared with the default; more would widen every interval."""
MARGIN = 1.1
"""By which a plan exceeds the measured costs: trials differ."""


@dataclass(frozen=True)
class Costs:
    """Measured seconds.

    Attributes:
        token_s: of training, for each token of each epoch.
        trial_s: of each trial besides: loading, and writing the adapter.
        answer_s: for each row that a trial answers, with judging.
        engine_s: each time that answers are asked: loading the engine and comparing prompts.
    """

    token_s: float
    trial_s: float
    answer_s: float
    engine_s: float


@dataclass(frozen=True)
class Rung:
    """One share of the training rows.

    Attributes:
        rows: training rows.
        tokens: of these rows, once.
        answered: rows that each trial is scored on.
    """

    share: float
    rows: int
    tokens: int
    answered: int


@dataclass(frozen=True)
class Step:
    """A rung of a schedule, with the number of candidates on it, the default not counted."""

    rung: Rung
    candidates: int


@dataclass(frozen=True)
class Schedule:
    """What will be tried.

    Attributes:
        steps: in order; none: not even the default and one candidate fit.
        seconds: that it takes, by the measured costs and the margin.
        least_s: the least budget for the default and one candidate on all rows.
    """

    steps: Sequence[Step]
    seconds: float
    least_s: float

    @property
    def candidates(self) -> int:
        return self.steps[0].candidates if self.steps else 0


def shares_for(training_rows: int) -> list[float]:
    """The shares of the rungs: all rows, and before that those shares that leave enough rows."""
    return [share for share in SHARES if share == 1 or share * training_rows >= LEAST_ROWS]


def counts(candidates: int, rungs: int) -> list[int]:
    """Candidates on each rung: a constant share of them goes on, until FINALISTS are left."""
    if rungs == 1:
        return [candidates]
    last = min(FINALISTS, candidates)
    falls = [candidates * (last / candidates) ** (place / (rungs - 1)) for place in range(rungs)]
    return [max(last, round(count)) for count in falls]


def rung_seconds(rung: Rung, epochs: Sequence[float], costs: Costs) -> float:
    """Seconds for trials of a rung, answered together.

    Args:
        epochs: of each trial.
    """
    if not epochs:
        return 0.0
    trained = sum(costs.trial_s + costs.token_s * rung.tokens * passes for passes in epochs)
    return trained + costs.engine_s + costs.answer_s * rung.answered * len(epochs)


def schedule(
    rungs: Sequence[Rung], epochs: Sequence[float], costs: Costs, left_s: float, done_s: Callable[[Rung], float]
) -> Schedule:
    """The most candidates that fit into a budget.

    Args:
        rungs: the last one has all training rows.
        epochs: of the default, and of each candidate in the order in which they are tried. Which of them go on is not
            known yet, so later rungs are planned with their mean.
        left_s: seconds that are left.
        done_s: rung → seconds of its work that is done already, such as the trial from which the costs were measured.
    """

    def seconds(steps: Sequence[Step]) -> float:
        total = 0.0
        for place, step in enumerate(steps):
            tried = epochs[1 : 1 + steps[0].candidates]
            mean = sum(tried) / max(1, len(tried))
            passes = tried if place == 0 else [mean] * step.candidates
            total += max(0.0, rung_seconds(step.rung, [epochs[0], *passes], costs) - done_s(step.rung))
        return MARGIN * total

    best: list[Step] = []
    for number in range(1, len(epochs)):
        for place in range(len(rungs)):  # fewer rungs have more rows on the first one, and are taken if they fit too
            chain = rungs[place:]
            if len(rungs) > 1 and (len(chain) == 1) != (number <= FINALISTS):
                continue
            steps = [Step(rung, count) for rung, count in zip(chain, counts(number, len(chain)), strict=True)]
            if seconds(steps) <= left_s:
                best = steps
    return Schedule(best, seconds(best) if best else 0.0, seconds([Step(rungs[-1], 1)]))


def that_fit(rung: Rung, epochs: Sequence[float], costs: Costs, left_s: float, later_s: Callable[[int], float]) -> int:
    """How many of these trials fit into what is left, in this order.

    Args:
        later_s: trials → seconds that are kept for later rungs if so many are made now.
    """
    fitting = 0
    for number in range(1, len(epochs) + 1):
        if rung_seconds(rung, epochs[:number], costs) <= left_s - later_s(number):
            fitting = number
    return fitting


def wave(fitting: int) -> int:
    """How many of the trials that fit are made before costs are measured again.

    Half of them: even if they take twice as long as expected, the time that is kept for later rungs is still there.
    """
    return fitting if fitting <= FINALISTS else -(-fitting // 2)


def later_seconds(later: Sequence[Rung], candidates: int, default_epochs: float, epochs: float, costs: Costs) -> float:
    """Seconds for the rungs after one with so many candidates.

    Args:
        epochs: of a candidate that goes on, expected.
    """
    numbers = counts(candidates, len(later) + 1)[1:]
    return sum(
        rung_seconds(rung, [default_epochs, *[epochs] * number], costs)
        for rung, number in zip(later, numbers, strict=True)
    )
