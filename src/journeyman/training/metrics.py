"""Metrics of a training run: metrics.jsonl, and TensorBoard events if TensorBoard is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from journeyman.artifacts import disk_error, write_atomic

LOG_NAME = "metrics.jsonl"
_EVENTS = "tensorboard"
# metrics.jsonl → the name of the curve
_CURVES = {
    "loss": "loss/train",
    "validation_loss": "loss/validation",
    "learning_rate": "learning_rate",
    "gradient_norm": "gradient_norm",
    "tokens_per_s": "speed/tokens_per_s",
    "matrix_share": "speed/share_of_the_matrix_rate",
    "memory_gb": "memory_gb",
}


class Metrics:
    """Appends to both logs in a folder. After a resume, lines later than the checkpoint are removed first.

    Args:
        step: the number of steps in the checkpoint.
        validated_step: the last step whose validation is in the checkpoint.
    """

    def __init__(self, folder: Path, step: int, validated_step: int) -> None:
        self._path = folder / LOG_NAME
        _cut_after(self._path, step, validated_step)
        self._events: Any = None
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            _keep_event_threads_quiet()
            with suppress(OSError):
                self._events = SummaryWriter(
                    str(folder / _EVENTS), purge_step=step + 1 if step else None, flush_secs=10
                )

    def write(self, step: int, **values: float) -> None:
        """Writes one line; `step` counts finished optimizer steps.

        Raises:
            DiskError: the disk is full. If only TensorBoard's events cannot be written, no more are.
        """
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        except OSError as error:
            raise disk_error(error, self._path) from error
        try:
            for name in _CURVES.keys() & values.keys() if self._events is not None else ():
                self._events.add_scalar(_CURVES[name], values[name], step)
        except OSError:
            self._events = None

    def close(self) -> None:
        if self._events is not None:
            with suppress(OSError):
                self._events.close()


def _cut_after(path: Path, step: int, validated_step: int) -> None:
    """Removes lines that are later than the checkpoint, and damaged ones.

    Usually they are at the end, and the file is truncated in place, so that a full disk or a kill cannot lose earlier
    lines.
    """
    if not path.is_file():
        return
    data = path.read_bytes()
    kept = b"".join(line for line in data.splitlines(keepends=True) if _is_known(line, step, validated_step))
    if data.startswith(kept):
        os.truncate(path, len(kept))
    else:
        write_atomic(path, kept)


def _is_known(line: bytes, step: int, validated_step: int) -> bool:
    try:
        values = json.loads(line)
        last = validated_step if "validation_loss" in values else step
        return line.endswith(b"\n") and isinstance(values["step"], int) and values["step"] <= last
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _keep_event_threads_quiet() -> None:
    """Silences TensorBoard's writer thread, which would print a traceback if it fails on a full disk."""
    before = threading.excepthook

    def hook(failed: threading.ExceptHookArgs) -> None:
        if not type(failed.thread).__module__.startswith("tensorboard"):
            before(failed)

    threading.excepthook = hook
