"""Tensors to a safetensors file; what the disk refuses is an InputError, as everywhere."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from journeyman.artifacts import disk_error, sync

_CODE = re.compile(r"code: (\d+)")


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes and syncs the file.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    try:
        save_file(tensors, path, metadata=metadata)
        sync(path)
    except OSError as error:
        raise disk_error(error, path) from error
    except SafetensorError as error:  # the library has no other word for what the system said
        found = _CODE.search(str(error))
        code = int(found[1]) if found else errno.EIO
        raise disk_error(OSError(code, str(error)), path) from error
