"""Where a checkpoint has the matrices of a mixture's experts, which GGUF stacks: gate, up and down of all experts.

Most models have a tensor for each expert. Granite's have two for all: gate and up of each expert one after the other,
and down.
"""

from __future__ import annotations

from collections.abc import Iterator

from journeyman.models.geometry import Geometry

_STACKS = ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")
_JOINED, _DOWN = "input_linear", "output_linear"


def is_of_experts(name: str) -> bool:
    """True if this is the name in GGUF of a stack of matrices."""
    return name.startswith("blk.") and name.split(".")[2] in _STACKS


def pieces_of_experts(name: str, geometry: Geometry) -> Iterator[tuple[str, int, tuple[int, ...]]]:
    """For each expert: the name of the tensor in transformers, the matrix's first row in it, and the tensor's shape."""
    assert geometry.mixture is not None and geometry.experts is not None
    _, layer, stack, kind = name.split(".")
    number, count = _STACKS.index(stack), geometry.experts.count
    ffn, hidden = geometry.ffn, geometry.hidden
    rows, columns = (hidden, ffn) if stack == _STACKS[2] else (ffn, hidden)
    if geometry.mixture.place_of_each is not None:
        place, own = geometry.mixture.place_of_each, geometry.mixture.names_of_each[number]
        for expert in range(count):
            yield f"model.layers.{layer}.{place}.{expert}.{own}.{kind}", 0, (rows, columns)
        return
    place = geometry.mixture.place.rsplit(".", 1)[0]
    joined = stack != _STACKS[2]
    for expert in range(count):
        each = 2 * rows if joined else rows
        first = expert * each + (number * rows if joined else 0)
        yield f"model.layers.{layer}.{place}.{_JOINED if joined else _DOWN}.{kind}", first, (count, each, columns)
