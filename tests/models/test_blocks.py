"""Matrices in blocks: pieces, products, look-up, memory that is shared in turn, and loading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from conftest import write_tiny_gguf
from journeyman.errors import InputError
from journeyman.models.gguf_file import GgufFile
from journeyman.models.gpu import block_formats, staging
from journeyman.models.gpu.block_loading import BlockWeights, load_in_blocks
from journeyman.models.gpu.block_sizes import bytes_in_blocks
from journeyman.models.gpu.blocks import BlockRows, Blocks, Scratch
from journeyman.models.gpu.frozen import backward_product, forward_product
from journeyman.models.weights import load_layers, read_tensor
from quantized import random_matrix

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _rows(count: int, kind: str, columns: int = 256) -> BlockRows:
    raw = random_matrix(np.random.default_rng(count), count, columns, Kind[kind])
    return BlockRows(torch.from_numpy(raw).to(DEVICE), kind)


def _values(rows: BlockRows) -> torch.Tensor:
    out = torch.empty(rows.shape, device=DEVICE)
    block_formats.dequantize(rows.raw, rows.kind, out)
    return out


def test_rows_of_different_formats_lie_below_one_another() -> None:
    parts = [_rows(3, "Q4_K"), torch.randn(2, 256).to(DEVICE), _rows(4, "Q6_K"), _rows(1, "Q8_0")]
    wanted = torch.cat([part if isinstance(part, torch.Tensor) else _values(part) for part in parts])
    matrix = Blocks(parts, Scratch(torch.float32, DEVICE))
    assert matrix.shape == (10, 256)
    assert torch.equal(matrix.whole(), wanted)
    for start in range(10):
        for stop in range(start + 1, 11):
            out = torch.full((stop - start, 256), float("nan"), device=DEVICE)
            matrix.write(start, stop, out)
            assert torch.equal(out, wanted[start:stop]), (start, stop)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_those_of_the_dequantized_matrix(dtype: torch.dtype) -> None:
    x, g, bias = (torch.randn(shape).to(DEVICE, dtype) for shape in ((5, 256), (5, 40), (40,)))
    matrix = Blocks([_rows(30, "Q5_K"), _rows(10, "IQ4_XS")], Scratch(dtype, DEVICE))
    assert torch.equal(forward_product(x, matrix, bias), forward_product(x, matrix.whole(), bias))
    assert torch.equal(backward_product(g, matrix), backward_product(g, matrix.whole()))


@pytest.mark.parametrize("outputs", [384, 300, 128, 100])
def test_a_large_matrix_is_multiplied_in_pieces(outputs: int) -> None:
    scratch = Scratch(torch.float32, DEVICE, most=200 * 256)
    matrix = Blocks([_rows(outputs, "Q4_K")], scratch)
    assert scratch.elements == min(outputs, 128) * 256
    pieces = [(rows.start, rows.stop, len(piece)) for rows, piece in matrix.pieces()]
    assert pieces == [(at, min(at + 128, outputs), min(128, outputs - at)) for at in range(0, outputs, 128)]
    x, g, bias = (torch.randn(shape).to(DEVICE) for shape in ((5, 256), (5, outputs), (outputs,)))
    whole = matrix.whole()
    assert torch.allclose(forward_product(x, matrix, bias), x @ whole.T + bias, rtol=1e-5, atol=1e-5)
    assert torch.allclose(backward_product(g, matrix), g @ whole, rtol=1e-5, atol=1e-5)


def test_what_is_held_is_not_dequantized_again_and_nothing_else_is_taken_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scratch = Scratch(torch.float32, DEVICE)
    one, other = Blocks([_rows(6, "Q4_0")], scratch), Blocks([_rows(8, "Q4_0")], scratch)
    values, made = [one.whole(), other.whole()], []
    write = Blocks.write

    def counted(matrix: Blocks, start: int, stop: int, out: torch.Tensor) -> None:
        made.append(matrix)
        write(matrix, start, stop, out)

    monkeypatch.setattr(Blocks, "write", counted)
    for matrix, wanted in ((one, values[0]), (one, values[0]), (other, values[1]), (one, values[0])):
        ((_, piece),) = matrix.pieces()
        assert torch.equal(piece, wanted)
    assert made == [one, other, one]

    def interrupted(matrix: Blocks, start: int, stop: int, out: torch.Tensor) -> None:
        out[0] = 5.0
        raise KeyboardInterrupt

    monkeypatch.setattr(Blocks, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(other.pieces())
    monkeypatch.setattr(Blocks, "write", write)
    ((_, piece),) = one.pieces()
    assert torch.equal(piece, values[0])


def test_rows_are_looked_up() -> None:
    rows = _rows(50, "Q6_K")
    ids = torch.tensor([7, 0, 49, 7], device=DEVICE)
    assert torch.equal(Blocks([rows], Scratch(torch.float32, DEVICE)).look_up(ids), _values(rows)[ids])


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "phi3"])
@pytest.mark.parametrize("piece", [1000, 32 << 20])
def test_a_file_is_loaded_as_it_is(
    architecture: str, piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with the rows of q and k in another order than in the file."""
    monkeypatch.setattr(staging, "_PIECE", piece)
    file = GgufFile(write_tiny_gguf(tmp_path / "m.gguf", architecture, kind=Kind.Q4_K))
    found = load_in_blocks(file, file.geometry, torch.bfloat16, DEVICE)
    for ours, plain in zip(found.layers, load_layers(file, file.geometry, torch.bfloat16), strict=True):
        for group, modules in (("qkv_proj", ("q_proj", "k_proj", "v_proj")), ("down_proj", ("down_proj",))):
            matrix = ours.linear[group]
            assert isinstance(matrix, Blocks)
            assert sum(part.raw.nbytes for part in matrix.parts if isinstance(part, BlockRows)) == (
                matrix.shape[0] * matrix.shape[1] // 256 * 144
            )
            wanted = [plain.linear[one] for one in ((group,) if group in plain.linear else modules)]
            assert torch.equal(matrix.whole().cpu(), torch.cat(wanted))
    assert torch.equal(found.norm.cpu(), read_tensor(file, "output_norm.weight", torch.bfloat16))
    assert _bytes_of(found) == bytes_in_blocks(file, file.geometry)


