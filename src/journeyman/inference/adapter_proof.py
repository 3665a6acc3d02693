"""Proves that the engine computes what was trained, with and without an adapter, within the error of quantization."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from journeyman.errors import EngineError
from journeyman.inference.engines import running_engine
from journeyman.protocols import EngineSettings
from journeyman.records import EVERY_ROLE

LogProbabilities = Sequence[Mapping[int, float]]
_LIKELIEST, _CONTEXT = 10, 2048
_SAME_BASE = 1.0
"""Nats by which the likeliest tokens' log probabilities may differ on average: those of Q8_0 differ by 0.01 to 0.1, of
4 bits by 0.1 to 0.3, and those of two models by several."""
_TIMES, _SHARE, _LEAST = 3.0, 0.1, 0.05
"""With an adapter, they may differ by this many times that, by this share of the adapter's effect, or by this much."""


def prove_adapter(
    served: Path,
    adapter: Path,
    texts: Sequence[Sequence[int]],
    plain: LogProbabilities,
    adapted: LogProbabilities,
    threads: int | None,
) -> tuple[float, float]:
    """Compares the engine's next tokens with those of training; returns both mean differences, in nats.

    Args:
        served: the base's file.
        texts: token ids.
        plain, adapted: what training computes after each text, for every token, without and with the adapter.

    Raises:
        EngineError: they differ.
    """
    with running_engine(EngineSettings(served, {EVERY_ROLE: adapter}, _CONTEXT, threads, 0.0)) as engine:
        without, tuned = ([engine.next_tokens(ids, _LIKELIEST, adapted=on) for ids in texts] for on in (False, True))
    apart = _apart(without, plain)
    if not apart <= _SAME_BASE:
        raise EngineError(
            f"{served}: the engine does not compute what transformers computes from this base: log probabilities "
            f"differ by {apart:.2f} nats",
            "Set evaluate.quantizations to a file of this very base with more bits, or use another base",
        )
    most = max(_TIMES * apart, _SHARE * _apart(tuned, plain), _LEAST)
    apart_adapted = _apart(tuned, adapted)
    if not apart_adapted <= most:
        raise EngineError(
            f"{served}: with an adapter, the engine does not compute what transformers and peft compute: log "
            f"probabilities differ by {apart_adapted:.2f} nats, and without one by {apart:.2f}",
            "Set train.lora.targets to fewer layers, such as ['q_proj', 'v_proj'], or use another base",
        )
    return apart, apart_adapted


def _apart(engine: LogProbabilities, training: LogProbabilities) -> float:
    """The mean difference over the engine's likeliest tokens."""
    both = zip(engine, training, strict=True)
    differences = [abs(value - ours[token]) for theirs, ours in both for token, value in theirs.items()]
    return sum(differences) / len(differences) if differences else math.inf
