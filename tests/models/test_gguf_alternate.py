"""Bases with sliding windows that llama.cpp would compute otherwise than they were trained are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from conftest import write_tiny_gguf
from journeyman.errors import InputError
from journeyman.models.gguf_file import GgufFile
from tiny_families import tiny_family

Extend = Callable[[gguf.GGUFWriter], None]


def _key(name: str, kind: str, value: object) -> Extend:
    return lambda writer: getattr(writer, f"add_{kind}")(f"{writer.arch}.{name}", value)


def _both(*extends: Extend) -> Extend:
    def add(writer: gguf.GGUFWriter) -> None:
        for extend in extends:
            extend(writer)

    return add


_WINDOW = _key("attention.sliding_window", "uint32", 24)
_PATTERN = "attention.sliding_window_pattern"
REFUSED: dict[str, tuple[str, Extend, str]] = {
    "a window of 0": ("gemma2", _key("attention.sliding_window", "uint32", 0), "would attend to nothing"),
    "a window of another type": ("gemma3", _key("attention.sliding_window", "int32", 24), "not a number of type u32"),
    "too few layers with a window": (
        "gemma3", _both(_WINDOW, _key(_PATTERN, "array", [True])), "of type .bool., not u32 or one bool per layer",
    ),
    "no layer with a window": ("gemma3", _both(_WINDOW, _key(_PATTERN, "uint32", 1)), "no layer has the window"),
    "a pattern of text": ("gemma3", _both(_WINDOW, _key(_PATTERN, "string", "6")), "of type str, not u32 or one bool"),
    "another base of frequencies that is ignored": (
        "olmo2", _both(_WINDOW, _key("rope.freq_base_swa", "float32", 5000.0)), "5000, but llama.cpp .* with 10000",
    ),
    "a base of frequencies of 0": ("gemma3", _both(_WINDOW, _key("rope.freq_base_swa", "float32", 0.0)), "swa is 0"),
    "an amplitude for some layers": (
        "gemma3", _both(_WINDOW, _key("rope.scaling.attn_factor", "float32", 1.1)), "attn_factor with a sliding window",
    ),
    "a factor that applies to windows only": (
        "gemma2", _both(_key("rope.scaling.type", "string", "none"), _key("rope.scaling.factor", "float32", 4.0)),
        "would scale the layers with a window only",
    ),
    "other heads with a window": (
        "gemma3", _both(_WINDOW, _key("attention.key_length_swa", "uint32", 4)), "key_length_swa is not 8",
    ),
    "Ollama's name of the base": ("gemma3", _key("rope.global.freq_base", "float32", 1e6), "global.freq_base is 1000"),
    "no cap of products": ("gemma2", _key("attn_logit_softcapping", "float32", 0.0), "attn_logit_softcapping is 0"),
    "no cap of logits": ("gemma2", _key("final_logit_softcapping", "float32", 0.0), "final_logit_softcapping is 0"),
    "later tokens are seen": ("gemma3", _key("attention.causal", "bool", False), "causal is False, which"),
    "a head of its own": (
        "gemma2", lambda writer: writer.add_tensor("output.weight", np.ones((260, 32), np.float32)), "has an output",
    ),
    "a head that is the embedding": ("olmo2", lambda _: None, "lacks an output matrix"),
    "YaRN that shortens": (
        "olmo2", _both(_key("rope.scaling.type", "string", "yarn"), _key("rope.scaling.factor", "float32", 0.5)),
        "YaRN with a factor of 0.5",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_llama_cpp_would_compute_otherwise_is_refused(name: str, tmp_path: Path) -> None:
    architecture, extend, why = REFUSED[name]
    with pytest.raises(InputError, match=rf"m\.gguf.*({why})"):
        _ = GgufFile(write_tiny_gguf(tmp_path / "m.gguf", architecture, extend=extend)).geometry


def test_what_the_graph_of_olmo_leaves_out_is_refused() -> None:
    """llama.cpp loads biases of OLMo 2 and does not add them, and takes hidden / heads for the size of a head."""
    biased = GgufFile(tiny_family("olmo2").path)
    biased.tensors["blk.0.attn_q.bias"] = replace(biased.info("output_norm.weight"), name="blk.0.attn_q.bias")
    with pytest.raises(InputError, match=r"'blk\.0\.attn_q\.bias' is unknown"):
        _ = biased.geometry
    wide = GgufFile(tiny_family("olmo2").path)
    wide.metadata |= dict.fromkeys(
        (f"olmo2.{key}" for key in ("attention.key_length", "attention.value_length", "rope.dimension_count")), 16
    )
    with pytest.raises(InputError, match="4 heads of 16 with a hidden size of 32"):
        _ = wide.geometry


def test_the_layers_with_a_window() -> None:
    pattern = {"gemma2": (0, 2), "gemma3": (0, 1, 2, 3), "gemma3, linear": (0, 1, 2, 3, 4, 6, 7), "olmo3": (0, 1, 3)}
    for case, layers in pattern.items():
        alternate = GgufFile(tiny_family(case).path).geometry.alternate
        assert alternate is not None
        assert (alternate.layers, alternate.window) == (layers, 24), case
    assert GgufFile(tiny_family("olmo2").path).geometry.alternate is None


def test_defaults_of_a_file_that_does_not_say(tmp_path: Path) -> None:
    """As in llama.cpp: Gemma 2 has a window of 4,096 tokens in every other layer and caps of 50 and 30."""
    from journeyman.models import gguf_geometry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf_geometry, "_check_tensors", lambda *_: None)  # the tiny file has Llama's tensors
        gemma2, gemma3, olmo2 = (
            GgufFile(write_tiny_gguf(tmp_path / f"{one}.gguf", one)).geometry for one in ("gemma2", "gemma3", "olmo2")
        )
    assert gemma2.alternate is not None
    assert (gemma2.alternate.layers, gemma2.alternate.window, gemma2.alternate.rope_theta) == ((0,), 4096, 10000.0)
    assert (gemma2.attention_cap, gemma2.logit_cap) == (50.0, 30.0)
    assert (gemma3.alternate, gemma3.attention_cap, gemma3.logit_cap) == (None, None, None)
    assert olmo2.alternate is None
