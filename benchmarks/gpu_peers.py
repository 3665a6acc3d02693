"""Transformers + peft as a peer of training_gpu.py: the network with our values, and a plain loop over padded rows."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from gpu_model import PROMPT, RATE, Engine, Rows, finish, published_names, value

from journeyman.config import TrainConfig
from journeyman.models.geometry import Geometry
from journeyman.training.lora import Adapter

MOST_PADDED = 8


def in_steps(step: Callable[[Rows], float], device: str) -> Callable[[Sequence[Rows]], tuple[list[float], list[float]]]:
    """An engine's `train` from its function for one step."""

    def train(batches: Sequence[Rows]) -> tuple[list[float], list[float]]:
        seconds, losses = [], []
        for rows in batches:
            finish(device)
            start = time.perf_counter()
            losses.append(step(rows))
            finish(device)
            seconds.append(time.perf_counter() - start)
        return seconds, losses

    return train


def peft(model: Geometry, config: TrainConfig, options: argparse.Namespace, variants: Sequence[str]) -> Engine:
    if "liger" in variants:
        import liger_kernel.transformers as kernels

        getattr(kernels, f"apply_liger_kernel_to_{family(model).lower()}")()
    adapted = with_peft(network(model, options.device, "sdpa"), model, config)
    return padded(adapted, options, options.recompute or "recompute" in variants)


def family(model: Geometry) -> str:
    return "Qwen2" if model.architecture == "qwen2" else "Llama"


def transformers_config(model: Geometry) -> Any:
    import transformers

    return getattr(transformers, f"{family(model)}Config")(
        vocab_size=model.vocab, hidden_size=model.hidden, intermediate_size=model.ffn, num_hidden_layers=model.layers,
        num_attention_heads=model.heads, num_key_value_heads=model.kv_heads, rms_norm_eps=model.rms_eps,
        rope_parameters={"rope_type": "default", "rope_theta": model.rope_theta}, head_dim=model.head_dim,
        tie_word_embeddings=model.tied_head, max_position_embeddings=model.context, dtype="bfloat16",
        bos_token_id=0, eos_token_id=0, pad_token_id=1, architectures=[f"{family(model)}ForCausalLM"],
    )  # fmt: skip


def network(model: Geometry, device: str, attention: str) -> Any:
    import transformers

    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        made = getattr(transformers, f"{family(model)}ForCausalLM")._from_config(
            transformers_config(model), attn_implementation=attention
        )
    torch.set_default_dtype(torch.float32)
    names = {published: (ours, shape) for published, ours, shape in published_names(model)}
    with torch.no_grad():
        for key, parameter in made.named_parameters():
            parameter.copy_(value(*names[key], device))
    return made


def with_peft(base: Any, model: Geometry, config: TrainConfig) -> Any:
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    torch.manual_seed(0)
    adapted = get_peft_model(
        base,
        PeftConfig(r=config.lora.rank, lora_alpha=config.lora.alpha, lora_dropout=config.lora.dropout,
                   target_modules=list(config.lora.targets), task_type="CAUSAL_LM"),
    )  # fmt: skip
    same_start(adapted, model, config)
    return adapted.train()


@torch.no_grad()
def same_start(adapted: Any, model: Geometry, config: TrainConfig) -> None:
    """Our start values, in float32."""
    start = Adapter(model, config.lora, config.seed).parameters
    for key, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
            parameter.copy_(start[key.replace(".default", "")])


def padded(adapted: Any, options: argparse.Namespace, recompute: bool) -> Engine:
    """The usual loop over micro-batches of padded rows."""
    if recompute:
        adapted.gradient_checkpointing_enable({"use_reentrant": False})
        adapted.enable_input_require_grads()
    trained = [one for one in adapted.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0, fused=True)

    def losses(rows: Rows, total: int) -> Any:
        for start in range(0, len(rows), options.micro):
            part = sorted(rows, key=lambda one: -len(one.ids))[start : start + options.micro]
            longest = -(-max(len(one.ids) for one in part) // MOST_PADDED) * MOST_PADDED
            ids = torch.zeros(len(part), longest, dtype=torch.int64)
            labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
            for place, one in enumerate(part):
                ids[place, : len(one.ids)] = torch.tensor(one.ids)
                labels[place, PROMPT : len(one.ids)] = torch.tensor(one.ids[PROMPT:])
                mask[place, : len(one.ids)] = 1
            ids, mask, labels = (one.to(options.device) for one in (ids, mask, labels))
            with torch.autocast(options.device, torch.bfloat16):
                yield adapted(input_ids=ids, attention_mask=mask, labels=labels, num_items_in_batch=total).loss

    def step(rows: Rows) -> float:
        total, sums = sum(one.trained_tokens for one in rows), []
        for loss in losses(rows, total):
            loss.backward()
            sums.append(loss.detach())
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(sum(one.item() for one in sums))

    @torch.no_grad()
    def held(rows: Rows) -> float:
        adapted.eval()
        total = sum(one.trained_tokens for one in rows)
        return float(sum(one.item() for one in losses(rows, total)))

    return Engine(in_steps(step, options.device), held)
