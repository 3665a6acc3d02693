"""Writes tensors to a safetensors file; errors of the disk are raised as OSError, as everywhere else."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from journeyman.artifacts import sync

_CODE = re.compile(r"(?:code: |os error )(\d+)")


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes and syncs the file.

    Raises:
        OSError: the disk is full or the folder cannot be written to.
    """
    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:  # the library reports the system's error only as text
        found = _CODE.search(str(error))
        code = int(found[1]) if found else errno.EIO
        raise OSError(code, os.strerror(code), str(path)) from error
    sync(path)
