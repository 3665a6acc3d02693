"""What is trained is what is served: proved against independent references."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from conftest import REAL_LOG, example_of, write_tiny_gguf
from journeyman.artifacts import read_rows
from journeyman.config import LoraConfig
from journeyman.inference.engines import running_engine
from journeyman.manifests import BundleManifest
from journeyman.models.base import PeftBase
from journeyman.models.decoder import Decoder
from journeyman.models.gguf_file import GgufFile
from journeyman.models.weights import load_decoder
from journeyman.protocols import EngineSettings
from journeyman.records import Message
from journeyman.rendering.renderer import Renderer
from journeyman.serving.preparing import conversation_of, served_messages
from journeyman.stages.train import render_rows
from journeyman.training.batches import pack
from journeyman.training.export import write_gguf, write_peft
from journeyman.training.lora import Adapter
from twin import transformers_twin

pytestmark = pytest.mark.slow  # the embedded model, in three programs

DEMO = Path(__file__).parents[1] / "src/journeyman/demo/interactions.jsonl"


@pytest.fixture(scope="module")
def decoder(embedded: GgufFile) -> Decoder:
    return load_decoder(embedded, torch.float32)


@pytest.fixture(scope="module")
def reference(embedded: GgufFile) -> Any:
    """The same GGUF file, read by transformers."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        embedded.path.parent, gguf_file=embedded.path.name, dtype=torch.float32, local_files_only=True
    )
    return model.eval()


