"""Sizes of well-known bases from geometry alone, compared with what their publishers and transformers say."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from journeyman.models.family_names import family_of_name
from journeyman.models.known import KNOWN_BASES, KnownBase, known_base
from journeyman.sizing.parameters import lora_parameters

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


def _ids(one: KnownBase) -> str:
    return one.name


@pytest.mark.parametrize("known", KNOWN_BASES, ids=_ids)
def test_the_parameters_are_those_that_the_publisher_states(known: KnownBase) -> None:
    assert known.geometry.parameters == known.parameters


@pytest.mark.parametrize("known", KNOWN_BASES, ids=_ids)
def test_the_shapes_are_those_of_the_model_that_transformers_builds(known: KnownBase) -> None:
    config = AutoConfig.for_model(known.model_type, **known.values)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert model.num_parameters() == known.parameters
    for target in (*ATTENTION, "gate_proj", "up_proj", "down_proj"):
        layers = [one for name, one in model.named_modules() if name.endswith(f".{target}")]
        expected = sum(8 * sum(one.weight.shape) for one in layers)
        assert lora_parameters(known.geometry, 8, [target]) == expected > 0


def test_the_users_adapter_and_base() -> None:
    known = known_base("Qwen/Qwen2.5-Coder-7B-Instruct")
    assert known is not None and known.name == "Qwen2.5-7B"
    assert lora_parameters(known.geometry, 8, ATTENTION) == 5_046_272
    assert known.parameters * 4 / 1e9 == pytest.approx(30.5, abs=0.05)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M", "Qwen2.5-0.5B"),
        ("qwen2.5-coder-14b-instruct-q8_0.gguf", "Qwen2.5-14B"),
        ("Qwen/Qwen3-4B", "Qwen3-4B"),
        ("meta-llama/Llama-3.2-3B-Instruct", "Llama 3 3B"),
        ("meta-llama/Meta-Llama-3-8B", "Llama 3 8B"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "Mistral 7B v0.3"),
        ("mistralai/Mistral-7B-v0.1", "Mistral 7B"),
        ("google/gemma-3-270m-it", "Gemma 3 270M"),
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M"),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", None),
        ("Qwen/Qwen3-30B-A3B", None),
        ("Qwen/Qwen2.5-72B", None),
        ("openai/gpt-5", None),
    ],
)
def test_names_of_known_bases(name: str, expected: str | None) -> None:
    found = known_base(name)
    assert (found.name if found else None) == expected


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("Qwen/Qwen2.5-Coder-7B-Instruct", "Qwen2.5"), ("qwen3-coder:30b", "Qwen3"), ("Qwen2-7B", "Qwen2"),
        ("meta-llama/Llama-3.1-8B", "Llama 3"), ("codellama/CodeLlama-7b", "Code Llama"), ("llama2:13b", "Llama 2"),
        ("mistralai/Mixtral-8x7B", "Mixtral"), ("ministral-8b", "Ministral"), ("gemma3:4b", "Gemma 3"),
        ("deepseek-ai/DeepSeek-V3", "DeepSeek"), ("DeepSeek-R1-Distill-Qwen2.5-7B", "Qwen2.5"),
        ("anthropic/claude-sonnet", None), ("openai/gpt-4o", None), ("scripted", None),
    ],
)  # fmt: skip
def test_families_by_name(name: str, family: str | None) -> None:
    found = family_of_name(name)
    assert (found.name if found else None) == family
