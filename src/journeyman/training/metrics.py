"""What a run tells of itself while it trains: metrics.jsonl, and TensorBoard's events where it is installed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

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


def _step_of(line: str) -> int | None:
    """The step of a line of the log; None where a kill or a hand has damaged it."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return step if isinstance(step, int) else None


class Metrics:
    """Appends to both logs of one run folder, from `step` on: lines of later steps, which a kill lost, are dropped."""

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / LOG_NAME
        self._drop_after(step)
        self._events: Any = None
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(folder / _EVENTS), purge_step=step + 1 if step else None, flush_secs=10)

    def write(self, step: int, **values: float) -> None:
        """One line; `step` counts finished optimizer steps."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self._events is not None:
            for name, curve in _CURVES.items():
                if name in values:
                    self._events.add_scalar(curve, values[name], step)

    def close(self) -> None:
        if self._events is not None:
            self._events.close()

    def _drop_after(self, step: int) -> None:
        if self._path.is_file():
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
            kept = [line for line in lines if (found := _step_of(line)) is not None and found <= step]
            self._path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