@pytest.fixture(scope="module")
def adapter(decoder: Decoder) -> Adapter:
    """An adapter that has an effect: B is random instead of zero."""
    made = Adapter(decoder.geometry, LoraConfig(rank=4, alpha=8), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, value in made.parameters.items():
            if ".lora_B." in name:
                value.normal_(0, 0.15, generator=generator)
    return made


@pytest.fixture(scope="module")
def ids(renderer: Renderer) -> list[int]:
    messages = [Message(role="user", content="Write a function that adds 12 and 345.")]
    return renderer.example(example_of(messages, "def add() -> int:\n    return 12 + 345")).ids


@torch.no_grad()
def test_logits_equal_transformers(decoder: Decoder, reference: Any, ids: list[int]) -> None:
    theirs = reference(torch.tensor([ids])).logits[0]
    ours = decoder.logits(torch.tensor(ids), [len(ids)])
    # Logits reach 30; float32 sums in a different order differ in the sixth digit.
    assert (ours - theirs).abs().max() < 2e-3
    assert torch.equal(ours.argmax(-1), theirs.argmax(-1))


@torch.no_grad()
def test_packed_rows_do_not_see_each_other(decoder: Decoder, ids: list[int]) -> None:
    short = ids[:17]
    packed = decoder.logits(torch.tensor(short + ids), [len(short), len(ids)])
    assert (packed[: len(short)] - decoder.logits(torch.tensor(short), [len(short)])).abs().max() < 2e-3
    assert (packed[len(short) :] - decoder.logits(torch.tensor(ids), [len(ids)])).abs().max() < 2e-3


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2", "qwen3"])
def test_each_architecture_equals_transformers(architecture: str, tmp_path: Path) -> None:
    name = "llama" if architecture == "mistral" else architecture  # GGUF files call both so
    decoder = load_decoder(GgufFile(write_tiny_gguf(tmp_path / "m.gguf", name)), torch.float32)
    model = transformers_twin(decoder, architecture)
    ids = torch.arange(3, 60)
    assert (decoder.logits(ids, [len(ids)]) - model(ids[None]).logits[0]).abs().max() < 1e-3


@torch.no_grad()
def test_peft_loads_the_adapter_and_agrees(
    decoder: Decoder, adapter: Adapter, reference: Any, ids: list[int], tmp_path: Path
) -> None:
    from peft import PeftModel

    write_peft(adapter, PeftBase("embedded"), tmp_path)
    model = PeftModel.from_pretrained(reference, str(tmp_path)).eval()
    try:
        theirs = model(torch.tensor([ids])).logits[0]
    finally:
        model.unload()
    ours = decoder.logits(torch.tensor(ids), [len(ids)], adapter.layers())
    assert (ours - theirs).abs().max() < 2e-3
    assert (ours - decoder.logits(torch.tensor(ids), [len(ids)])).abs().max() > 1, "the adapter must be felt"


@torch.no_grad()
def test_llama_cpp_answers_as_the_torch_adapter_does(
    decoder: Decoder, adapter: Adapter, embedded: GgufFile, renderer: Renderer, tmp_path: Path
) -> None:
    """llama.cpp rounds activations to 8 bits for a Q4_1 base, so log probabilities agree only within that noise.

    Tolerance: 0.5 on each of the ten likeliest tokens. Measured: the base alone differs by up to 0.32, and so
    does the tuned model. The test asserts that the adapter moves these tokens by more than twice that.
    """
    write_gguf(adapter, tmp_path / "adapter.gguf")
    settings = EngineSettings(embedded.path, {"all": tmp_path / "adapter.gguf"}, 512, 2, 0.0)
    with running_engine(settings) as engine:
        effects = []
        for arm, layers in (("base", None), ("tuned", adapter.layers())):
            for text in ("Name a colour.", "def add(a, b):", "Count to 5."):
                prompt = renderer.prompt_ids([Message(role="user", content=text)])
                ours = decoder.logits(torch.tensor(prompt), [len(prompt)], layers)[-1].log_softmax(-1)
                without = decoder.logits(torch.tensor(prompt), [len(prompt)])[-1].log_softmax(-1)
                asked = {
                    "prompt": prompt, "n_predict": 1, "temperature": 0, "n_probs": 10,
                    "lora": [{"id": 0, "scale": 1.0 if arm == "tuned" else 0.0}],
                }  # fmt: skip
                top = engine._post("/completion", asked)["completion_probabilities"][0]["top_logprobs"]
                for candidate in top:
                    assert abs(candidate["logprob"] - ours[candidate["id"]].item()) < 0.5, (arm, text, candidate)
                    effects.append(abs((ours - without)[candidate["id"]].item()))
        assert max(effects) > 1, "an adapter that is not applied must not pass"


def _demo_rows() -> list[dict[str, Any]]:
    rows = []
    for line in DEMO.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def test_prompt_ids_of_train_evaluate_and_serve_are_identical(embedded: GgufFile, renderer: Renderer) -> None:
    rows = _demo_rows()[::12]
    with running_engine(EngineSettings(embedded.path, {}, 512, 2, 0.0)) as engine:
        for row in rows:
            messages = [Message(**m) for m in row["execution"]["input_messages"]]
            role = row["agent"]["role"]
            bundle = BundleManifest(
                roles=[role], override=None, base_sha256="", adapter_sha256={}, adapter_files={}, base_file="",
                base_path="", system_prompts={role: messages[0].content}, redact={}, settings={},
            )  # fmt: skip
            trained = renderer.example(example_of(messages, "x"))
            served = served_messages(bundle, role, [messages[1].as_chat()], conversation_of(bundle))
            evaluated = engine.prompt_ids(messages)
            assert trained.ids[: trained.prompt_tokens] == evaluated
            assert engine.prompt_ids([Message(**m) for m in served]) == evaluated


@pytest.mark.skipif(not REAL_LOG.is_file(), reason="the real log is not here")
def test_tokens_of_real_texts_equal_llama_cpp(embedded: GgufFile, renderer: Renderer) -> None:
    with running_engine(EngineSettings(embedded.path, {}, 512, 2, 0.0)) as engine:
        for line in REAL_LOG.read_text().splitlines()[::6]:
            text = json.loads(line)["execution"]["output"] or ""
            theirs = engine._post("/tokenize", {"content": text, "add_special": False, "parse_special": True})["tokens"]
            assert renderer.encode(text) == theirs


def test_loss_falls_on_answers_and_terminators_only(renderer: Renderer, tmp_path: Path, embedded: GgufFile) -> None:
    from journeyman.config import DataConfig, RedactConfig, load_config
    from journeyman.protocols import SilentReporter
    from journeyman.records import Example
    from journeyman.sources.files import sources_of
    from journeyman.stages.curate import curate
    from journeyman.stages.ingest import ingest

    ingest(sources_of([DEMO]), DataConfig(), RedactConfig(), tmp_path, SilentReporter())
    config = load_config(DEMO.parent / "journeyman.toml")
    curate(tmp_path / "interactions.jsonl.zst", config, embedded, tmp_path, SilentReporter())
    rows = list(read_rows(tmp_path / "train.jsonl", Example))
    rendered = render_rows(renderer, rows)
    for row, one in zip(rows, rendered, strict=True):
        (lone,) = pack([one], 2048)
        assert lone.source_L[0] == one.prompt_tokens - 1, "the first label is the first answer token"
        assert renderer.decode(lone.labels_L[:-1].tolist()) == row.answer
        assert lone.labels_L[-1] == renderer.terminator_id
        assert renderer.decode(one.ids[: one.prompt_tokens]) == renderer.prompt_text(row.messages)
    packed = pack(rendered, 2048)
    assert sum(len(p.labels_L) for p in packed) == sum(one.trained_tokens for one in rendered)
    assert sum(int((p.labels_L == renderer.terminator_id).sum()) for p in packed) == len(rows)


def test_adapter_file_holds_what_was_trained(adapter: Adapter, tmp_path: Path) -> None:
    write_peft(adapter, PeftBase("embedded"), tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert saved.keys() == adapter.parameters.keys()
    assert all(torch.equal(saved[name], value.detach()) for name, value in adapter.parameters.items())
