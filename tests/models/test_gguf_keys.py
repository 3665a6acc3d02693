"""No key of a header changes what llama.cpp computes without changing the geometry, or is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gguf.constants import Keys

from conftest import write_tiny_gguf
from journeyman.errors import InputError
from journeyman.models.families import FAMILIES
from journeyman.models.gguf_file import GgufFile
from journeyman.models.gguf_geometry import geometry_of
from journeyman.models.gguf_keys import refuse_unknown_keys
from tiny_families import FAMILIES as CASES
from tiny_families import tiny_family

WITHOUT_EFFECT = {
    "vocab_size", "tensor_data_layout", "pooling_type", "attention.layer_norm_epsilon",
    "expert_shared_feed_forward_length", "rope.scaling.finetuned", "rope.scaling.original_context_length",
}  # fmt: skip
"""What llama.cpp does not read for a family, or computes nothing with: see models/gguf_keys.py. The last two have an
effect in some families: see the tests below."""
OF_WINDOWS = {
    "attention.sliding_window_pattern", "rope.freq_base_swa", "attention.key_length_swa", "attention.value_length_swa",
    "rope.dimension_count_swa",
}  # fmt: skip
VALUES = [("u32", 3), ("i32", -1), ("f32", 0.37), ("bool", True), ("bool", False), ("str", "x"), ("[u32]", [3, 1]),
          ("[bool]", [True, True, False, True]), ("f32", float("nan"))]  # fmt: skip


def _names() -> Iterator[str]:
    """All keys below an architecture that the gguf package knows."""
    for section in vars(Keys).values():
        for value in vars(section).values() if isinstance(section, type) else ():
            if isinstance(value, str) and value.startswith("{arch}."):
                yield value.removeprefix("{arch}.")


@pytest.mark.parametrize("case", CASES)
def test_every_key_that_llama_cpp_knows_is_read_refused_or_without_effect(case: str) -> None:
    file = GgufFile(tiny_family(case).path)
    before, architecture, silent = geometry_of(file), file.metadata["general.architecture"], []
    metadata, kinds = dict(file.metadata), dict(file.kinds)
    for name in sorted(_names()):
        for kind, value in VALUES:
            key = f"{architecture}.{name}"
            if before.alternate is None and name in OF_WINDOWS:
                continue  # read only if there is a window
            if name == "attention.sliding_window_pattern" and kind == "u32":
                continue  # it may say what the layers are anyway: test_gguf_alternate
            if name == "feed_forward_length" and f"{architecture}.expert_feed_forward_length" in metadata:
                continue  # the experts' width counts
            if name in WITHOUT_EFFECT or name.startswith("ssm.") or metadata.get(key) == value:
                continue
            if value is False if name != "attention.causal" else value is True:
                continue  # "not applied", and the default of attention.causal
            file.metadata, file.kinds = {**metadata, key: value}, {**kinds, key: kind}
            try:
                after = geometry_of(file)
            except InputError:
                continue
            if after == before:
                silent.append((name, value))
    assert len(set(_names())) > 100
    assert not silent


def _with(key: str, value: Any, kind: str, tiny_gguf: Path) -> GgufFile:
    file = GgufFile(tiny_gguf)
    file.metadata, file.kinds = {**file.metadata, key: value}, {**file.kinds, key: kind}
    return file


REFUSED = [
    ("attention.causal", False, "bool"), ("attention.clamp_kqv", 8.0, "f32"), ("attention.max_alibi_bias", 8.0, "f32"),
    ("use_parallel_residual", True, "bool"), ("swiglu_clamp_exp", [0.0, 7.0], "[f32]"), ("altup.num_inputs", 2, "u32"),
    ("expert_gating_func", 2, "u32"), ("expert_weights_scale", 2.5, "f32"), ("expert_shared_count", 1, "u32"),
    ("nextn_predict_layers", 1, "u32"), ("decoder_block_count", 2, "u32"), ("deepstack_mapping", [-1, 0], "[i32]"),
    ("rope.dimension_sections", [16, 24, 24, 0], "[i32]"), ("attention.value_scale", 2.0, "f32"),
    ("rope.global.freq_base", 1e6, "f32"), ("hidden_activation", "gelu", "str"),
    ("a key of tomorrow", 1, "u32"),
]  # fmt: skip


@pytest.mark.parametrize("architecture", FAMILIES)
@pytest.mark.parametrize(("name", "value", "kind"), REFUSED)
def test_keys_that_change_the_computation_are_refused_in_every_family(
    architecture: str, name: str, value: Any, kind: str, tiny_gguf: Path
) -> None:
    file = _with(f"{architecture}.{name}", value, kind, tiny_gguf)
    with pytest.raises(InputError, match=rf"{architecture}\.{name} is .*, which the decoder does not compute"):
        refuse_unknown_keys(file, architecture, FAMILIES[architecture])


NEUTRAL = [
    ("attention.causal", True, "bool"), ("attention.clamp_kqv", 0.0, "f32"), ("use_parallel_residual", False, "bool"),
    ("expert_count", 0, "u32"), ("expert_used_count", 0, "u32"), ("swiglu_clamp_exp", [0.0, 0.0], "[f32]"),
    ("deepstack_mapping", [-1, -1], "[i32]"), ("ssm.state_size", 128, "u32"), ("vocab_size", 5, "u32"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "kind"), NEUTRAL)
def test_values_that_mean_not_applied_are_accepted(name: str, value: Any, kind: str, tiny_gguf: Path) -> None:
    assert geometry_of(_with(f"llama.{name}", value, kind, tiny_gguf)) == geometry_of(GgufFile(tiny_gguf))


def test_keys_of_another_architecture_are_not_read(tiny_gguf: Path) -> None:
    assert geometry_of(_with("qwen2.attention.causal", False, "bool", tiny_gguf))


LAYERS = [
    ("attention.head_count_kv", [2, 2], "[u32]", None), ("attention.head_count_kv", [2, 2], "[i32]", None),
    ("feed_forward_length", [64, 64], "[i32]", None), ("attention.head_count", [4, 4], "[u32]", None),
    ("attention.head_count_kv", [2, 4], "[u32]", r"head_count_kv differs between layers: \[2, 4\]"),
    ("attention.head_count_kv", [2, 2, 2], "[u32]", "differs between layers"),
    ("attention.head_count_kv", [], "[u32]", "differs between layers"),
    ("feed_forward_length", [64, 32], "[i32]", "differs between layers"),
    ("attention.head_count_kv", [2.0, 2.0], "[f32]", r"head_count_kv is \[2.0"),
    ("block_count", [2, 2], "[u32]", r"block_count is \[2"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "kind", "why"), LAYERS)
def test_a_number_for_each_layer(name: str, value: Any, kind: str, why: str | None, tiny_gguf: Path) -> None:
    """Granite 4's files have them."""
    file = _with(f"llama.{name}", value, kind, tiny_gguf)
    if why is None:
        assert geometry_of(file) == geometry_of(GgufFile(tiny_gguf))
    else:
        with pytest.raises(InputError, match=why):
            geometry_of(file)


