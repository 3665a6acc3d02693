"""The full training state on disk: safetensors and JSON, whole or absent.

A checkpoint is written into a hidden folder, synced, and renamed; its manifest carries the hash of the
tensors. The reader takes the newest one that verifies.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save_file
from torch import Tensor

from journeyman.artifacts import disk_error, read_model, sha256_of, write_model
from journeyman.errors import InputError
from journeyman.manifests import ValidationPoint

_KEEP = 2


class TrainingState(BaseModel):
    """Everything but the tensors: with it a resumed run repeats the uninterrupted one bit for bit."""

    model_config = ConfigDict(extra="forbid")

    fingerprint: str
    step: int
    tokens: int
    train_s: float
    validations: list[ValidationPoint]
    best_step: int
    finished: bool
    tensors_sha256: str = ""


def save_checkpoint(folder: Path, state: TrainingState, tensors: dict[str, Tensor]) -> None:
    """Saves state and tensors as `folder/step-N`.

    Raises:
        InputError: the disk is full; the last good checkpoint stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    staged = folder / f".tmp-{state.step}-{os.getpid()}"
    target = folder / f"step-{state.step:06d}"
    try:
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir()
        save_file(tensors, staged / "state.safetensors")
        _sync(staged / "state.safetensors")
        digest = sha256_of(staged / "state.safetensors")
        write_model(staged / "state.json", state.model_copy(update={"tensors_sha256": digest}))
        if target.exists():
            shutil.rmtree(target)
        staged.rename(target)
        _sync(folder)
    except OSError as error:
        shutil.rmtree(staged, ignore_errors=True)
        raise disk_error(error, folder) from error
    for old in _newest_first(folder)[_KEEP:]:
        shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: Path) -> tuple[TrainingState, dict[str, Tensor]] | None:
    """The newest checkpoint whose hash verifies, or None."""
    for candidate in _newest_first(folder):
        try:
            state = read_model(candidate / "state.json", TrainingState)
            if sha256_of(candidate / "state.safetensors") == state.tensors_sha256:
                return state, load_file(candidate / "state.safetensors")
        except (InputError, OSError):
            continue
    return None


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
