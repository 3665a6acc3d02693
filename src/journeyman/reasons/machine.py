"""Reasons of the plan's lints about the machine: processor cores, other processes, room on the disk."""

from __future__ import annotations

from dataclasses import dataclass

from journeyman.reasons.base import Reason


@dataclass(frozen=True)
class MoreThreadsThanCores(Reason, code="more_threads_than_cores"):
    says = "{key} = {threads}, but this process may use {cores} cores: threads that wait for each other cost much time"
    fix = "Set {key} = {cores}, or leave it unset"
    key: str
    threads: int
    cores: int


@dataclass(frozen=True)
class BusyProcessors(Reason, code="busy_processors"):
    says = (
        "other processes use {busy:.1f} of {cores} cores now: training takes longer than it would alone, and so do "
        "answers that are timed"
    )
    fix = "Stop them, or wait; `top` lists them"
    busy: float
    cores: int


@dataclass(frozen=True)
class ContendedProcessors(Reason, code="contended_processors"):
    """Shares, while steps were tried: of the time in which some task waited for a core, of processor time that the host
    took, and the relative deviation of repetitions; None: not known."""

    fix = "Plan again when the machine is quiet: journeyman plan --redo"
    waiting: float | None
    stolen: float | None
    spread: float | None

    def sentence(self) -> str:
        known = [
            f"a task waited for a core {self.waiting:.0%} of the time" if self.waiting is not None else "",
            f"the host took {self.stolen:.0%} of the processors" if self.stolen is not None else "",
            f"repetitions of the same step differ by {self.spread:.0%}" if self.spread is not None else "",
        ]
        return (
            f"the machine was busy while steps were tried: {', '.join(one for one in known if one)}; the predicted "
            "times have a wide interval"
        )


@dataclass(frozen=True)
class DiskTooSmall(Reason, code="disk_too_small"):
    """Gigabytes (10^9 bytes)."""

    says = "the run writes up to {needed_gb:.1f} GB to {place}, where {free_gb:.1f} GB are free"
    fix = "Free {missing_gb:.1f} GB there, or move the run's folder to a larger disk"
    place: str
    needed_gb: float
    free_gb: float
    missing_gb: float


@dataclass(frozen=True)
class DiskNearlyFull(Reason, code="disk_nearly_full"):
    """Gigabytes (10^9 bytes)."""

    says = (
        "the run writes up to {needed_gb:.1f} GB to {place}, and leaves less than a tenth of its {free_gb:.1f} free GB"
    )
    fix = "Make room before it starts: training stops if the disk is full, and resumes"
    place: str
    needed_gb: float
    free_gb: float