@pytest.mark.parametrize(
    ("case", "name", "value"),
    [("granite", "logit_scale", 0.0), ("gemma2", "attn_logit_softcapping", 0.0),
     ("gemma2", "final_logit_softcapping", 0.0)],
)  # fmt: skip
def test_divisors_of_zero_are_refused(case: str, name: str, value: float) -> None:
    """llama.cpp divides by them; other numbers may be 0, which means "not applied"."""
    file = GgufFile(tiny_family(case).path)
    file.metadata[f"{case}.{name}"], file.kinds[f"{case}.{name}"] = value, "f32"
    with pytest.raises(InputError, match=rf"{name} is 0\.0"):
        geometry_of(file)


@pytest.mark.parametrize("name", ["residual_scale", "embedding_scale", "attention.scale"])
def test_granites_scales_of_zero_are_not_applied(name: str) -> None:
    file = GgufFile(tiny_family("granite").path)
    file.metadata[f"granite.{name}"] = 0.0
    geometry = geometry_of(file)
    found = {"residual_scale": geometry.residual_scale, "embedding_scale": geometry.embedding_scale}
    assert found.get(name, geometry.attention_scale or 1.0) == 1.0


def test_granite_without_a_rotary_embedding(tiny_gguf: Path) -> None:
    """In Granite, but in no other family, "not fine-tuned" means that nothing is rotated."""
    file = GgufFile(tiny_family("granite").path)
    file.metadata["granite.rope.scaling.finetuned"] = False
    alternate = geometry_of(file).alternate
    assert alternate is not None and alternate.layers == (0, 1, 2, 3) and alternate.rope_theta is None
    plain = _with("llama.rope.scaling.finetuned", False, "bool", tiny_gguf)
    assert geometry_of(plain) == geometry_of(GgufFile(tiny_gguf))


@pytest.mark.parametrize("architecture", ["qwen2"])
def test_heads_that_are_wider_than_the_hidden_state_are_refused_where_llama_cpp_does(
    architecture: str, tmp_path: Path
) -> None:
    file = GgufFile(write_tiny_gguf(tmp_path / "m.gguf", architecture))
    file.metadata[f"{architecture}.attention.key_length"] = 16
    file.metadata[f"{architecture}.rope.dimension_count"] = 16
    with pytest.raises(InputError, match="4 heads of 16 with a hidden size of 32"):
        geometry_of(file)
