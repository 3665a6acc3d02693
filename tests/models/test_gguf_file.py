"""Reading GGUF: values equal the writer's, and a damaged or hostile header ends in one clear error."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from journeyman.errors import InputError
from journeyman.models.gguf_file import GgufFile
from journeyman.models.gguf_geometry import geometry_of
from journeyman.models.weights import load_decoder
from journeyman.rendering.renderer import Renderer
from test_pipeline import call


def _header(entries: bytes = b"", tensors: int = 0, count: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, count) + entries


def _entry(kind: int, payload: bytes) -> bytes:
    return struct.pack("<Q", 1) + b"k" + struct.pack("<I", kind) + payload


HOSTILE = {
    "empty": b"",
    "another format": b"PK\x03\x04" + b"\0" * 40,
    "an unknown version": _header(version=9),
    "more keys than bytes": _header(count=2**63),
    "an endless array": _header(_entry(9, struct.pack("<IQ", 0, 2**63)), count=1),
    "an endless array of strings": _header(_entry(9, struct.pack("<IQ", 8, 2**62)), count=1),
    "an endless string": _header(_entry(8, struct.pack("<Q", 2**63)), count=1),
    "nested arrays": _header(_entry(9, struct.pack("<IQ", 9, 1)), count=1),
    "an unknown value type": _header(_entry(77, b"\0" * 8), count=1),
    "a tensor of no known type": _header(struct.pack("<Q", 1) + b"t" + struct.pack("<IQIQ", 1, 4, 999, 0), tensors=1),
    "a tensor beyond the file": _header(struct.pack("<Q", 1) + b"t" + struct.pack("<IQIQ", 1, 2**40, 0, 0), tensors=1),
    "a tensor of 99 dimensions": _header(struct.pack("<Q", 1) + b"t" + struct.pack("<I", 99), tensors=1),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(InputError, match=r"m\.gguf"):
        GgufFile(path)


@given(draw=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_headers_load_or_are_refused(tiny_gguf: Path, tmp_path: Path, draw: st.DataObject) -> None:
    raw = bytearray(tiny_gguf.read_bytes())
    for _ in range(draw.draw(st.integers(1, 4))):
        raw[draw.draw(st.integers(0, 6000))] = draw.draw(st.integers(0, 255))
    path = tmp_path / "mutated.gguf"
    path.write_bytes(raw)
    try:
        file = GgufFile(path)
        geometry_of(file)
        Renderer(file)
    except InputError:  # any other exception fails the test
        return
    load_decoder(file, torch.float32)


def _set(key: str, form: str, value: object) -> Callable[[bytes], bytes]:
    """Changes the value of a scalar key in the header."""

    def change(raw: bytes) -> bytes:
        at = raw.index(key.encode()) + len(key) + 4
        return raw[:at] + struct.pack("<" + form, value) + raw[at + struct.calcsize("<" + form) :]

    return change


def _replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    assert len(old) == len(new)
    return lambda raw: raw.replace(old, new, 1)


def _type_of(key: str, kind: int) -> Callable[[bytes], bytes]:
    def change(raw: bytes) -> bytes:
        at = raw.index(key.encode()) + len(key)
        return raw[:at] + struct.pack("<I", kind) + raw[at + 4 :]

    return change


def _tensor(name: str, at: int, form: str, value: int) -> Callable[[bytes], bytes]:
    """Changes a number in a tensor's entry, `at` bytes after its name: dimensions 4, sizes 8 each, type 4, offset 8."""

    def change(raw: bytes) -> bytes:
        place = raw.index(struct.pack("<Q", len(name)) + name.encode()) + 8 + len(name) + at
        return raw[:place] + struct.pack("<" + form, value) + raw[place + struct.calcsize("<" + form) :]

    return change


