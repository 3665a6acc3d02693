"""Decides how several adapters on one frozen base are trained on the processor: how many at a time, and in which way.

Besides its products, a pass has a price that does not depend on its tokens: the calls of its operations, the layers
that are dequantized for it, and the small products and conversions of the adapter. In one *batch*, adapters share what
the pass and the layers cost. On divided *cores*, each adapter has a part of the cores and all of its price is paid
beside the others', but every loop would dequantize the layers for itself.

Adapters of different sizes end at different times. The cores of one that has ended are idle, and the last passes of a
batch are those of one adapter alone. So what counts is when the last one ends, not how much all of them compute.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from journeyman.models.geometry import Geometry
from journeyman.sizing.memory import MemoryWay, TrainingSize, training_bytes

_PEAK = 0.69
_PASS_S, _MODULE_S = 9.4e-3, 2.7e-3
"""The share of the matrix rate that a very long pass reaches, and the seconds of a pass for each layer and for each
adapted matrix. Derived: with SmolLM2-135M on two cores of 390 · 10^9 operations a second, passes of 500 tokens reach
0.37 of the rate and passes of 1,900 tokens 0.56 (sizing.duration), which is 0.69 · T / (T + 427), or 0.85 s for each
pass; two thirds of that were the adapter's. So 2 and 4 adapters on divided cores were predicted to be 1.10 and 1.12
times as fast; benchmarks/joint_training.py measured 1.09 and 1.11."""
_DEQUANTIZED = 63e6
"""Values a second and core that a pass reads when layers are streamed, with what else it does for each layer: what a
batch of two adapters saved of their passes of 500 tokens (benchmarks/joint_training.py: 1.2 times as fast)."""
_WORTH_IT, _NEARLY = 1.1, 0.97
"""The least speedup for which adapters are trained together, and the share of the best one that is enough."""
_ROOM = 1.5
"""How many times the mean tokens of a pass fit in one, because the passes of the loops vary."""

Way = Literal["batch", "cores"]


@dataclass(frozen=True)
class JobSize:
    """An adapter's training.

    Attributes:
        trainable: parameters.
        modules: adapted matrices of a layer.
        pass_tokens: mean number of tokens that its loop asks for at once.
        pack_tokens: the most tokens of one of its packs.
        group_tokens: the most tokens that its loop asks for at once.
        passes: that its loop asks for; only their ratios between jobs count.
    """

    trainable: int
    modules: int
    pass_tokens: float
    pack_tokens: int
    group_tokens: int
    passes: float = 1.0


@dataclass(frozen=True)
class Machine:
    """Attributes: cores in use, 10^9 operations a second of all of them, and bytes that training may use."""

    cores: int
    gflops: float
    limit: float


@dataclass(frozen=True)
class Together:
    """How adapters are trained.

    Attributes:
        at_once: how many; 1: one after another, whatever `way` is.
        way: in one batch, or each on some of the cores.
        most_tokens: of a pass of a batch.
        speedup: predicted, against one after another.
        bytes: estimated peak.
    """

    at_once: int
    way: Way
    most_tokens: int
    speedup: float
    bytes: int


def choose_together(size: TrainingSize, memory: MemoryWay, jobs: Sequence[JobSize], machine: Machine) -> Together:
    """The fastest way that fits in memory; of nearly equal ones, that with the fewest adapters at a time.

    Args:
        size: of one of them; `trainable` is not used.
        jobs: at least one.
    """
    found = [
        one
        for one in _candidates(size, memory, jobs, machine)
        if one.bytes <= machine.limit and one.speedup >= _WORTH_IT
    ]
    if not found:
        largest = max(one.pack_tokens for one in jobs)
        return Together(1, "batch", largest, 1.0, _bytes(size, memory, jobs, 1, largest))
    enough = _NEARLY * max(one.speedup for one in found)
    return min((one for one in found if one.speedup >= enough), key=lambda one: (one.at_once, -one.speedup))


def _candidates(size: TrainingSize, memory: MemoryWay, jobs: Sequence[JobSize], machine: Machine) -> Iterator[Together]:
    geometry = size.sizes
    assert isinstance(geometry, Geometry)
    work = (4 if memory == "keep" else 6) * geometry.linear_parameters
    layers = _PASS_S * geometry.layers
    if memory == "stream":
        layers += 2 * geometry.linear_parameters / (_DEQUANTIZED * machine.cores)
    products = [one.passes * work * one.pass_tokens / (machine.gflops * 1e9 * _PEAK) for one in jobs]
    adapters = [one.passes * _MODULE_S * geometry.layers * one.modules for one in jobs]
    shared = [one.passes * layers for one in jobs]
    alone = sum(products) + sum(adapters) + sum(shared)
    mean = sum(one.pass_tokens for one in jobs) / len(jobs)
    largest = max(one.pack_tokens for one in jobs)
    for count in range(2, len(jobs) + 1):
        most = max(largest, min(count * largest, round(_ROOM * count * mean)))
        batch = sum(products) + sum(adapters) + last_ends(shared, count)
        if memory != "keep":  # there a batch shares little, and was measured to take 1.2 times as long
            yield Together(count, "batch", most, alone / batch, _bytes(size, memory, jobs, count, most))
        if memory != "stream" and count <= machine.cores:
            slower = machine.cores / (machine.cores // count)
            parts = [slower * one + two + three for one, two, three in zip(products, adapters, shared, strict=True)]
            needed = _bytes(size, memory, jobs, count, count * largest)
            yield Together(count, "cores", largest, alone / last_ends(parts, count), needed)


def last_ends(seconds: Sequence[float], places: int) -> float:
    """When the last of some jobs ends, if the largest ones begin first, each at the place that is free first.

    Args:
        seconds: that each job takes at its place.
        places: at which jobs are worked on at the same time.
    """
    ends = [0.0] * places
    for one in sorted(seconds, reverse=True):
        first = ends.index(min(ends))
        ends[first] += one
    return max(ends)


def _bytes(size: TrainingSize, memory: MemoryWay, jobs: Sequence[JobSize], count: int, pack_tokens: int) -> int:
    """With so many of the jobs at a time, the largest ones, and so many tokens for which activations are kept."""
    trainable = sum(sorted((one.trainable for one in jobs), reverse=True)[:count])
    group = sum(sorted((max(one.group_tokens, one.pack_tokens) for one in jobs), reverse=True)[:count])
    return training_bytes(replace(size, trainable=trainable), memory, pack_tokens, group)
