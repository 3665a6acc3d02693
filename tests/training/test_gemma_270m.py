"""Real weights: Gemma 3 270M, quantized to Q4_K_M (Q4_K, Q5_0, Q6_K and Q8_0), computed, served and trained."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from journeyman.config import TrainConfig
from journeyman.inference.engines import running_engine
from journeyman.models.decoder import Decoder
from journeyman.models.gguf_file import GgufFile
from journeyman.models.weights import load_decoder
from journeyman.protocols import EngineSettings
from journeyman.rendering.renderer import Rendered
from journeyman.training.batches import pack
from journeyman.training.cpu import CpuEngine
from journeyman.training.engine import KeyedPack
from journeyman.training.export import write_gguf

pytestmark = pytest.mark.slow

TEXT = "".join(f"{one} times {one + 3} is {one * (one + 3)}, and that is all of it. " for one in range(9, 60))
COLORS = (" blue", " turquoise", " pink", " black")


@pytest.fixture(scope="module")
def decoder(gemma: Path) -> Decoder:
    return load_decoder(GgufFile(gemma), torch.float32)


def _log_probabilities(decoder: Decoder, ids: Tensor, lora: Any = None) -> Tensor:
    """After the last token."""
    hidden = decoder.hidden_states(ids, [len(ids)], lora, at_L=torch.tensor([len(ids) - 1]))
    return (hidden @ decoder.weights.head_VD.T)[0].log_softmax(-1)


@torch.no_grad()
def test_logits_equal_transformers(decoder: Decoder) -> None:
    """On a row longer than the window of 512 tokens, from the same dequantized weights."""
    import transformers

    g, w = decoder.geometry, decoder.weights
    config = transformers.Gemma3TextConfig(
        vocab_size=g.vocab, hidden_size=g.hidden, intermediate_size=g.ffn, num_hidden_layers=g.layers,
        num_attention_heads=g.heads, num_key_value_heads=g.kv_heads, head_dim=g.head_dim, rms_norm_eps=g.rms_eps,
        sliding_window=512, query_pre_attn_scalar=256, max_position_embeddings=g.context,
    )  # fmt: skip
    norms = {
        "input_layernorm": "attention_norm", "post_attention_layernorm": "attention_post_norm",
        "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "ffn_post_norm",
        "self_attn.q_norm": "q_norm", "self_attn.k_norm": "k_norm",
    }  # fmt: skip
    state = {"model.embed_tokens.weight": w.head_VD, "lm_head.weight": w.head_VD, "model.norm.weight": w.norm - 1}
    for number, layer in enumerate(w.layers):
        place = f"model.layers.{number}."
        state |= {f"{place}{theirs}.weight": getattr(layer, ours) - 1 for theirs, ours in norms.items()}
        for module, value in layer.linear.items():
            block = "mlp" if module.split("_")[0] in ("gate", "up", "down") else "self_attn"
            state[f"{place}{block}.{module}.weight"] = value
    with torch.device("meta"):
        model = transformers.Gemma3ForCausalLM(config).eval()
    model.load_state_dict(state, assign=True)
    # Buffers are not in the state: they are made again, on the processor.
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    model.model.embed_tokens.embed_scale = torch.tensor(g.hidden**0.5)
    ids, kept = torch.randint(5, 200_000, (600,), generator=torch.Generator().manual_seed(0)), 40
    theirs = model(ids[None], logits_to_keep=kept).logits[0]
    hidden = decoder.hidden_states(ids, [600], at_L=torch.arange(600 - kept, 600))
    assert (hidden @ w.head_VD.T - theirs).abs().max() < 1e-5 * theirs.abs().max()


@torch.no_grad()
def test_llama_cpp_predicts_the_same(decoder: Decoder, gemma: Path) -> None:
    """For these weights, llama.cpp rounds activations to 8 bits. Measured: probabilities differ by up to 0.04."""
    with running_engine(EngineSettings(gemma, {}, 1024, 2, 0.0)) as engine:
        ids = torch.tensor(engine._post("/tokenize", {"content": TEXT, "add_special": True})["tokens"])
        for length in (50, 512, 513, 900):
            theirs = engine.next_tokens(ids[:length].tolist(), 5)
            ours = _log_probabilities(decoder, ids[:length]).exp()
            assert max(abs(math.exp(value) - ours[token].item()) for token, value in theirs.items()) < 0.1


def test_training_lowers_the_loss_and_changes_the_answers(gemma: Path, tmp_path: Path) -> None:
    """In bfloat16, as on a CPU by default."""
    decoder = load_decoder(GgufFile(gemma), torch.bfloat16)
    config = TrainConfig.model_validate({"learning_rate": 3e-4, "lora": {"rank": 8, "alpha": 16}})
    engine = CpuEngine(decoder, config)
    with running_engine(EngineSettings(gemma, {}, 512, 2, 0.0)) as base:
        asked = [f"The color of box {number} is" for number in range(len(COLORS))]
        prompts, answers = (
            [base._post("/tokenize", {"content": one, "add_special": begins})["tokens"] for one in texts]
            for texts, begins in ((asked, True), (COLORS, False))
        )
        before = [base.next_tokens(prompt, 500) for prompt in prompts]
    wanted = [answer[0] for answer in answers]
    rows = [Rendered([*prompt, token], len(prompt)) for prompt, token in zip(prompts, wanted, strict=True)]
    (one,) = pack(rows, 2048)
    losses = []
    for _ in range(8):
        losses.append(engine.accumulate([KeyedPack(one, "0")], one.label_weight, lambda _: None).loss)
        engine.step(config.learning_rate)
    assert losses[-1] < 0.5 * losses[0]
    write_gguf(engine._adapter, tmp_path / "adapter.gguf")
    with running_engine(EngineSettings(gemma, {"all": tmp_path / "adapter.gguf"}, 512, 2, 0.0)) as tuned:
        after = [tuned.next_tokens(prompt, 500) for prompt in prompts]
    lora = engine._adapter.layers()
    for prompt, token, earlier, later in zip(prompts, wanted, before, after, strict=True):
        with torch.no_grad():
            ours = _log_probabilities(decoder, torch.tensor(prompt), lora)[token].item()
        assert abs(math.exp(later[token]) - math.exp(ours)) < 0.1
        assert later[token] > earlier[token] + 1
