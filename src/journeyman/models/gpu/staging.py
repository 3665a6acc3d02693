"""Copies bytes of files to a device."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from journeyman.errors import InputError

_PIECE = 32 << 20
"""Bytes that are read at a time; two buffers of this size are pinned for a GPU."""
_READERS = min(4, os.cpu_count() or 1)


class Staging:
    """Reads files with several threads into pinned buffers, of which one is copied to the device while the other fills.

    Args:
        device: for a CPU, there are no buffers: files are read where they belong.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers: list[tuple[Tensor, torch.cuda.Event]] = []
        while device.type == "cuda" and len(self._buffers) < 2:
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._buffers.append((torch.empty(_PIECE, dtype=torch.uint8, pin_memory=True), event))
        self._pool = ThreadPoolExecutor(_READERS, thread_name_prefix="stage")

    def __enter__(self) -> Staging:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Waits until everything is on the device."""
        self._pool.shutdown()
        for _, free in self._buffers:
            free.synchronize()

    def read(self, path: Path, offset: int, out: Tensor) -> None:
        """Fills a contiguous tensor of bytes on the device with those of a file from `offset` on.

        Raises:
            InputError: the file ends before that.
        """
        for piece in torch.split(out.view(-1), _PIECE):
            if self._buffers:
                buffer, free = self._buffers.pop(0)
                free.synchronize()  # the copy from this buffer may still be running
                self._fill(path, offset, buffer[: len(piece)])
                piece.copy_(buffer[: len(piece)], non_blocking=True)
                free.record(torch.cuda.current_stream(self._device))
                self._buffers.append((buffer, free))
            else:
                self._fill(path, offset, piece)
            offset += len(piece)

    def _fill(self, path: Path, offset: int, out: Tensor) -> None:
        parts = torch.split(out, -(-len(out) // _READERS))
        starts = [offset + part.storage_offset() - out.storage_offset() for part in parts]
        list(self._pool.map(lambda part, start: _read(path, start, part), parts, starts))


def _read(path: Path, offset: int, out: Tensor) -> None:
    view = memoryview(out.numpy().data)
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        while view:
            if not (found := file.readinto(view)):
                raise InputError(f"{path}: truncated while being read, at byte {file.tell()}", "Copy the file again")
            view = view[found:]
