"""How much memory this process may still use: what is free on the machine, or left of a container's limit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from journeyman.control_groups import GROUPS, OWN, folders

_NO_LIMIT = 1 << 60
"""Version 1 of control groups writes a number near 2^63 if there is no limit."""


@dataclass(frozen=True)
class FreeMemory:
    """Bytes.

    Attributes:
        bytes: that this process may still use, without swap.
        total: of the machine.
        of_machine: that are free on the machine: files that are cached and can be dropped count as free.
        limit: of the control group that leaves least, if it has a limit; None: there is none.
        used: by the processes of that group.
    """

    bytes: int
    total: int
    of_machine: int
    limit: int | None = None
    used: int | None = None


@dataclass(frozen=True)
class _Group:
    limit: int
    used: int

    @property
    def left(self) -> int:
        return max(0, self.limit - self.used)


def free_memory(groups: Path = GROUPS, own: Path = OWN) -> FreeMemory:
    """What is free now.

    Args:
        groups: where control groups are mounted, version 2 or 1.
        own: the file that names the groups of this process.
    """
    machine = psutil.virtual_memory()
    least = min(_limits(groups, own), key=lambda one: one.left, default=None)
    if least is None or least.limit >= machine.total:
        return FreeMemory(machine.available, machine.total, machine.available)
    return FreeMemory(min(machine.available, least.left), machine.total, machine.available, least.limit, least.used)


def _limits(groups: Path, own: Path) -> Iterator[_Group]:
    """The limits of this process's group and of all groups around it."""
    for folder, version in folders("memory", groups, own):
        files = _FILES[version]
        limit = min((found for name in files.limits if (found := _number(folder / name)) is not None), default=None)
        used = _number(folder / files.used)
        if limit is not None and used is not None and limit < _NO_LIMIT:
            yield _Group(limit, max(0, used - _cached(folder / "memory.stat", files.cached)))


@dataclass(frozen=True)
class _Files:
    limits: tuple[str, ...]
    used: str
    cached: str


_FILES = {
    2: _Files(("memory.max", "memory.high"), "memory.current", "inactive_file"),
    1: _Files(("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
}


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max": no limit
        return None


def _cached(stat: Path, name: str) -> int:
    try:
        values = dict(line.split() for line in stat.read_text().splitlines())
        return int(values.get(name, 0))
    except (OSError, ValueError):
        return 0
