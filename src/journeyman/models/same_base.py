"""Proves that two files hold the same base: one that was trained, and one that is served.

Geometry, tensors and vocabulary are compared. Of every tensor, rows that are spread over it are compared by what their
formats tell about the originals (models.rounding): if both files were made from the same weights, the intervals of both
overlap everywhere, and the error does not exceed the format's. In a tuned base, numbers at the edges of their intervals
leave them. Formats that do not round to a grid (the IQ formats below 4 bits; with an importance matrix also Q4_0, Q4_1,
Q5_0 and Q5_1) are compared by their error only.

What is found: a change of all weights of a tensor by Gaussian noise of 0.03 % of their size in Q8_0 and Q6_K, 0.05 %
in Q5_K, MXFP4 and NVFP4, 0.1 % in Q4_K, Q3_K, IQ4_NL and IQ4_XS, 0.2 % in Q2_K, Q5_0, Q5_1, Q4_0 and Q4_1, and any in
F32, F16 and BF16, in which every file has its norms. Where only the error is compared: a change of 10 % to 40 %. What
is not found: a change of a few rows that are not looked at.

Chat templates are not compared: the one that was trained is passed to the engine.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from journeyman.errors import InputError
from journeyman.models.base import Base
from journeyman.models.families import gguf_name
from journeyman.models.geometry import Geometry, tensor_shapes
from journeyman.models.rounding import Intervals, Values
from journeyman.models.same_tokenizer import different_token, padded_from

REMEDY = "Use a file that was made from the weights of the base, and not from another version of it"
_NUMBERS, _ROWS = 1 << 16, 32
"""Numbers of a tensor that are compared, and the most rows."""
_STRAYS_OF_TENSOR, _STRAYS = 1e-4, 2e-5
"""The share of numbers outside that is still a coincidence, in a tensor and in all; it is 0 for the same base."""
_FEWEST_STRAYS = 3
_PLAIN = ("F32", "F16", "BF16")
ERRORS = {
    "F32": 0.0, "F16": 0.001, "BF16": 0.004, "Q8_0": 0.015, "Q6_K": 0.10, "Q5_K": 0.17, "Q5_0": 0.16, "Q5_1": 0.20,
    "Q4_K": 0.28, "Q4_0": 0.24, "Q4_1": 0.30, "IQ4_NL": 0.23, "IQ4_XS": 0.24, "MXFP4": 0.17, "NVFP4": 0.12,
    "Q3_K": 0.30, "IQ3_S": 0.40, "IQ3_XXS": 0.52, "Q2_K": 0.57, "IQ2_S": 0.66, "IQ2_XS": 0.70, "IQ2_XXS": 0.77,
    "IQ1_M": 0.87, "IQ1_S": 0.95, "F8_E4M3": 0.04, "I8": 0.03, "GPTQ 8 bits": 0.03, "packed 8 bits": 0.03,
    "GPTQ 4 bits": 0.25, "AWQ 4 bits": 0.25, "packed 4 bits": 0.25, "bitsandbytes nf4": 0.15, "bitsandbytes fp4": 0.2,
}  # fmt: skip
"""Format → the largest error, as the norm of the error over that of the weights: a tenth more than was measured on
weights with heavy tails and the strongest importance matrices."""
_IGNORED = ("tied_head", "vocab", "context", "unserved_window")
"""Of the geometry: the first two are compared by their tensors, and the others change no result."""


@dataclass(frozen=True)
class _Compared:
    """Of a tensor: how many numbers were compared by intervals, and how many lie outside."""

    name: str
    numbers: int
    strays: int


def same_base(trained: Base, served: Base) -> None:
    """Proves that `served` holds the base `trained`.

    Raises:
        InputError: it does not; names the first difference.
    """
    if trained.sha256 == served.sha256:
        return
    here, there = trained.geometry, served.geometry
    if different := different_geometry(here, there):
        raise _other(trained, served, f"different {', '.join(different)}")
    if (token := different_token(trained.tokenizer, served.tokenizer)) is not None:
        raise _other(trained, served, f"different tokenizers: {token}")
    rows = _common_rows(trained, served)
    compared = [_compare(trained, served, name, rows) for name in _names(here, there)]
    numbers, strays = sum(one.numbers for one in compared), sum(one.strays for one in compared)
    if strays > max(_FEWEST_STRAYS, _STRAYS * numbers):
        worst = max(compared, key=lambda one: one.strays / max(one.numbers, 1))
        what = f"{strays:,} of {numbers:,} weights, most of them in {worst.name}, differ by more than rounding"
        raise _other(trained, served, what)


def different_geometry(here: Geometry, there: Geometry) -> list[str]:
    """The names of what differs in the computations of two decoders."""
    return [
        one.name
        for one in fields(Geometry)
        if one.name not in _IGNORED and not _equal(getattr(here, one.name), getattr(there, one.name))
    ]


def _other(trained: Base, served: Base, what: str) -> InputError:
    return InputError(f"{served.path}: not a file of the base {trained.path.name}: {what}", REMEDY)


def _equal(one: Any, other: Any) -> bool:
    """Equal up to the rounding of numbers to single precision."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return math.isclose(one, other, rel_tol=1e-5)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    if is_dataclass(one):
        return all(_equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    return bool(one == other)


def _names(here: Geometry, there: Geometry) -> list[tuple[str, str]]:
    """The tensors to compare, as (name in the trained base, name in the served file)."""
    names = [(name, name) for name in tensor_shapes(here) if name not in ("rope_freqs.weight", "output.weight")]
    heads = ["token_embd.weight" if one.tied_head else "output.weight" for one in (here, there)]
    return names if heads[0] == heads[1] == "token_embd.weight" else [*names, (heads[0], heads[1])]


def _common_rows(trained: Base, served: Base) -> int:
    """How many tokens both have; what one has more must be padding."""
    here, there = trained.geometry.vocab, served.geometry.vocab
    longer = trained if here > there else served
    if here != there and (used := padded_from(longer.tokenizer)) > min(here, there):
        raise _other(trained, served, f"{there:,} tokens in place of {here:,}, of which {used:,} are used")
    return min(here, there)


def _compare(trained: Base, served: Base, names: tuple[str, str], tokens: int) -> _Compared:
    name, theirs = names
    shape = trained.shape(name)
    count = math.prod(shape[:-1])
    if name in ("token_embd.weight", "output.weight"):
        count = tokens
    rows = _chosen(name, count, shape)
    ours, other = _Rows(trained, name, rows), _Rows(served, theirs, rows)
    strays, are_plain = _strays(ours, other), ours.storage in _PLAIN and other.storage in _PLAIN
    if not are_plain:
        _compare_errors(trained, served, name, ours, other)
    if strays is None:
        return _Compared(name, 0, 0)
    if strays > (0 if are_plain else max(_FEWEST_STRAYS, _STRAYS_OF_TENSOR * ours.values.size)):
        what = f"{strays:,} of {ours.values.size:,} weights of {name} differ by more than rounding"
        raise _other(trained, served, what)
    return _Compared(name, ours.values.size, strays)


def _compare_errors(trained: Base, served: Base, name: str, ours: _Rows, other: _Rows) -> None:
    unknown = next((one.storage for one in (ours, other) if one.storage not in ERRORS), None)
    if unknown is not None:
        raise _other(trained, served, f"{name} is stored as {unknown}, which cannot be compared")
    size, error = (float(np.linalg.norm(one)) for one in (ours.values, other.values - ours.values))
    most = math.hypot(ERRORS[ours.storage], ERRORS[other.storage])
    if not error <= most * size:
        shown = f"{error / size:.1%}" if size else "everything"
        raise _other(trained, served, f"{name} differs by {shown}, more than the {most:.1%} of {other.storage}")


class _Rows:
    """Some rows of a tensor, with what their format tells about the originals; q and k as if they lay as halves."""

    def __init__(self, base: Base, name: str, rows: Sequence[int]) -> None:
        self.storage = base.storage(name)
        is_vector, columns = len(base.shape(name)) == 1, range(base.shape(name)[-1])
        order = [_stored_at(base, name, place) for place in columns] if is_vector else list(columns)
        places = rows if is_vector else [_stored_at(base, name, row) for row in rows]
        self.values: Values = np.concatenate([base.rows(name, row, row + 1) for row in places])[:, order]
        found = [base.originals(name, row, row + 1) for row in places]
        known = [one for one in found if one is not None]
        self.originals: Intervals | None = None
        if len(known) == len(found):
            low, high = (np.concatenate([getattr(one, side) for one in known]) for side in ("low", "high"))
            self.originals = Intervals(low[:, order], high[:, order])


def _strays(ours: _Rows, other: _Rows) -> int | None:
    """How many numbers cannot have the same original in both; None if a format does not tell."""
    one, two = ours.originals, other.originals
    if one is None or two is None:
        return None
    if ours.storage in _PLAIN and other.storage in _PLAIN:  # one of them was rounded from the other
        inside = (two.low <= ours.values) & (ours.values <= two.high)
        inside |= (one.low <= other.values) & (other.values <= one.high)
    else:
        inside = (one.low <= two.high) & (two.low <= one.high)
    return int(np.count_nonzero(~inside))


def _chosen(name: str, count: int, shape: Sequence[int]) -> list[int]:
    """Rows that are spread over the tensor, at least one of each matrix; which ones depends on its name only."""
    matrices = math.prod(shape[:-2])
    wanted = min(count, max(matrices, min(_ROWS, _NUMBERS // shape[-1])))
    shift = zlib.crc32(name.encode()) / 2**32
    return sorted({min(count - 1, int((place + shift) * count / wanted)) for place in range(wanted)})


def _heads(base: Base, name: str) -> int:
    """The heads of a tensor whose rows lie as rotary pairs; 0: they don't."""
    if not base.interleaved or not name.startswith("blk."):
        return 0
    heads = {gguf_name("q_proj"): base.geometry.heads, gguf_name("k_proj"): base.geometry.kv_heads}
    return heads.get(name.split(".")[2], 0)


def _stored_at(base: Base, name: str, row: int) -> int:
    """Where the row is stored that is number `row` if q and k lie as halves."""
    if not _heads(base, name):
        return row
    size = base.geometry.head_dim
    head, place = divmod(row, size)
    half, pair = divmod(place, size // 2)
    return head * size + 2 * pair + half