_ONE = struct.pack("<Q", 1)
UNFIT: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut by a byte": (lambda raw: raw[:-1], "1 bytes are missing"),
    "cut in the middle": (lambda raw: raw[: len(raw) // 2], "bytes are missing"),
    "cut in the header": (lambda raw: raw[:3000], "header ends early"),
    "too long": (lambda raw: raw + b"x" * 40, "40 bytes follow the last one"),
    "a shifted tensor": (_tensor("output_norm.weight", 16, "Q", 32), "not at the end of the previous one"),
    "a tensor that stands twice": (_replaced(b"blk.1.attn_k.weight", b"blk.1.attn_q.weight"), "appears twice"),
    "a tensor of another name": (_replaced(b"blk.1.attn_k.we", b"blk.9.attn_k.we"), "'blk.1.attn_k.weight' is missing"),
    "a tensor of another shape": (
        lambda raw: _tensor("blk.0.ffn_gate.weight", 4, "Q", 64)(_tensor("blk.0.ffn_gate.weight", 12, "Q", 32)(raw)),
        r"has the shape \(32, 64\), not \(64, 32\)",
    ),
    "a tensor of whole numbers": (_tensor("output_norm.weight", 12, "I", 26), "type I32, which cannot be read"),
    "a tensor without values": (_tensor("output_norm.weight", 4, "Q", 0), "has the shape"),
    "a key that stands twice": (_replaced(b"attention.key_length", b"rope.dimension_count"), "appears twice"),
    "fewer layers than tensors": (_set("llama.block_count", "I", 1), "is unknown to the decoder"),
    "more layers than tensors": (_set("llama.block_count", "I", 2**32 - 1), "4294967295 layers in"),
    "another width": (_set("llama.embedding_length", "I", 64), "has the shape"),
    "another feed-forward": (_set("llama.feed_forward_length", "I", 32), "has the shape"),
    "other heads": (_set("llama.attention.head_count", "I", 8), "has the shape"),
    "no heads": (_set("llama.attention.head_count", "I", 0), "head_count is 0"),
    "other heads of keys": (_set("llama.attention.head_count_kv", "I", 3), "4 heads of 8, 3 of keys"),
    "another rotation": (_set("llama.rope.dimension_count", "I", 4), "rope.dimension_count is not"),
    "another length of values": (_set("llama.attention.value_length", "I", 4), "value_length is not"),
    "a base that is not a number": (_set("llama.rope.freq_base", "f", float("nan")), "rope.freq_base is nan"),
    "an endless epsilon": (_set("llama.attention.layer_norm_rms_epsilon", "f", float("inf")), "epsilon is inf"),
    "a length of another type": (_type_of("llama.context_length", 5), "context_length is 512"),
    "a base of another type": (_type_of("llama.rope.freq_base", 4), "rope.freq_base is"),
    "an end of another type": (_type_of("tokenizer.ggml.eos_token_id", 5), "of type i32, not u32"),
    "an end beyond the tokens": (_set("tokenizer.ggml.eos_token_id", "I", 9999), "special tokens are damaged"),
    "a token that stands twice": (_replaced(_ONE + b'"', _ONE + b"!"), "1 tokens are duplicates"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_a_file_that_the_engine_would_not_serve_is_refused_at_once(name: str, tiny_gguf: Path, tmp_path: Path) -> None:
    change, why = UNFIT[name]
    path = tmp_path / "m.gguf"
    path.write_bytes(change(tiny_gguf.read_bytes()))
    with pytest.raises(InputError, match=rf"m\.gguf.*({why})"):
        file = GgufFile(path)
        geometry_of(file)
        Renderer(file)


@pytest.mark.parametrize("name", ["cut by a byte", "another rotation", "a tensor of another shape"])
def test_a_run_refuses_such_a_file_before_it_reads_the_logs(
    name: str, tiny_gguf: Path, make_run: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run()
    (folder / "m.gguf").write_bytes(UNFIT[name][0](tiny_gguf.read_bytes()))
    assert call("run", "--dir", folder, "--set", "base.model=m.gguf") == 1
    message = capsys.readouterr().err
    assert "m.gguf" in message and message.count("\n") == 1
    assert not (folder / "01-interactions").exists()


def test_a_file_that_is_cut_while_it_is_read_is_an_error(tiny_gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(tiny_gguf.read_bytes())
    file = GgufFile(path)
    with path.open("r+b") as changed:
        changed.truncate(50_000)
    with pytest.raises(InputError, match="truncated while being read"):
        load_decoder(file, torch.float32)


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_quantized_values_come_back_within_their_step(kind: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    quantization = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(tmp_path / "q.gguf", "llama")
    writer.add_tensor("t", gguf.quants.quantize(values, quantization), raw_dtype=quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = GgufFile(tmp_path / "q.gguf").tensor("t")
    assert read.shape == values.shape and read.dtype == np.float32
    steps = {"F16": 0.002, "Q8_0": 0.02, "Q5_0": 0.2, "Q5_1": 0.2, "Q4_0": 0.4, "Q4_1": 0.4}
    assert np.abs(read - values).max() < steps[kind]


def test_the_embedded_model_is_counted_as_its_makers_do(embedded: GgufFile) -> None:
    assert geometry_of(embedded).parameters == 134_515_008


def test_what_the_decoder_does_not_compute_is_refused(embedded: GgufFile) -> None:
    for key, value in (
        ("general.architecture", "mamba"),
        ("llama.rope.scaling.type", "dynamic"),
    ):
        file = GgufFile(embedded.path)
        file.metadata = {**file.metadata, key: value}
        with pytest.raises(InputError, match="not supported"):
            geometry_of(file)
