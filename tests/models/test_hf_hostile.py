"""Folders that are damaged, unfinished, hostile or of something else are refused with the reason."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from journeyman.errors import InputError
from journeyman.models.hf_folder import HfFolder
from journeyman.models.opening import open_base
from tiny_families import save_folder, transformers_model

Change = Callable[[Path], object]
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
DOWN = "model.layers.0.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(transformers_model("llama"), tmp_path_factory.mktemp("hf") / "model")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "model"))


def config(**changes: Any) -> Change:
    """Sets keys of config.json; None removes one."""

    def change(folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v is not None}))

    return change


def text(name: str, content: str | bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def remove(*names: str) -> Change:
    return lambda folder: [(folder / name).unlink() for name in names]


def both(*changes: Change) -> Change:
    return lambda folder: [change(folder) for change in changes]


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def rewrite(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        change(found)
        save_file(found, folder / WEIGHTS)

    return rewrite


def split(folder: Path) -> None:
    """Distributes the tensors over two files with an index."""
    found = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(found)
    halves = {FIRST: names[::2], SECOND: names[1::2]}
    for file, inside in halves.items():
        save_file({name: found[name] for name in inside}, folder / file)
    place_of = {name: file for file, inside in halves.items() for name in inside}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": place_of}))


def index(change: Callable[[dict[str, Any]], object]) -> Change:
    def rewrite(folder: Path) -> None:
        split(folder)
        found = json.loads((folder / INDEX).read_text())
        change(found["weight_map"])
        (folder / INDEX).write_text(json.dumps(found))

    return rewrite


def header(change: Callable[[dict[str, Any]], object], more: bytes = b"") -> Change:
    """Rewrites the header of the file and leaves its data."""

    def rewrite(folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        entries = json.loads(data[8 : 8 + length])
        replaced = change(entries)
        written = json.dumps(entries).encode() if not isinstance(replaced, bytes) else replaced
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(written)) + written + data[8 + length :] + more)

    return rewrite


def of(entries: dict[str, Any], **changes: Any) -> None:
    entries[DOWN].update(changes)


def shift(entries: dict[str, Any], by: int) -> None:
    """Moves the last tensor of the data."""
    last = max((one for one in entries.values() if "shape" in one), key=lambda one: one["data_offsets"])
    last["data_offsets"] = [at + by for at in last["data_offsets"]]


def cut(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:-5])


def other_models_shard(folder: Path) -> None:
    split(folder)
    other = folder / "other"
    save_folder(transformers_model("llama", intermediate_size=64), other)
    split(other)
    shutil.copy(other / SECOND, folder / SECOND)
    shutil.rmtree(other)


def bad_value(name: str, value: float) -> Change:
    return tensors(lambda found: found[name].fill_(value))


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
REFUSED: dict[str, tuple[Change, str]] = {
    # Not such a model at all.
    "an encoder": (config(architectures=["BertModel"], model_type="bert"), "'BertModel' .model_type 'bert'. is not"),
    "code of its own": (
        config(model_type="qwen", auto_map={"AutoModelForCausalLM": "m.M"}, architectures=None),
        "'qwen'.*auto_map.* never executed",
    ),
    "no kind of model": (config(model_type=None), "'LlamaForCausalLM' .model_type 'None'. is not supported"),
    "a kind of model that is a list": (config(model_type=["llama"]), "is not supported"),
    "a classifier": (config(architectures=["LlamaForSequenceClassification"]), "no model that writes texts"),
    "a model of pictures that is not known": (config(text_config={"model_type": "llama"}), "is not supported"),
    "an adapter next to the model": (text("adapter_config.json", "{}"), "transformers would add"),
    # config.json.
    "an empty config": (text("config.json", ""), "an empty file"),
    "a config that is no JSON": (text("config.json", "{'a': 1}"), "not valid JSON"),
    "a config in another encoding": (text("config.json", "{}".encode("utf-16")), "not valid JSON"),
    "a config that is a list": (text("config.json", "[]"), "not a JSON object"),
    "a config of nested lists": (text("config.json", "[" * 100_000), "not valid JSON"),
    "a config of 5 MB": (text("config.json", json.dumps({"a": "b" * (5 << 20)})), "more than 4 MB"),
    "a config in Git LFS": (text("config.json", LFS), "pointer of Git LFS"),
    "infinity": (text("config.json", '{"model_type": "llama", "rope_theta": Infinity}'), "Infinity is not a number"),
    "no layers": (config(num_hidden_layers=0), "num_hidden_layers is 0, not a positive integer"),
    "half a layer": (config(num_hidden_layers=1.5), "num_hidden_layers is 1.5, not a positive integer"),
    "a billion layers": (config(num_hidden_layers=10**9), "1000000000 layers in"),
    "a billion layers, some without rotary": (
        config(model_type="smollm3", architectures=["SmolLM3ForCausalLM"], num_hidden_layers=10**9), "1000000000 lay",
    ),
    "a head of a billion": (config(head_dim=10**9), "head_dim is 1000000000, more than"),
    "more layers": (config(num_hidden_layers=5), "'model.layers.4.input_layernorm.weight' is missing"),
    "fewer layers": (config(num_hidden_layers=3), r"'model.layers.3.+' is unknown to the decoder"),
    "true layers": (config(num_hidden_layers=True), "num_hidden_layers is True, not a positive"),
    "negative heads": (config(num_attention_heads=-4), "num_attention_heads is -4, not"),
    "heads that do not divide": (config(num_key_value_heads=3), "num_attention_heads is 4, of 8, 3 of keys"),
    "an odd head": (config(head_dim=7), "and 7 rotated elements"),
    "a text as size": (config(hidden_size="32\x1b[2J"), "hidden_size is '32"),
    "a norm without epsilon": (config(rms_norm_eps=0), "rms_norm_eps is 0, not a positive number"),
    "another activation": (config(hidden_act="relu"), "hidden_act is 'relu', but only silu"),
    "other biases": (config(attention_bias=True), "no module has a bias, but by config.json"),
    "a word for false": (config(attention_bias="false"), "neither true nor false"),
    "an unknown scaling": (config(rope_parameters={"rope_type": "ntk-by-parts"}), "'ntk-by-parts', not one of default"),
    "a dynamic scaling": (config(rope_parameters={"rope_type": "dynamic", "factor": 2.0}), "'dynamic', not one of"),
    "a scaling without factor": (config(rope_parameters={"rope_type": "linear"}), "factor is None, not a positive"),
    "a scaling that is a text": (config(rope_parameters="yarn"), "rope_parameters is 'yarn', not an object"),
    "frequencies the wrong way round": (
        config(rope_parameters={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 1.0}),
        "low_freq_factor is 4.0, not below",
    ),
    "YaRN that does not round": (
        config(rope_parameters={"rope_type": "yarn", "factor": 4.0, "truncate": False}), "truncate is False",
    ),
    "two contexts before scaling": (
        config(original_max_position_embeddings=64, rope_parameters={
            "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}),
        "original_max_position_embeddings is 64, but in rope_parameters it is 128",
    ),
    "a part of the head": (
        config(rope_parameters={"rope_type": "default", "partial_rotary_factor": 0.5}), "partial_rotary_factor is 0.5",
    ),
    "a context of 0": (config(max_position_embeddings=0), "max_position_embeddings is 0"),
    "quantization that is no object": (config(quantization_config="fp8"), "quantization_config is not an object"),
    "quantization by MLX": (config(quantization={"bits": 4, "group_size": 64}), "quantized by 'mlx', which are not"),
    "two numbers of experts": (
        config(model_type="mixtral", architectures=["MixtralForCausalLM"], num_experts=4, num_local_experts=8),
        "num_experts is 4, but num_local_experts is 8",
    ),
    "more experts than there are": (
        config(model_type="mixtral", architectures=["MixtralForCausalLM"], num_local_experts=2, num_experts_per_tok=3),
        "num_experts_per_tok is 3, more than 2 experts",
    ),
    "experts that are missing": (
        config(model_type="mixtral", architectures=["MixtralForCausalLM"], num_local_experts=10**9),
        "'model.layers.0.block_sparse_moe.gate.weight' is missing|experts.0.w1.weight' is missing",
    ),
    "weights of experts that do not add up to one": (
        config(model_type="qwen3_moe", architectures=["Qwen3MoeForCausalLM"]), "norm_topk_prob is False, but only True",
    ),
    # Which files there are.
    "no weights": (remove(WEIGHTS), "config.json, but no model.safetensors"),
    "only pickle": (lambda f: (f / WEIGHTS).rename(f / "pytorch_model.bin"), "only as pickle"),
    "only ONNX": (lambda f: (f / WEIGHTS).rename(f / "model.onnx"), "only for ONNX"),
    "only Mistral's own format": (lambda f: (f / WEIGHTS).rename(f / "consolidated.safetensors"), "Mistral's own"),
    "a download of one file": (lambda f: (f / WEIGHTS).rename(f / "model.safetensors.incomplete"), "no .* yet"),
    "parts without an index": (both(split, remove(INDEX)), "parts of a model without"),
    "a part that is missing": (both(split, remove(SECOND)), f"1 of its files are missing: {SECOND}"),
    "a link to nothing": (both(remove(WEIGHTS), lambda f: (f / WEIGHTS).symlink_to("gone")), "no model.safetensors"),
    "two models": (both(split, lambda f: shutil.copy(f / FIRST, f / WEIGHTS)), "may be two models"),
    # The index.
    "an index outside": (index(lambda m: m.update({DOWN: "../../m.safetensors"})), "is not in the folder"),
    "an index with an absolute path": (index(lambda m: m.update({DOWN: "/etc/passwd"})), "'/etc/passwd', which is not"),
    "an index that names a text": (index(lambda m: m.update({DOWN: "config.json"})), "'config.json', which is not"),
    "an index without a tensor": (index(lambda m: m.pop(DOWN)), f"does not name tensor '{DOWN}'"),
    "an index with a tensor more": (index(lambda m: m.update({"more": FIRST})), f"tensor 'more' is not in {FIRST}"),
    "an index that names the other file": (
        index(lambda m: m.update({DOWN: FIRST if m[DOWN] == SECOND else SECOND})), f"tensor '{DOWN}' is not in",
    ),
    "an index without places": (both(split, text(INDEX, "{}")), "no weight_map"),
    "an index that is cut": (both(split, text(INDEX, '{"weight_map": {')), "not valid JSON"),
    "a tensor in two files": (both(split, lambda f: shutil.copy(f / FIRST, f / SECOND)), f"is in {SECOND} and in"),
    "another model's part": (other_models_shard, r"has the shape \(\d+, \d+\), not"),
    # The weights' file.
    "an empty file": (text(WEIGHTS, ""), "an empty file"),
    "a web page": (text(WEIGHTS, "<!DOCTYPE html><html>sign in</html>"), "a web page, not safetensors"),
    "weights in Git LFS": (text(WEIGHTS, LFS), "pointer of Git LFS"),
    "GGUF under another name": (text(WEIGHTS, b"GGUF\x03\0\0\0" + b"\0" * 64), "not a safetensors file"),
    "a pickle under another name": (text(WEIGHTS, b"PK\x03\x04" + b"\0" * 64), "not a safetensors file"),
    "a cut file": (cut, "5 bytes are missing"),
    "bytes more": (header(lambda h: None, b"12345"), "5 bytes follow the last tensor"),
    "a header of 2^60 bytes": (text(WEIGHTS, struct.pack("<Q", 1 << 60) + b"{}"), "but its header needs"),
    "a header of 33 MB": (
        both(text(WEIGHTS, struct.pack("<Q", 33 << 20) + b"{}"), lambda f: os.truncate(f / WEIGHTS, 40 << 20)),
        "a header of 34,603,008 bytes, more than",
    ),
    "a header that is no JSON": (header(lambda h: b'{"a": }'), "header is not valid JSON"),
    "a header of nested objects": (header(lambda h: b'{"a":' * 50_000), "header is not valid JSON"),
    "a name twice": (header(lambda h: b'{"a": 1, "a": 2}'), "'a' appears twice"),
    "an entry that is a number": (header(lambda h: h.update({DOWN: 7})), "type None"),
    "an unknown type": (header(lambda h: of(h, dtype="F4")), "type F4, which is not known"),
    "integers": (header(lambda h: of(h, dtype="U32")), "type U32, and config.json has no quantization_config"),
    "a negative size": (header(lambda h: of(h, shape=[-32, -48])), "no shape or place"),
    "a size of 2^62": (header(lambda h: of(h, shape=[1 << 62, 0])), "no shape or place"),
    "a hundred sizes": (header(lambda h: of(h, shape=[1] * 100)), "no shape or place"),
    "a true size": (header(lambda h: of(h, shape=[True, 1536])), "no shape or place"),
    "another shape": (header(lambda h: of(h, shape=[48, 32])), r"has the shape \(48, 32\), not \(32, 48\)"),
    "a shape that does not fit": (header(lambda h: of(h, shape=[32, 47])), "which does not fit F32"),
    "tensors that overlap": (header(lambda h: shift(h, -4)), "overlaps the previous one"),
    "a gap": (header(lambda h: shift(h, 4)), "leaves a gap"),
    # The tensors.
    "a tensor is missing": (tensors(lambda t: t.pop(DOWN)), f"'{DOWN}' is missing"),
    "a tensor more": (tensors(lambda t: t.update({"model.more": torch.ones(2)})), "'model.more' is unknown"),
    "no head": (tensors(lambda t: t.pop("lm_head.weight")), "'lm_head.weight' is missing"),
    "no embedding": (tensors(lambda t: t.pop("model.embed_tokens.weight")), "embed_tokens.weight' is missing"),
    "a head that is not the embedding": (config(tie_word_embeddings=True), "lm_head.weight and .* are different"),
    "values that are no numbers": (bad_value("model.norm.weight", float("nan")), "'model.norm.weight' has values"),
    "infinite values": (bad_value(DOWN, float("inf")), f"'{DOWN}' has values that are no numbers"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_reason(name: str, folder: Path) -> None:
    change, why = REFUSED[name]
    change(folder)
    with pytest.raises(InputError, match=why) as raised:
        _ = open_base(folder).geometry
    assert str(folder) in raised.value.what and raised.value.remedy
    assert "\x1b" not in str(raised.value)


def test_the_folder_itself_and_its_split_form_are_read(folder: Path) -> None:
    whole = open_base(folder)
    before = whole.tensor("blk.1.attn_q.weight")
    split(folder)
    parts = open_base(folder)
    assert parts.geometry == whole.geometry and np.array_equal(parts.tensor("blk.1.attn_q.weight"), before)


def test_a_file_that_shrinks_while_it_is_read(folder: Path) -> None:
    base = open_base(folder)
    _ = base.geometry
    (folder / WEIGHTS).write_bytes(b"")
    with pytest.raises(InputError, match="truncated while being read"):
        base.tensor("token_embd.weight")


def test_a_missing_part_of_an_unfinished_download_says_so(folder: Path) -> None:
    split(folder)
    (folder / SECOND).unlink()
    place = folder / ".cache/huggingface/download"
    place.mkdir(parents=True)
    (place / f"{SECOND}.abc.incomplete").touch()
    with pytest.raises(InputError, match="download is not finished: run it again"):
        open_base(folder)


def test_links_as_in_the_hubs_cache_are_followed(folder: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "hub/blobs", tmp_path / "hub/snapshots/0123"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(folder.iterdir()):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    assert open_base(snapshot).geometry == open_base(folder).geometry


ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1.5,
    1e308,
    10**30,
    "",
    "x" * 100,
    [],
    [1],
    ["sliding_attention"],
    {},
    {"a": 1},
)
_IN_CONFIG = (
    "architectures", "model_type", "text_config", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps", "hidden_act",
    "tie_word_embeddings", "attention_bias", "mlp_bias", "sliding_window", "layer_types", "rope_theta", "rope_scaling",
    "rope_parameters", "partial_rotary_factor", "original_max_position_embeddings", "quantization_config", "auto_map",
    "no_rope_layers", "no_rope_layer_interval", "query_pre_attn_scalar", "final_logit_softcapping", "logits_scaling",
    "sliding_window_pattern", "use_sliding_window", "num_experts", "num_experts_per_tok", "norm_topk_prob",
)  # fmt: skip
_KINDS = {
    "llama": "Llama",
    "gemma3_text": "Gemma3",
    "smollm3": "SmolLM3",
    "granite": "Granite",
    "qwen3_moe": "Qwen3Moe",
}


@pytest.mark.parametrize("kind", _KINDS)
def test_odd_values_cause_no_other_error(kind: str, folder: Path) -> None:
    original = json.loads((folder / "config.json").read_text())
    original |= {"model_type": kind, "architectures": [f"{_KINDS[kind]}ForCausalLM"]}
    for key in _IN_CONFIG:
        for value in ODD:
            (folder / "config.json").write_text(json.dumps({**original, key: value}))
            with suppress(InputError):
                _ = HfFolder(folder).geometry


@pytest.mark.parametrize("method", ["fp8", "compressed-tensors", "gptq", "awq", "bitsandbytes"])
def test_odd_settings_of_quantization_cause_no_other_error(method: str, folder: Path) -> None:
    original = json.loads((folder / "config.json").read_text())
    groups = {"a": {"weights": {"num_bits": 8, "strategy": "block"}}}
    settings = {
        "quant_method": method,
        "format": "float-quantized",
        "config_groups": groups,
        "bits": 4,
        "group_size": 32,
    }
    for key in (
        *settings,
        "group_size",
        "weight_block_size",
        "sparsity_config",
        "transform_config",
        "version",
        "checkpoint_format",
    ):
        for value in (*ODD, {"a": {"weights": {"strategy": "block", "block_structure": "128x128"}}}):
            changed = {**original, "quantization_config": {**settings, key: value}}
            (folder / "config.json").write_text(json.dumps(changed))
            with suppress(InputError):
                _ = HfFolder(folder).geometry
