"""Settings of the header that few files have: what the decoder makes of them is what llama.cpp serves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import RopeScalingType

from conftest import write_tiny_gguf
from journeyman.errors import InputError
from journeyman.inference.engines import running_engine
from journeyman.models.geometry import Temperature
from journeyman.models.gguf_file import GgufFile
from journeyman.models.gguf_geometry import geometry_of
from journeyman.models.weights import load_decoder
from journeyman.protocols import EngineSettings
from next_tokens import largest_difference, next_tokens
from scaled import SCALINGS

Extend = Callable[[gguf.GGUFWriter], None]
ORIGINAL, LENGTH = 64, 200


def _yarn(beta_fast: float, beta_slow: float, multiplier: float) -> Extend:
    def extend(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_scaling_type(RopeScalingType.YARN)
        writer.add_rope_scaling_factor(8.0)
        writer.add_rope_scaling_orig_ctx_len(ORIGINAL)
        writer.add_rope_scaling_yarn_beta_fast(beta_fast)
        writer.add_rope_scaling_yarn_beta_slow(beta_slow)
        writer.add_rope_scaling_yarn_log_mul(multiplier)

    return extend


def _temperature(writer: gguf.GGUFWriter) -> None:
    """Without YaRN, the original context counts as well."""
    writer.add_attn_temperature_scale(0.8)
    writer.add_rope_scaling_orig_ctx_len(ORIGINAL)


def _granite(**scales: float) -> Extend:
    def extend(writer: gguf.GGUFWriter) -> None:
        writer.add_logit_scale(0.5)
        for name, value in scales.items():
            getattr(writer, f"add_{name}_scale")(value)

    return extend


def _granite_unrotated(writer: gguf.GGUFWriter) -> None:
    _granite()(writer)
    writer.add_rope_scaling_finetuned(False)


def _granite_divided(writer: gguf.GGUFWriter) -> None:
    _granite()(writer)
    SCALINGS["llama3"][0](writer)


def _lists(writer: gguf.GGUFWriter) -> None:
    """As Granite 4's files have them."""
    writer.add_head_count([4, 4])
    writer.add_head_count_kv([2, 2])
    writer.add_feed_forward_length([64, 64])


CASES: Mapping[str, tuple[str, Extend, Extend]] = {
    "betas of YaRN": ("mistral3", _yarn(0.5, 0.05, 0.0), _yarn(32.0, 1.0, 0.0)),
    "log multiplier": ("mistral3", _yarn(32.0, 1.0, 0.5), _yarn(32.0, 1.0, 0.0)),
    "log multiplier of 1": ("mistral3", _yarn(32.0, 1.0, 1.0), _yarn(32.0, 1.0, 0.0)),
    "temperature": ("mistral3", _temperature, lambda _: None),
    "divisors in Ministral": ("mistral3", SCALINGS["llama3"][0], lambda _: None),
    "Granite's residual scale": ("granite", _granite(residual=0.3), _granite()),
    "Granite's embedding scale": ("granite", _granite(embedding=0.1), _granite()),
    "Granite's attention scale": ("granite", _granite(attention=0.05), _granite()),
    "Granite without rotary embedding": ("granite", _granite_unrotated, _granite()),
    "divisors in Granite": ("granite", _granite_divided, _granite()),
    "a number for each layer": ("llama", _lists, _lists),
}
"""Name → architecture, what adds the setting, and what the header has without it."""


def _logits(path: Path, ids: torch.Tensor) -> torch.Tensor:
    return load_decoder(GgufFile(path), torch.float32).logits(ids, [len(ids)])[-1]


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_log_probabilities_equal_llama_cpp(name: str, tmp_path: Path) -> None:
    architecture, extend, without = CASES[name]
    served = write_tiny_gguf(tmp_path / "m.gguf", architecture, extend=extend)
    plain = write_tiny_gguf(tmp_path / "plain.gguf", architecture, extend=without)
    differences, effects = [], []
    with running_engine(EngineSettings(served, {}, 512, 1, 0.0)) as engine:
        for seed in range(3):
            ids = torch.randint(3, 200, (LENGTH,), generator=torch.Generator().manual_seed(seed))
            theirs = next_tokens(engine, ids)
            differences.append(largest_difference(theirs, _logits(served, ids)))
            effects.append(largest_difference(theirs, _logits(plain, ids)))
    # llama.cpp keeps keys and values in half precision.
    assert max(differences) < 0.02
    assert extend is without or max(effects) > 0.2, "the setting matters"


def test_the_amplitude_of_yarn_with_a_log_multiplier(tmp_path: Path) -> None:
    file = GgufFile(write_tiny_gguf(tmp_path / "m.gguf", "mistral3", extend=_yarn(8.0, 0.5, 0.5)))
    rotary = geometry_of(file).rotary
    assert (rotary.beta_fast, rotary.beta_slow) == (8.0, 0.5)
    assert rotary.amplitude == pytest.approx((1 + 0.1 * math.log(8)) / (1 + 0.05 * math.log(8)))


def test_the_temperature_begins_at_the_original_context_or_that_of_the_model(tmp_path: Path) -> None:
    file = GgufFile(write_tiny_gguf(tmp_path / "m.gguf", "mistral3", extend=_temperature))
    assert geometry_of(file).temperature == Temperature(float(np.float32(0.8)), ORIGINAL)
    del file.metadata["mistral3.rope.scaling.original_context_length"]
    assert geometry_of(file).temperature == Temperature(float(np.float32(0.8)), 512)


@pytest.mark.parametrize(("key", "value"), [("beta_fast", 0.0), ("beta_slow", -1.0), ("log_multiplier", math.nan)])
def test_damaged_settings_of_yarn_are_refused(key: str, value: float, tmp_path: Path) -> None:
    file = GgufFile(write_tiny_gguf(tmp_path / "m.gguf", "mistral3", extend=_yarn(8.0, 0.5, 0.5)))
    file.metadata[f"mistral3.rope.scaling.yarn_{key}"] = value
    with pytest.raises(InputError, match=f"yarn_{key} is .*, not a positive number of type f32"):
        geometry_of(file)


def test_a_fused_matrix_where_the_family_has_three_is_refused(tmp_path: Path) -> None:
    """llama.cpp reads it; its rows would have to be reordered in parts."""
    fused = np.zeros((64, 32), np.float32)
    file = write_tiny_gguf(tmp_path / "m.gguf", extend=lambda w: w.add_tensor("blk.0.attn_qkv.weight", fused))
    with pytest.raises(InputError, match=r"q, k and v are stored as one matrix \(blk\.0\.attn_qkv\.weight\)"):
        geometry_of(GgufFile(file))


def test_three_matrices_where_the_family_has_one_are_refused(tmp_path: Path) -> None:
    one = np.zeros((32, 32), np.float32)
    file = write_tiny_gguf(tmp_path / "m.gguf", "phi3", extend=lambda w: w.add_tensor("blk.0.attn_q.weight", one))
    with pytest.raises(InputError, match=r"q, k and v are stored separately .*, which is not supported for phi3"):
        geometry_of(GgufFile(file))
