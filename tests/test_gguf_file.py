"""Reading GGUF: values equal the writer's, and a damaged or hostile header ends in one clear error."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from journeyman.errors import InputError
from journeyman.models.geometry import geometry_of
from journeyman.models.gguf_file import GgufFile
from journeyman.rendering.renderer import Renderer


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
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_headers_load_or_are_refused(tiny_gguf: Path, tmp_path: Path, draw: st.DataObject) -> None:
    raw = bytearray(tiny_gguf.read_bytes())
    for _ in range(draw.draw(st.integers(1, 4))):
        raw[draw.draw(st.integers(0, 3000))] = draw.draw(st.integers(0, 255))
    path = tmp_path / "mutated.gguf"
    path.write_bytes(raw)
    try:
        file = GgufFile(path)
        geometry_of(file)
        Renderer(file)
    except InputError:
        pass


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
        ("llama.rope.scaling.type", "yarn"),
        ("llama.expert_count", 8),
    ):
        file = GgufFile(embedded.path)
        file.metadata = {**file.metadata, key: value}
        with pytest.raises(InputError, match="not supported"):
            geometry_of(file)
