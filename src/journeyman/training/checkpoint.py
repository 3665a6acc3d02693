"""The full training state on disk: safetensors and JSON, complete or absent.

A checkpoint is written to a hidden folder, synced and renamed; its state.json contains the hash of the tensors and
its own. The reader takes the newest checkpoint that verifies.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from journeyman.artifacts import (
    disk_error,
    read_model,
    remove_leftovers,
    remove_quietly,
    sha256_of,
    sync,
    write_atomic,
)
from journeyman.errors import InputError
from journeyman.manifests import ValidationPoint
from journeyman.training.tensors import save_tensors

FILES = ("state.json", "state.safetensors")
_KEEP = 2
_NAME = re.compile(r"step-(\d{1,18})\.(\d{1,18})", re.ASCII)
_TENSORS = "state.safetensors"


class TrainingState(BaseModel):
    """Everything except the tensors. With it, a resumed run is bit-identical to an uninterrupted one."""

    model_config = ConfigDict(extra="forbid")

    fingerprint: str
    engine: str = ""  # its identity; "" in versions up to 0.5.0
    step: int = 0
    tokens: int = 0
    train_s: float = 0.0
    packs_done: int = 0  # of the current step, whose gradients are saved with the adapter
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
    state_sha256: str = ""  # of everything else here; "" in versions up to 0.4.0


def save_checkpoint(folder: Path, state: TrainingState, tensors: dict[str, Tensor]) -> None:
    """Saves state and tensors as `folder/step-N.M`, the M-th of step N. No checkpoint is ever overwritten.

    Raises:
        DiskError: the disk is full; the last good checkpoint remains.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder, below=False)  # left by a process that was killed while saving
    staged = folder / f".tmp-{state.step}-{os.getpid()}"
    before = [serial for step, serial in map(_numbers, checkpoints(folder)) if step == state.step]
    target = folder / f"step-{state.step:06d}.{max(before, default=0) + 1}"
    try:
        staged.mkdir()
        save_tensors(tensors, staged / _TENSORS)
        digest = sha256_of(staged / _TENSORS)
        write_atomic(staged / "state.json", _sealed(state.model_copy(update={"tensors_sha256": digest})))
        staged.rename(target)
        sync(folder)
    except OSError as error:
        remove_quietly(staged)
        raise disk_error(error, folder) from error
    except BaseException:
        remove_quietly(staged)
        raise
    for old in checkpoints(folder)[_KEEP:]:
        shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: Path) -> tuple[TrainingState, dict[str, Tensor]] | None:
    """The newest checkpoint whose hashes verify, or None."""
    for candidate in checkpoints(folder):
        try:
            if not damaged_files(candidate):
                state = read_model(candidate / "state.json", TrainingState)
                return state, load_file(candidate / _TENSORS)
        except (InputError, OSError, SafetensorError):
            continue
    return None


def damaged_files(checkpoint: Path) -> list[Path]:
    """The files of a checkpoint that have changed since they were written; the state file if it cannot be read."""
    state_file, tensors = (checkpoint / name for name in FILES)
    try:
        state, written = read_model(state_file, TrainingState), state_file.read_bytes()
    except (InputError, OSError):
        return [state_file]
    if state.state_sha256 and _own_hash(written.replace(state.state_sha256.encode(), b"")) != state.state_sha256:
        return [state_file]
    return [] if tensors.is_file() and sha256_of(tensors) == state.tensors_sha256 else [tensors]


def holds_own_hash(checkpoint: Path) -> bool:
    """Whether the state file contains its own hash, which versions up to 0.4.0 did not write."""
    written = (checkpoint / FILES[0]).read_bytes()
    return b'"state_sha256"' in written and b'"state_sha256": ""' not in written


def _sealed(state: TrainingState) -> bytes:
    """The content of the state file; its own hash is that of the bytes with an empty string in place of the hash."""
    blank = f"{state.model_copy(update={'state_sha256': ''}).model_dump_json(indent=2)}\n".encode()
    return blank.replace(b'"state_sha256": ""', f'"state_sha256": "{_own_hash(blank)}"'.encode())


def _own_hash(written: bytes) -> str:
    return hashlib.sha256(written).hexdigest()


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest first; other files are ignored."""
    found = [path for path in folder.glob("step-*") if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(found, key=_numbers, reverse=True)


def _numbers(checkpoint: Path) -> tuple[int, int]:
    match = _NAME.fullmatch(checkpoint.name)
    assert match
    return int(match[1]), int(match[2])
