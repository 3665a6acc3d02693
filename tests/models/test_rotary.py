"""Rotary scaling: the decoder computes what transformers trains and what llama.cpp serves."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from conftest import write_tiny_gguf
from journeyman.errors import InputError
from journeyman.inference.engines import running_engine
from journeyman.models.decoder import Decoder
from journeyman.models.geometry import RotaryScaling
from journeyman.models.gguf_file import GgufFile
from journeyman.models.gguf_geometry import geometry_of
from journeyman.models.opening import same_geometry
from journeyman.models.rotary import frequencies, rotary_tables
from journeyman.models.weights import load_decoder
from journeyman.protocols import EngineSettings
from next_tokens import next_tokens
from scaled import ONLY_LLAMA, ORIGINAL, SCALINGS
from twin import transformers_twin

LENGTH = 6 * ORIGINAL
"""Tokens of a row: far beyond the context before scaling."""


def _scaled(name: str, architecture: str, path: Path) -> Decoder:
    file = GgufFile(write_tiny_gguf(path, architecture, extend=SCALINGS[name][0]))
    return load_decoder(file, torch.float32, factors=file.geometry.factors(512))


def _ids(seed: int = 0) -> torch.Tensor:
    return torch.randint(3, 200, (LENGTH,), generator=torch.Generator().manual_seed(seed))


def _cases() -> list[tuple[str, str]]:
    return [(name, architecture) for name in SCALINGS for architecture in ("llama", "qwen2", "qwen3")
            if name not in ONLY_LLAMA or architecture == "llama"]  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize(("name", "architecture"), _cases())
def test_logits_equal_transformers(name: str, architecture: str, tmp_path: Path) -> None:
    decoder, ids = _scaled(name, architecture, tmp_path / "m.gguf"), _ids()
    ours = decoder.logits(ids, [len(ids)])
    theirs = transformers_twin(decoder, architecture, SCALINGS[name][1])(ids[None]).logits[0]
    assert (ours - theirs).abs().max() < 1e-3
    plain = transformers_twin(decoder, architecture)(ids[None]).logits[0]
    assert name == "none with a factor" or (ours - plain)[ORIGINAL:].abs().max() > 0.5, "the scaling matters"


REAL = {
    "Llama 3.1 8B": (500000.0, 128, {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                     "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}),
    "Llama 3.2 1B": (500000.0, 64, {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
                                    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}),
    "Qwen2.5 7B": (1e6, 128, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}),
    "Qwen3 8B": (1e6, 128, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 40960}),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_frequencies_of_real_sizes_equal_transformers(name: str, tiny_gguf: Path) -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    theta, size, parameters = REAL[name]
    config = LlamaConfig(head_dim=size, rope_parameters={**parameters, "rope_theta": theta})
    wanted_F, amplitude = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, torch.device("cpu"))
    if parameters["rope_type"] == "llama3":
        plain_F = theta ** -(torch.arange(0, size, 2) / size)
        rotary = RotaryScaling(divisors=tuple((plain_F / wanted_F).tolist()))
    else:
        original = parameters["original_max_position_embeddings"]
        rotary = RotaryScaling(factor=4.0, yarn_context=original, amplitude=1 + 0.1 * math.log(4.0))
    geometry = replace(GgufFile(tiny_gguf).geometry, rope_theta=theta, head_dim=size, rotary=rotary)
    assert torch.allclose(frequencies(geometry, torch.device("cpu")), wanted_F, rtol=1e-6, atol=0)
    assert amplitude == pytest.approx(rotary.amplitude)


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize(("name", "architecture"), _cases())
def test_log_probabilities_equal_llama_cpp(name: str, architecture: str, tmp_path: Path) -> None:
    decoder = _scaled(name, architecture, tmp_path / "m.gguf")
    plain = load_decoder(GgufFile(write_tiny_gguf(tmp_path / "plain.gguf", architecture)), torch.float32)
    differences, effects = [], []
    with running_engine(EngineSettings(tmp_path / "m.gguf", {}, 512, 2, 0.0)) as engine:
        for seed in range(4):
            ids = _ids(seed)
            theirs = next_tokens(engine, ids)
            ours, without = (one.logits(ids, [LENGTH])[-1].log_softmax(-1) for one in (decoder, plain))
            differences += [abs(value - ours[token].item()) for token, value in theirs.items()]
            effects += [abs(value - without[token].item()) for token, value in theirs.items()]
    # llama.cpp keeps keys and values in half precision. Measured: differences up to 0.003, effects from 3 to 10.
    assert max(differences) < 0.01
    assert name == "none with a factor" or max(effects) > 1, "the scaling matters"


@torch.no_grad()
@pytest.mark.slow
def test_divisors_and_yarn_together_equal_llama_cpp(tmp_path: Path) -> None:
    """transformers has no such model, but a GGUF file may contain both."""

    def both(writer: gguf.GGUFWriter) -> None:
        SCALINGS["llama3"][0](writer)
        SCALINGS["yarn"][0](writer)

    decoder = load_decoder(GgufFile(write_tiny_gguf(tmp_path / "m.gguf", extend=both)), torch.float32)
    with running_engine(EngineSettings(tmp_path / "m.gguf", {}, 512, 2, 0.0)) as engine:
        theirs = next_tokens(engine, _ids())
    ours = decoder.logits(_ids(), [LENGTH])[-1].log_softmax(-1)
    assert max(abs(value - ours[token].item()) for token, value in theirs.items()) < 0.01


def test_tables_without_scaling_are_those_of_the_base_alone(tiny_gguf: Path) -> None:
    geometry, position_T = GgufFile(tiny_gguf).geometry, torch.arange(500)
    assert geometry.rotary == RotaryScaling()
    angle = torch.outer(position_T.float(), 10000.0 ** -(torch.arange(0, 8, 2) / 8)).repeat(1, 2)
    for table, wanted in zip(
        rotary_tables(geometry, position_T, torch.ones(1)), (angle.cos(), angle.sin()), strict=True
    ):
        assert torch.equal(table[:, 0], wanted)


def _key(name: str, kind: str, value: object) -> Callable[[gguf.GGUFWriter], None]:
    return lambda writer: getattr(writer, f"add_{kind}")(f"{writer.arch}.rope.{name}", value)


def _tensor(values: NDArray[np.generic]) -> Callable[[gguf.GGUFWriter], None]:
    return lambda writer: writer.add_tensor("rope_freqs.weight", values)


REFUSED = {
    "another type": (_key("scaling.type", "string", "dynamic"), "'dynamic' is not supported.*none, linear, yarn"),
    "a type that is a number": (_key("scaling.type", "uint32", 1), "'1' is not supported"),
    "a factor of another type": (_key("scaling.factor", "float64", 4.0), "factor is 4.0, not a positive .* f32"),
    "a factor of 0": (_key("scaling.factor", "float32", 0.0), "factor is 0.0, not a positive"),
    "a factor that is no number": (_key("scaling.factor", "float32", math.nan), "factor is nan, not a positive"),
    "an infinite old factor": (_key("scale_linear", "float32", math.inf), "scale_linear is inf, not a positive"),
    "a negative amplitude": (_key("scaling.attn_factor", "float32", -1.0), "attn_factor is -1.0, not a positive"),
    "a context of text": (_key("scaling.original_context_length", "string", "8k"), "is '8k', not a positive .* u32"),
    "another beta": (_key("scaling.yarn_beta_fast", "float32", 8.0), "beta_fast is 8.0, but llama.cpp .* with 32"),
    "another amplitude of YaRN": (_key("scaling.yarn_attn_factor", "float32", 1.5), "is 1.5, but llama.cpp .* with 1"),
    "an unknown setting": (_key("scaling.alpha", "float32", 1000.0), "llama.rope.scaling.alpha is not supported"),
    "too few divisors": (_tensor(np.ones(3, np.float32)), r"shape \(3,\) and type F32, not \(4,\)"),
    "divisors in half precision": (_tensor(np.ones(4, np.float16)), "and type F16, not"),
    "a divisor of 0": (_tensor(np.array([1, 1, 0, 8], np.float32)), "values that are not positive"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_scaling_that_would_be_computed_otherwise_is_refused(name: str, tmp_path: Path) -> None:
    extend, why = REFUSED[name]
    with pytest.raises(InputError, match=rf"m\.gguf.*({why})"):
        geometry_of(GgufFile(write_tiny_gguf(tmp_path / "m.gguf", extend=extend)))


def test_divisors_in_another_family_are_refused(tmp_path: Path) -> None:
    """llama.cpp does not read them there."""
    file = GgufFile(write_tiny_gguf(tmp_path / "m.gguf", "qwen2", extend=SCALINGS["llama3"][0]))
    with pytest.raises(InputError, match=r"'rope_freqs\.weight' is unknown to the decoder"):
        geometry_of(file)


def test_a_quantization_with_another_scaling_is_another_base(tmp_path: Path) -> None:
    plain = write_tiny_gguf(tmp_path / "plain.gguf")
    scaled = write_tiny_gguf(tmp_path / "scaled.gguf", extend=SCALINGS["yarn"][0])
    assert same_geometry(scaled, GgufFile(scaled)) == scaled
    with pytest.raises(InputError, match="different rotary"):
        same_geometry(plain, GgufFile(scaled))
