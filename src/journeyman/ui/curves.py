"""The curves of a training run, read as its file grows, and thinned for a chart.

Of 100,000 points, a chart of 1,000 pixels shows few. Of each part of equal length, the points with the least and the
greatest value are kept, so that no peak is lost and every point that is shown is one of the file.
"""

from __future__ import annotations

import json
import math
import os
import threading
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from journeyman.ui.files import lines_of, opened

SERIES = ("loss", "validation_loss", "learning_rate", "gradient_norm", "tokens_per_s")
MOST_PARTS = 2000
_REMEMBERED = 256


class Series:
    """One curve: steps and values, in the order of the steps. Values that are not finite are counted, not kept."""

    def __init__(self) -> None:
        self.steps, self.values = array("q"), array("d")
        self.not_finite: list[int] = []

    def add(self, step: int, value: float) -> None:
        if math.isfinite(value):
            self.steps.append(step)
            self.values.append(value)
        else:
            self.not_finite.append(step)

    def part(self, first: float, last: float, parts: int) -> dict[str, Any]:
        """The points with first <= step <= last, thinned to twice `parts`; with the nearest point on both sides."""
        steps, values = np.frombuffer(self.steps, np.int64), np.frombuffer(self.values, np.float64)
        begin = max(0, int(np.searchsorted(steps, first, "left")) - 1)
        end = min(len(steps), int(np.searchsorted(steps, last, "right")) + 1)
        chosen = begin + thinned(values[begin:end], parts)
        return {
            "steps": steps[chosen].tolist(), "values": values[chosen].tolist(), "points": end - begin,
            "total": len(steps), "last": values[-1].item() if len(values) else None,
            "first": int(steps[0]) if len(steps) else None,
            "final": int(steps[-1]) if len(steps) else None,
            "least": values.min().item() if len(values) else None,
            "least_at": int(steps[values.argmin()]) if len(values) else None,
            "not_finite": len(self.not_finite), "not_finite_at": self.not_finite[:20],
        }  # fmt: skip


def thinned(values: npt.NDArray[np.float64], parts: int) -> npt.NDArray[np.int64]:
    """The places of the least and the greatest value of each part, and both ends; all if there are few."""
    count = len(values)
    if count <= 2 * parts:
        return np.arange(count)
    edges = np.linspace(0, count, parts + 1).astype(np.int64)
    chosen = {0, count - 1}
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        part = values[begin:end]
        chosen |= {begin + int(part.argmin()), begin + int(part.argmax())}
    return np.array(sorted(chosen), np.int64)


class Curves:
    """The curves in one metrics.jsonl.

    A run that resumes cuts its file back and goes on, so lines that were read may have been replaced: the end of what
    was read is compared before more is read. Two requests never read and look at the series at the same time: arrays
    cannot grow while numpy looks at them.
    """

    def __init__(self, root: Path, parts: Sequence[str]) -> None:
        self._root, self._parts = root, tuple(parts)
        self._lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self.series = {name: Series() for name in SERIES}
        self.skipped = 0
        self._offset, self._tail, self._inode = 0, b"", -1

    def part(self, first: float, last: float, parts: int) -> dict[str, Any]:
        """Reads what was appended, and gives each curve that has points as Series.part does; raises as `read` does."""
        with self._lock:
            self._read()
            shown = {name: one for name, one in self.series.items() if one.steps or one.not_finite}
            return {
                "series": {name: one.part(first, last, parts) for name, one in shown.items()},
                "skipped": self.skipped, "last_step": self.last_step(),
            }  # fmt: skip

    def read(self) -> None:
        """Reads what was appended; raises as files.opened does."""
        with self._lock:
            self._read()

    def _read(self) -> None:
        with opened(self._root, *self._parts) as file:
            inode = os.fstat(file.fileno()).st_ino
            file.seek(max(0, self._offset - len(self._tail)))
            if inode != self._inode or file.read(len(self._tail)) != self._tail:
                self._begin()
                self._inode = inode
            for offset, line in lines_of(file, self._offset):
                self._add(line)
                self._offset = offset + len(line)
                self._tail = line[-_REMEMBERED:]

    def _add(self, line: bytes) -> None:
        try:
            found = json.loads(line)
            step = int(found["step"])
            points = [(series, float(found[name])) for name, series in self.series.items() if name in found]
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
            self.skipped += 1
            return
        for series, value in points:
            if series.steps and step < series.steps[-1]:
                self.skipped += 1
            else:
                series.add(step, value)

    def last_step(self) -> int | None:
        return max((one.steps[-1] for one in self.series.values() if one.steps), default=None)
