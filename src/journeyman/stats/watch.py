"""Does a promoted student decay? It answers all conversations, so there is no teacher to compare with.

The null hypothesis is that at most `most_failed` of each conversation fails on average: what was shown in the canary.
With every conversation a new bet starts with the capital 1 / horizon and stakes a fixed part on more failures
(e-detector: Shin, Ramdas & Rinaldo, 2022; betting.py). The alarm is raised when all of the capital reaches 1 / alpha.
While the null hypothesis holds, the expected capital after n conversations is n / horizon. Therefore

- the probability of a false alarm within the first `horizon` conversations is at most alpha (Doob);
- on average, there are at least horizon / alpha conversations until a false alarm.

Weights that add up to one would bound the probability over all time, at the price of becoming deaf: a fault would take
longer and longer to be noticed. Not covered: a rate that rises because tasks become harder looks the same as decay.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Self

import numpy as np

from journeyman.errors import InputError
from journeyman.reasons import routing
from journeyman.stats.betting import FRACTIONS, WEIGHTS
from journeyman.stats.canary import Decision

_MOST = 1e300


@dataclass
class Watch:
    """The state of one watch.

    Args:
        most_failed: the failure rate that is still right, above 0; see Canary.most_failed.
        alpha, horizon: the level of a false alarm within so many conversations.
    """

    most_failed: float
    alpha: float = 0.05
    horizon: int = 10_000
    scored: int = 0
    unscored: int = 0
    failed: float = 0.0
    capitals: list[float] = field(default_factory=lambda: [0.0] * len(FRACTIONS))

    def __post_init__(self) -> None:
        if not (0 < self.most_failed <= 1 and 0 < self.alpha < 1 and self.horizon >= 1):
            raise ValueError("most_failed is above 0 and at most 1, alpha between 0 and 1, the horizon at least 1")

    def observe(self, failed: float | None) -> Decision:
        """One conversation, in any order that does not depend on whether it fails; None if it has no result."""
        if failed is None:
            self.unscored += 1
            return self.decision()
        if not 0 <= failed <= 1:
            raise ValueError(f"the failed part of a conversation is {failed}")
        self.scored += 1
        self.failed += failed
        capitals = (np.array(self.capitals) + 1 / self.horizon) * decay_factors(np.array(failed), self.most_failed)
        self.capitals = np.minimum(_MOST, capitals).tolist()
        return self.decision()

    @property
    def evidence(self) -> float:
        return float(np.array(self.capitals) @ WEIGHTS)

    def decision(self) -> Decision:
        evidence, needed = self.evidence, 1 / self.alpha
        if evidence >= needed:
            return Decision("roll_back", routing.StudentDecayed(self.most_failed, evidence, needed))
        return Decision("go_on", routing.NoDecayShown(self.most_failed, evidence, needed))

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises InputError if the text is no state of a watch of this version."""
        try:
            state = cls(**json.loads(text))
            if len(state.capitals) != len(FRACTIONS) or not np.isfinite(state.capitals).all():
                raise ValueError("capitals")
        except (ValueError, TypeError) as error:
            raise InputError(f"the state of a watch cannot be read: {error}", "start a new watch") from error
        return state


def decay_factors(failed: np.ndarray, most_failed: float) -> np.ndarray:
    """What one conversation multiplies each capital by: one more axis, an entry for each of FRACTIONS."""
    return 1 + FRACTIONS * (failed[..., None] / most_failed - 1)
