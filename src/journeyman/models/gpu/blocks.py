"""Frozen matrices that stay in GGUF's blocks in the device's memory, and are dequantized just before a product.

Letters: O outputs, I inputs of a matrix, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from journeyman.models.gpu import block_formats

_ROWS = 128
"""Pieces of a matrix are multiples of this many rows, so that products with them are aligned in memory."""


@dataclass(frozen=True, eq=False)
class BlockRows:
    """Rows of a matrix in the same format.

    Attributes:
        raw: the blocks (O, bytes), uint8.
        kind: the name of their format in block_formats.FORMATS.
    """

    raw: Tensor
    kind: str

    @property
    def shape(self) -> tuple[int, int]:
        one = block_formats.FORMATS[self.kind]
        return len(self.raw), self.raw.shape[1] // one.size * one.values


Rows = Tensor | BlockRows
"""Rows of a matrix, as numbers of the compute type or in blocks."""


class Scratch:
    """Memory for one dequantized matrix, or for as many of its rows as fit. Several matrices use it in turn.

    What it holds last is not dequantized again: the packs of a layer follow one another, and so do the recomputation of
    a layer and its backward pass. Nothing may keep what it gives, because the next matrix replaces it; on a GPU, work
    that was launched before is not affected.

    Args:
        most: the largest size, in elements; larger matrices are used in pieces. None: the largest matrix fits.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device, most: int | None = None) -> None:
        self.dtype, self.device, self._most = dtype, device, most
        self.elements = 0
        self._memory: Tensor | None = None
        self._held: tuple[Blocks, int, int] | None = None

    def reserve(self, rows: int, columns: int) -> None:
        """Announces a matrix. Memory is taken by `allocate`, after all matrices are known, or at the first use."""
        self.elements = max(self.elements, self.rows_at_a_time(rows, columns) * columns)

    def rows_at_a_time(self, rows: int, columns: int) -> int:
        """How many rows of such a matrix are dequantized at a time."""
        return rows if self._most is None else min(rows, max(_ROWS, self._most // columns // _ROWS * _ROWS))

    def allocate(self) -> None:
        self._memory, self._held = torch.empty(self.elements, dtype=self.dtype, device=self.device), None

    def hold(self, matrix: Blocks, start: int, stop: int) -> Tensor:
        """These rows of the matrix, dequantized."""
        rows, columns = stop - start, matrix.shape[1]
        if self._memory is None or self._memory.numel() < self.elements:
            self.allocate()
        assert self._memory is not None
        out = self._memory[: rows * columns].view(rows, columns)
        if self._held is None or self._held[0] is not matrix or self._held[1:] != (start, stop):
            self._held = None  # if this is interrupted, the memory holds nothing
            matrix.write(start, stop, out)
            self._held = matrix, start, stop
        return out


class Blocks:
    """A frozen matrix in blocks.

    Args:
        parts: its rows, in order; several if matrices of different formats were put together.
        scratch: where it is dequantized.
    """

    def __init__(self, parts: Sequence[Rows], scratch: Scratch) -> None:
        self.parts, self._scratch = tuple(parts), scratch
        self.shape = sum(part.shape[0] for part in parts), parts[0].shape[1]
        assert all(part.shape[1] == self.shape[1] for part in parts)
        scratch.reserve(*self.shape)

    def pieces(self) -> Iterator[tuple[slice, Tensor]]:
        """The matrix in pieces of consecutive rows, usually one: which rows, and their values.

        Use a piece before taking the next one.
        """
        step = self._scratch.rows_at_a_time(*self.shape)
        for start in range(0, self.shape[0], step):
            stop = min(start + step, self.shape[0])
            yield slice(start, stop), self._scratch.hold(self, start, stop)

    def write(self, start: int, stop: int, out: Tensor) -> None:
        """Writes the values of some rows to `out` (rows, I)."""
        before = 0
        for part in self.parts:
            low, high = max(start - before, 0), min(stop - before, part.shape[0])
            if low < high:
                _write(part, slice(low, high), out[before + low - start : before + high - start])
            before += part.shape[0]

    def whole(self) -> Tensor:
        """All values (O, I), in memory of their own."""
        out = torch.empty(self.shape, dtype=self._scratch.dtype, device=self._scratch.device)
        self.write(0, self.shape[0], out)
        return out

    def look_up(self, ids_T: Tensor) -> Tensor:
        """The rows with these numbers (T, I), of a matrix with one part; only they are dequantized."""
        (part,) = self.parts
        assert isinstance(part, BlockRows)
        out = torch.empty(len(ids_T), self.shape[1], dtype=self._scratch.dtype, device=self._scratch.device)
        _write(BlockRows(part.raw[ids_T], part.kind), slice(None), out)
        return out


def _write(part: Rows, rows: slice, out: Tensor) -> None:
    if isinstance(part, Tensor):
        out.copy_(part[rows])
    elif part.raw.is_cuda:
        from journeyman.models.gpu import block_kernels

        block_kernels.dequantize(part.raw[rows], part.kind, out)
    else:
        block_formats.dequantize(part.raw[rows], part.kind, out)
