"""The full training state on disk: safetensors and JSON, whole or absent.

A checkpoint is written into a hidden folder, synced, and renamed; its manifest carries the hash of the
tensors. The reader takes the newest one that verifies.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file
from torch import Tensor

from journeyman.artifacts import (
    disk_error,
    read_model,
    remove_leftovers,
    remove_quietly,
    sha256_of,
    sync,
    write_model,
)
from journeyman.errors import InputError
from journeyman.manifests import ValidationPoint
from journeyman.training.tensors import save_tensors

_KEEP = 2
_TENSORS = "state.safetensors"


class TrainingState(BaseModel):
    """Everything but the tensors: with it a resumed run repeats the uninterrupted one bit for bit."""

    model_config = ConfigDict(extra="forbid")

    fingerprint: str
    step: int = 0
    tokens: int = 0
    train_s: float = 0.0
    packs_done: int = 0  # of the step at hand, whose gradients lie beside the adapter
    step_loss: float = 0.0
    step_s: float = 0.0
    losses: list[float] = []  # of the first and the last few steps
    validations: list[ValidationPoint] = []
    validated_step: int = -1
    best_step: int = 0
    gain_step: int = 0
    gain_loss: float | None = None
    finished: bool = False
    tensors_sha256: str = ""


def save_checkpoint(folder: Path, state: TrainingState, tensors: dict[str, Tensor]) -> None:
    """Saves state and tensors as `folder/step-N.M`, the M-th of step N. No checkpoint is ever written over.

    Raises:
        InputError: the disk is full; the last good checkpoint stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder, below=False)  # what a kill left of an earlier one
    staged = folder / f".tmp-{state.step}-{os.getpid()}"
    before = [serial for step, serial in map(_numbers, _newest_first(folder)) if step == state.step]
    target = folder / f"step-{state.step:06d}.{max(before, default=0) + 1}"
    try:
        staged.mkdir()
        save_tensors(tensors, staged / _TENSORS)
        digest = sha256_of(staged / _TENSORS)
        write_model(staged / "state.json", state.model_copy(update={"tensors_sha256": digest}))
        staged.rename(target)
        sync(folder)
    except OSError as error:
        remove_quietly(staged)
        raise disk_error(error, folder) from error
    except BaseException:
        remove_quietly(staged)
        raise
    for old in _newest_first(folder)[_KEEP:]:
        shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: Path) -> tuple[TrainingState, dict[str, Tensor]] | None:
    """The newest checkpoint whose hash verifies, or None."""
    for candidate in _newest_first(folder):
        try:
            state = read_model(candidate / "state.json", TrainingState)
            if sha256_of(candidate / _TENSORS) == state.tensors_sha256:
                return state, load_file(candidate / _TENSORS)
        except (InputError, OSError):
            continue
    return None


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.*"), key=_numbers, reverse=True)


def _numbers(checkpoint: Path) -> tuple[int, int]:
    step, serial = checkpoint.name.removeprefix("step-").split(".")
    return int(step), int(serial)
