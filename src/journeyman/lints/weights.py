"""Types and sizes of numbers: of the computation, and of the files that are trained on and served."""

from __future__ import annotations

from collections.abc import Iterator

from journeyman.lints.contracts import Found
from journeyman.lints.facts import Facts
from journeyman.reasons.lints import Bfloat16Emulated, CoarserThanServed, Float32WithoutNeed

_CLEARLY = 1.15
"""A file's bits per weight count as more from this factor on: formats keep some tensors finer than others."""


def precision(facts: Facts) -> Iterator[Found]:
    """float32 where the device has bfloat16, and the reverse, if the user chose it."""
    machine, recipe = facts.machine, facts.recipe
    if machine is None or not recipe.precision_asked:
        return
    if recipe.precision == "float32" and machine.fast_bfloat16:
        yield Found(Float32WithoutNeed(machine.device))
    elif recipe.precision == "bfloat16" and not machine.fast_bfloat16:
        yield Found(Bfloat16Emulated(machine.device))


def quantization(facts: Facts) -> Iterator[Found]:
    """Training on a coarser file than the finest that may ship."""
    file = facts.base.file
    finest = max(facts.served, key=lambda one: one.bits, default=None)
    if file is not None and finest is not None and finest.bits > file.bits * _CLEARLY:
        yield Found(CoarserThanServed(file.name, file.bits, finest.name, finest.bits))
