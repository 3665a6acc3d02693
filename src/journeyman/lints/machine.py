"""The machine: threads, other processes, and room on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from journeyman.lints.contracts import Found
from journeyman.lints.facts import Facts
from journeyman.reasons.machine import (
    BusyProcessors,
    ContendedProcessors,
    DiskNearlyFull,
    DiskTooSmall,
    MoreThreadsThanCores,
)
from journeyman.reasons.planning import (
    ComputedPeakDoesNotFit,
    MeasuredPeakDoesNotFit,
    ServingDoesNotFit,
    TrainingDoesNotFit,
)

_BUSY_SHARE = 0.15
_LEFT_SHARE = 0.1
_WAITING, _STOLEN, _SPREAD = 0.3, 0.05, 0.1
_ESTIMATE_MAY_BE_HIGH = 1.05
"""The memory of serving is measured for the decision; here it is estimated."""


def threads(facts: Facts) -> Iterator[Found]:
    """More threads than this process may use cores."""
    if facts.machine is not None:
        for key, count in facts.machine.threads.items():
            if count > facts.machine.cores:
                yield Found(MoreThreadsThanCores(key, count, facts.machine.cores))


def busy(facts: Facts) -> Iterator[Found]:
    """Other processes that use the cores."""
    machine = facts.machine
    if machine is not None and machine.busy > _BUSY_SHARE * machine.cores:
        yield Found(BusyProcessors(machine.busy, machine.cores))


def memory(facts: Facts) -> Iterator[Found]:
    """Errors if training does not fit in memory, or if no file can be served below the limit of the decision.

    The steps that were tried prevail over the computed peak: what they needed above the limit is an error.
    """
    memory = facts.memory
    if memory is None:
        return
    settings = memory.settings.get("training", "")
    if isinstance(memory.misfit, TrainingDoesNotFit):
        yield Found(replace(memory.misfit, settings=settings), is_error=True)
    if memory.measured_gb is not None and max(memory.measured_gb, memory.peak_gb) > memory.limit_gb:
        yield Found(
            MeasuredPeakDoesNotFit(memory.measured_gb, memory.peak_gb, memory.limit_gb, settings),
            is_error=memory.measured_gb > memory.limit_gb,
        )
    elif memory.misfit is None and memory.trial is None and memory.peak_gb > memory.limit_gb:
        yield Found(ComputedPeakDoesNotFit(memory.peak_gb, memory.limit_gb))
    if memory.trial is not None:
        yield Found(replace(memory.trial, settings=settings), is_error=memory.trial.certain)
    if memory.serve_gb is not None and memory.serve_gb > memory.serve_limit_gb:
        yield Found(
            ServingDoesNotFit(
                memory.served, memory.serve_gb, memory.serve_limit_gb, memory.context, memory.parallel,
                memory.settings.get("serving", ""),
            ),
            is_error=memory.serve_gb > _ESTIMATE_MAY_BE_HIGH * memory.serve_limit_gb,
        )  # fmt: skip


def contended(facts: Facts) -> Iterator[Found]:
    """Other work that got in the way while steps were tried."""
    machine = facts.machine
    if machine is None:
        return
    found = ((machine.waiting, _WAITING), (machine.stolen, _STOLEN), (machine.spread, _SPREAD))
    if any(value is not None and value > most for value, most in found):
        yield Found(ContendedProcessors(machine.waiting, machine.stolen, machine.spread))


def disk(facts: Facts) -> Iterator[Found]:
    """An error if what the run writes does not fit."""
    disk = facts.disk
    if disk is None:
        return
    needed, free = disk.needed, disk.free
    if needed > free:
        yield Found(DiskTooSmall(disk.place, needed / 1e9, free / 1e9, (needed - free) / 1e9), is_error=True)
    elif free - needed < _LEFT_SHARE * free:
        yield Found(DiskNearlyFull(disk.place, needed / 1e9, free / 1e9))
