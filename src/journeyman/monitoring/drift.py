"""Are recorded prompts like those of the training? Four tests, with effect sizes beside the p-values.

The prompts of the training are divided: vocabulary and neighbours come from one part, and the recorded prompts are
compared with the other part, the held-out one. Both are then as new to the first part as each other, if nothing has
changed; prompts compared with a vocabulary that they gave themselves would look nearer than any new one can.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from journeyman.monitoring.prompts import Prompt, distances, tool_sets, unseen
from journeyman.monitoring.report import Compared, Drift, DriftTest
from journeyman.reasons.base import Reason
from journeyman.reasons.monitoring import NothingToCompareWith, TooFewPrompts
from journeyman.stats.two_samples import (
    Tested,
    Values,
    holm,
    kolmogorov_smirnov,
    larger_mean,
    mann_whitney,
    same_categories,
)

LEAST_PROMPTS = 20
"""On either side; with fewer, the tests could find gross differences only."""
LEAST_EFFECT: dict[DriftTest, float] = {"length": 0.15, "vocabulary": 0.05, "tools": 0.1, "distance": 0.64}
"""A difference counts from here: lengths, the largest distance of cumulative shares; vocabulary, the difference of the
mean shares of unknown words; tools, the share of prompts with another set; distance, the probability that a recorded
prompt is farther from the training than a held-out one (0.5: alike; 0.64: a medium effect in Vargha and Delaney's
terms)."""


@dataclass(frozen=True)
class Reference:
    """Prompts to compare with.

    Attributes:
        known: from which vocabulary and neighbours are taken.
        held_out: others of the same kind.
    """

    known: Sequence[Prompt] = ()
    held_out: Sequence[Prompt] = ()
    against: Literal["training", "older_rows"] = "training"


@dataclass
class _Test:
    name: DriftTest
    test: Callable[[], Tested]
    recorded: float | None = None
    trained: float | None = None
    made: Tested = field(default=Tested(1.0, 0.0))


def drift_of(recorded: Sequence[Prompt], reference: Reference, alpha: float) -> Drift:
    """Compares recorded prompts with a reference.

    Args:
        recorded: one of each conversation.
        alpha: the probability that any test finds drift where there is none; differences below LEAST_EFFECT don't
            count either.
    """
    known, held_out = reference.known, reference.held_out
    sizes = {"recorded": len(recorded), "trained": len(known) + len(held_out), "held_out": len(held_out)}
    if min(len(recorded), len(known), len(held_out)) < LEAST_PROMPTS:
        why: Reason = TooFewPrompts(len(recorded), len(known), len(held_out), LEAST_PROMPTS)
        if not known and not held_out:
            why = NothingToCompareWith()
        return Drift(**sizes, against=reference.against, unknown=why.record())
    tests = _tests(recorded, known, held_out)
    for one in tests:
        one.made = one.test()
    corrected = holm([one.made.p_value for one in tests])
    made = [
        Compared(
            test=one.name, p_value=p_value, effect=one.made.effect, least=LEAST_EFFECT[one.name],
            recorded=one.recorded, trained=one.trained,
            found=p_value <= alpha and one.made.effect >= LEAST_EFFECT[one.name],
        )
        for one, p_value in zip(tests, corrected, strict=True)
    ]  # fmt: skip
    return Drift(**sizes, against=reference.against, tests=made)


def _tests(recorded: Sequence[Prompt], known: Sequence[Prompt], held_out: Sequence[Prompt]) -> list[_Test]:
    every = [*known, *held_out]
    lengths, trained_lengths = _lengths(recorded), _lengths(every)
    vocabulary = np.unique(np.concatenate([one.words for one in known]))
    new, held_out_new = unseen(recorded, vocabulary), unseen(held_out, vocabulary)
    far, held_out_far = distances(recorded, known), distances(held_out, known)
    sets, trained_sets = tool_sets(recorded, every)
    return [
        _Test(
            "length", lambda: kolmogorov_smirnov(lengths, trained_lengths),
            float(np.median(lengths)), float(np.median(trained_lengths)),
        ),
        _Test("vocabulary", lambda: larger_mean(new, held_out_new), float(new.mean()), float(held_out_new.mean())),
        _Test("tools", lambda: same_categories(sets, trained_sets)),
        _Test(
            "distance", lambda: mann_whitney(far, held_out_far), float(np.median(far)), float(np.median(held_out_far))
        ),
    ]  # fmt: skip


def _lengths(prompts: Sequence[Prompt]) -> Values:
    return np.array([one.length for one in prompts], dtype=np.float64)
