"""What a search may still spend, and what its trials cost, as those that were made have shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from journeyman.search import choosing, halving
from journeyman.search.choosing import Scored
from journeyman.search.costs import costs_of
from journeyman.search.halving import Costs, Rung, Schedule
from journeyman.search.ledger import Ledger, Trial
from journeyman.search.space import Changes


class Budget:
    """Computing time, over all calls.

    Args:
        search: the trials of the ledger that count.
        rungs: all that there may be, the last one with all training rows.
        candidates: the default and others, in the order in which they are tried.
        epochs_of: what a candidate changes → its epochs.

    Attributes:
        seconds: of all calls.
    """

    def __init__(
        self,
        seconds: float,
        ledger: Ledger,
        search: str,
        rungs: Sequence[Rung],
        candidates: Sequence[Changes],
        epochs_of: Callable[[Changes], int],
    ) -> None:
        self.seconds = seconds
        self._ledger, self._search, self._rungs = ledger, search, rungs
        self._candidates, self._epochs_of = candidates, epochs_of

    @property
    def spent_s(self) -> float:
        return self._ledger.spent_s(self._search)

    @property
    def left_s(self) -> float:
        return self.seconds - self.spent_s

    @property
    def is_measured(self) -> bool:
        """Whether any trial says what trials cost."""
        return any(one.state == "scored" for one in self._ledger.of(self._search))

    def costs(self) -> Costs:
        """By the trials that were made; there must be one."""
        tokens = {rung.share: rung.tokens for rung in self._rungs}
        return costs_of(
            list(self._ledger.of(self._search)), lambda one: tokens[one.share] * self._epochs_of(one.changes)
        )

    def schedule(self, stands: Callable[[Trial], bool]) -> Schedule:
        """The most candidates that fit into what is left.

        Args:
            stands: whether a trial is not made again.
        """
        done = {one.share: 0.0 for one in self._rungs}
        for trial in self._ledger.of(self._search):
            if stands(trial):
                done[trial.share] = done.get(trial.share, 0.0) + trial.seconds
        return halving.schedule(
            self._rungs, self._epochs(range(len(self._candidates))), self.costs(),
            max(0.0, self.left_s), lambda rung: done[rung.share],
        )  # fmt: skip

    def fitting(self, rung: Rung, missing: Sequence[int], found: Mapping[int, Scored], later: Sequence[Rung]) -> int:
        """How many of the missing trials of a rung fit, with later rungs for as many as would go on.

        Args:
            missing, found: numbers of candidates, 0 for the default.
        """
        costs, known = self.costs(), sum(number != 0 for number in found)
        best = choosing.promoted(list(found.values()), halving.FINALISTS)
        likely = self._epochs(best or [number for number in (*found, *missing) if number] or [0])
        (default,) = self._epochs([0])

        def later_s(number: int) -> float:
            candidates = known + sum(one != 0 for one in missing[:number])
            return halving.later_seconds(later, max(1, candidates), default, fmean(likely), costs)

        left = self.left_s * halving.MARGIN  # the plan has that margin already
        return halving.that_fit(rung, self._epochs(missing), costs, left, later_s)

    def least_s(self, candidate: Sequence[int]) -> float:
        """The budget with which the default and this one candidate, or none, could be compared on all rows."""
        more = halving.rung_seconds(self._rungs[-1], self._epochs([0, *candidate]), self.costs())
        return self.spent_s + halving.MARGIN * more

    def _epochs(self, numbers: Sequence[int] | range) -> list[float]:
        return [float(self._epochs_of(self._candidates[number])) for number in numbers]