def _bytes_of(weights: BlockWeights) -> int:
    """Of everything on the device, and of the memory in which matrices are dequantized."""
    matrices = [one for layer in weights.layers for one in layer.linear.values()] + [weights.embedding]
    blocks = [one for one in matrices if isinstance(one, Blocks)]
    raw = [part.raw for one in blocks for part in one.parts if isinstance(part, BlockRows)]
    tensors = [*raw, *(one for one in matrices if isinstance(one, torch.Tensor)), weights.norm]
    for layer in weights.layers:
        vectors = [layer.attention_norm, layer.ffn_norm, layer.q_norm, layer.k_norm, *layer.bias.values()]
        tensors += [one for one in vectors if one is not None]
    # The embedding of these files, which is the head too, is not in blocks.
    places = {id(one._scratch): one._scratch.elements for one in blocks}
    head = weights.embedding.numel() if isinstance(weights.embedding, torch.Tensor) else 0
    return sum(one.nbytes for one in tensors) + 2 * (sum(places.values()) + head)


def test_a_base_without_blocks_is_refused(tmp_path: Path) -> None:
    file = GgufFile(write_tiny_gguf(tmp_path / "m.gguf"))
    with pytest.raises(InputError, match="none of its matrices is stored in blocks"):
        load_in_blocks(file, file.geometry, torch.float32, DEVICE)


def test_a_format_without_a_kernel_is_refused_by_name(tmp_path: Path) -> None:
    file = GgufFile(write_tiny_gguf(tmp_path / "m.gguf", kind=Kind.IQ2_XS))
    with pytest.raises(InputError, match=r"'blk\.0\..*' has type IQ2_XS"):
        load_in_blocks(file, file.geometry, torch.float32, DEVICE)


def test_a_file_that_was_cut_since_it_was_opened_is_refused(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf", kind=Kind.Q4_K)
    file = GgufFile(path)
    with path.open("r+b") as opened:
        opened.truncate(path.stat().st_size // 2)
    with pytest.raises(InputError, match="truncated while being read"):
        load_in_blocks(file, file.geometry, torch.float32, DEVICE)
