"""config.json with missing and old settings means what it means to transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from journeyman.models.geometry import AlternateLayers, Geometry
from journeyman.models.hf_config import read_config
from journeyman.models.hf_geometry import geometry_of
from journeyman.models.hf_model_types import MODEL_TYPES
from journeyman.models.rotary import alternate_tables, frequencies, rotary_tables

CPU = torch.device("cpu")
_SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 8, "num_attention_heads": 4,
          "num_key_value_heads": 2}  # fmt: skip


def written(folder: Path, model_type: str, **values: Any) -> Path:
    class_name = MODEL_TYPES[model_type].class_name
    text = json.dumps({"architectures": [class_name], "model_type": model_type, **values})
    (folder / "config.json").write_text(text)
    return folder


def ours(folder: Path) -> Geometry:
    return geometry_of(read_config(folder), tied_head=False, biases=())


def theirs(folder: Path) -> Any:
    return transformers.AutoConfig.from_pretrained(folder)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_defaults_are_those_of_transformers(model_type: str, tmp_path: Path) -> None:
    """A file that says nothing but the kind of model, and what the decoder needs."""
    folder = written(tmp_path, model_type, **MODEL_TYPES[model_type].only)
    config, found, read = theirs(folder), ours(folder), read_config(folder)
    for key, value in MODEL_TYPES[model_type].defaults.items():
        expected = getattr(config, key, None)
        stated = MODEL_TYPES[model_type].only
        if value is not None and key not in ("use_sliding_window", "sliding_window", "rope_parameters", *stated):
            assert expected in (value, None), key
    assert read.flag("tie_word_embeddings") is config.tie_word_embeddings
    assert (found.layers, found.hidden, found.ffn, found.vocab) == (
        config.num_hidden_layers, config.hidden_size, getattr(config, MODEL_TYPES[model_type].width), config.vocab_size,
    )  # fmt: skip
    assert (found.heads, found.kv_heads) == (config.num_attention_heads, config.num_key_value_heads)
    assert found.head_dim == (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    assert found.rms_eps == pytest.approx(config.rms_norm_eps)
    assert found.context == config.max_position_embeddings
    window = getattr(config, "sliding_window", None)
    windowed = {"sliding_attention"} & set(getattr(config, "layer_types", None) or ["sliding_attention"])
    assert found.unserved_window == (window if windowed and not found.family.window_every else None)


ROPES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "old base": ("llama", {"rope_theta": 5e5}),
    "old base, null scaling": ("llama", {"rope_theta": 5e5, "rope_scaling": None}),
    "old linear": ("llama", {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0}}),
    "old names of both kinds": ("llama", {"rope_scaling": {"type": "dynamic", "rope_type": "linear", "factor": 4.0}}),
    "old Llama 3": ("llama", {"rope_theta": 5e5, "rope_scaling": {
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256}}),
    "old YaRN": ("qwen2", {"rope_theta": 1e6, "rope_scaling": {
        "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}}),
    "YaRN without a context": ("qwen3", {
        "rope_parameters": {"rope_type": "yarn", "factor": 4.0}, "max_position_embeddings": 512}),
    "YaRN with its own amplitude": ("qwen3", {"rope_parameters": {
        "rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6, "attention_factor": 0.7, "beta_fast": 16.0,
        "beta_slow": 2.0, "original_max_position_embeddings": 256}}),
    "YaRN with mscale": ("llama", {"rope_parameters": {
        "rope_type": "yarn", "factor": 16.0, "mscale": 2.0, "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 256}}),
    "both, of which the old one is read": ("llama", {
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        "rope_scaling": {"rope_type": "linear", "factor": 2.0}, "rope_theta": 5e5}),
    "new base": ("smollm3", {"rope_parameters": {"rope_type": "default", "rope_theta": 5e6}}),
    "no base": ("smollm3", {}),
    "a part of the head, old": ("phi3", {"partial_rotary_factor": 0.75}),
    "a part of the head, new": ("phi3", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}),
    "Ministral 3": ("ministral3", {}),
}  # fmt: skip


@pytest.mark.parametrize("name", ROPES)
def test_rotary_tables_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    model_type, values = ROPES[name]
    folder = written(tmp_path, model_type, **_SMALL, **values)
    found, config = ours(folder), theirs(folder)
    kind = config.rope_parameters["rope_type"]
    if kind == "default":
        share = config.rope_parameters.get("partial_rotary_factor", 1.0)
        size = int((getattr(config, "head_dim", None) or 16) * share)
        expected_F, amplitude = config.rope_parameters["rope_theta"] ** -(torch.arange(0, size, 2) / size), 1.0
    else:
        expected_F, amplitude = ROPE_INIT_FUNCTIONS[kind](config, CPU)
    assert torch.allclose(frequencies(found, CPU), expected_F, rtol=1e-6, atol=0)
    assert found.rotary.amplitude == pytest.approx(amplitude)


LAYERED: Mapping[str, tuple[str, dict[str, Any]]] = {
    "Gemma 3, old": ("gemma3_text", {
        "rope_theta": 1e6, "rope_local_base_freq": 2e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "sliding_window_pattern": 4}),
    "Gemma 3, nothing": ("gemma3_text", {}),
    "Gemma 3, new": ("gemma3_text", {
        "layer_types": ["sliding_attention", "full_attention"] * 4, "sliding_window": 96,
        "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                            "sliding_attention": {"rope_type": "default", "rope_theta": 3e4}}}),
    "Gemma 3, half of the new": ("gemma3_text", {"rope_parameters": {"full_attention": {"rope_type": "default"}}}),
    "OLMo 3": ("olmo3", {"rope_theta": 5e5, "rope_scaling": {
        "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 256, "attention_factor": 1.2}}),
    "OLMo 3, nothing": ("olmo3", {}),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERED)
def test_windows_and_their_rotary_tables_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    model_type, values = LAYERED[name]
    folder = written(tmp_path, model_type, **{**_SMALL, "head_dim": 16, **values})
    found, config = ours(folder), theirs(folder)
    windowed = tuple(n for n, kind in enumerate(config.layer_types) if kind == "sliding_attention")
    assert found.alternate is not None and found.alternate.layers == windowed
    assert found.alternate.window == config.sliding_window
    position_T, like = torch.arange(200), torch.ones(1)
    tables = {"full_attention": rotary_tables(found, position_T, like),
              "sliding_attention": alternate_tables(found, position_T, like)}  # fmt: skip
    for kind, table in tables.items():
        settings = config.rope_parameters[kind]
        angle_F, amplitude = settings["rope_theta"] ** -(torch.arange(0, 16, 2) / 16), 1.0
        if settings["rope_type"] != "default":
            angle_F, amplitude = ROPE_INIT_FUNCTIONS[settings["rope_type"]](config, CPU, layer_type=kind)
        angle = torch.outer(position_T.float(), angle_F).repeat(1, 2)
        assert table is not None and torch.allclose(table[0][:, 0], angle.cos() * amplitude, atol=1e-4)


@pytest.mark.parametrize(
    ("model_type", "values", "window"),
    [
        ("mistral", {}, 4096),
        ("mistral", {"sliding_window": None}, None),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 512}, 512),
        ("qwen2", {"use_sliding_window": False, "sliding_window": 512}, None),
        ("qwen3", {"sliding_window": None}, None),
        ("phi3", {"sliding_window": 2047}, 2047),
        ("llama", {"sliding_window": 16}, None),  # LlamaForCausalLM does not read it
    ],
)
def test_a_window_that_the_engine_does_not_apply_is_known(
    model_type: str, values: dict[str, Any], window: int | None, tmp_path: Path
) -> None:
    found = ours(written(tmp_path, model_type, **_SMALL, **values))
    assert found.unserved_window == window and found.alternate is None


@pytest.mark.parametrize(
    ("values", "layers"),
    [({}, (3, 7)), ({"no_rope_layer_interval": 2}, (1, 3, 5, 7)), ({"no_rope_layers": [1, 1, 0, 1, 1, 1, 1, 1]}, (2,)),
     ({"no_rope_layers": [1] * 8}, ())],
)  # fmt: skip
def test_layers_without_rotary_embedding(values: dict[str, Any], layers: tuple[int, ...], tmp_path: Path) -> None:
    folder = written(tmp_path, "smollm3", **_SMALL, **values)
    assert ours(folder).alternate == (AlternateLayers(layers) if layers else None)
    assert tuple(n for n, rotates in enumerate(theirs(folder).no_rope_layers) if not rotates) == layers


def test_scales_of_granite_and_gemma(tmp_path: Path) -> None:
    found = ours(written(tmp_path, "granite", **_SMALL, embedding_multiplier=12, attention_multiplier=0.0078125))
    assert (found.embedding_scale, found.attention_scale) == (12.0, 0.0078125)
    assert (found.residual_scale, found.logit_scale) == (1.0, 1.0)
    found = ours(written(tmp_path, "gemma2", **_SMALL, query_pre_attn_scalar=144, final_logit_softcapping=None))
    assert found.attention_scale == pytest.approx(1 / 12) and found.embedding_scale == 8.0
    assert (found.attention_cap, found.logit_cap) == (50.0, None)


def test_the_model_of_texts_inside_one_of_pictures(tmp_path: Path) -> None:
    scaling = {"rope_type": "linear", "factor": 8.0}
    text = {"model_type": "gemma3_text", "hidden_size": 2560, "num_hidden_layers": 34, "rope_scaling": scaling}
    values = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text}
    (tmp_path / "config.json").write_text(json.dumps(values))
    found, config = ours(tmp_path), theirs(tmp_path).text_config
    assert (found.hidden, found.layers, found.vocab) == (2560, 34, config.vocab_size)
    assert found.rotary.factor == 8.0 and read_config(tmp_path).has_pictures
    assert read_config(tmp_path).flag("tie_word_embeddings") is True
