"""The peers of training_gpu.py: transformers + peft in a plain loop, and the trainers of TRL and Unsloth.

They train our rows in our order from our start values. TRL and Unsloth concatenate the rows of a step (padding-free),
as they do with packing, but without choosing other rows for it; their own trainers take the steps.
"""

from __future__ import annotations

import argparse
import inspect
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
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


def peer(name: str, model: Geometry, config: TrainConfig, options: argparse.Namespace) -> Engine:
    """`name`: "peft", "trl" or "unsloth", then variants after "+": see training_gpu.py."""
    kind, *variants = name.split("+")
    recompute = options.recompute or "recompute" in variants
    if kind == "unsloth":
        return sft(unsloth(model, config, options, recompute), options)
    if "liger" in variants and kind == "peft":
        import liger_kernel.transformers as kernels

        getattr(kernels, f"apply_liger_kernel_to_{family(model).lower()}")()
    attention = "sdpa"
    if kind == "trl":
        attention = "flex_attention" if "flex" in variants else "sdpa" if "sdpa" in variants else varlen_attention()
    adapted = with_peft(network(model, options.device, attention), model, config)
    if kind == "trl":
        return sft((adapted, tokenizer()), options, recompute=recompute, liger="liger" in variants)
    return padded(adapted, options, recompute)


def family(model: Geometry) -> str:
    return "Qwen2" if model.architecture == "qwen2" else "Llama"


def transformers_config(model: Geometry) -> Any:
    import transformers

    return getattr(transformers, f"{family(model)}Config")(
        vocab_size=model.vocab, hidden_size=model.hidden, intermediate_size=model.ffn, num_hidden_layers=model.layers,
        num_attention_heads=model.heads, num_key_value_heads=model.kv_heads, rms_norm_eps=model.rms_eps,
        rope_parameters={"rope_type": "default", "rope_theta": model.rope_theta}, head_dim=model.head_dim,
        tie_word_embeddings=model.tied_head, max_position_embeddings=model.context, dtype="bfloat16",
        bos_token_id=0, eos_token_id=0, pad_token_id=0, architectures=[f"{family(model)}ForCausalLM"],
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


def varlen_attention() -> str:
    """Registers torch's FlashAttention for rows end to end, which takes the place of the package flash_attn."""
    import transformers
    from torch.nn.attention.varlen import varlen_attn

    grouped = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}

    def attend(
        module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, cu_seq_lens_q: Any = None,
        max_length_q: Any = None, **_: Any,
    ) -> tuple[Any, None]:  # fmt: skip
        q, k, v = (one[0].transpose(0, 1) for one in (query, key, value))
        out = varlen_attn(
            q, k, v, cu_seq_lens_q, cu_seq_lens_q, int(max_length_q), int(max_length_q), scale=scaling,
            window_size=(-1, 0), **grouped,
        )  # fmt: skip
        return out[None], None

    transformers.AttentionInterface.register("varlen", attend)
    transformers.AttentionMaskInterface.register("varlen", transformers.masking_utils.flash_attention_mask)
    return "varlen"


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
    return adapted


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


def tokenizer() -> Any:
    """The trainers want one, although the rows are token ids already."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"<end>": 0}, unk_token="<end>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<end>", eos_token="<end>", unk_token="<end>")


def unsloth(model: Geometry, config: TrainConfig, options: argparse.Namespace, recompute: bool) -> tuple[Any, Any]:
    """Model and tokenizer, loaded by Unsloth from a folder with our values."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "UNSLOTH_DISABLE_STATISTICS": "1"}
    from unsloth import FastLanguageModel

    folder = saved(model, options)
    longest = max(len(row.ids) for rows in options.batches for row in rows)
    base, words = FastLanguageModel.from_pretrained(
        str(folder), dtype=torch.bfloat16, load_in_4bit=False, max_seq_length=longest, local_files_only=True
    )
    adapted = FastLanguageModel.get_peft_model(
        base, r=config.lora.rank, target_modules=list(config.lora.targets), lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout, bias="none", random_state=0, max_seq_length=longest,
        use_gradient_checkpointing="unsloth" if recompute else False,
    )  # fmt: skip
    same_start(adapted, model, config)
    return adapted, words


def saved(model: Geometry, options: argparse.Namespace) -> Path:
    """A Hugging Face folder with the values of the model, one file per layer; made once per machine."""
    import json

    from safetensors.torch import save_file

    folder = Path(tempfile.gettempdir()) / f"training_gpu-{options.model}-{options.device}"
    if (folder / "config.json").exists():
        return folder
    folder.mkdir(exist_ok=True)
    files: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {}
    for published, ours, shape in published_names(model):
        part = published.split(".")[2] if ".layers." in published else published.split(".")[-2]
        files.setdefault(f"model-{part}.safetensors", {})[published] = ours, shape
    for file, tensors in files.items():
        save_file(
            {key: value(*one, options.device).cpu() for key, one in tensors.items()}, folder / file, {"format": "pt"}
        )
    index = {"metadata": {}, "weight_map": {key: file for file, tensors in files.items() for key in tensors}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    tokenizer().save_pretrained(folder)
    transformers_config(model).save_pretrained(folder)
    return folder


def sft(
    ready: tuple[Any, Any], options: argparse.Namespace, recompute: bool | None = None, liger: bool = False
) -> Engine:
    """TRL's trainer. `recompute` None: the model was prepared for it, or not."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    adapted, words = ready
    checkpointing = {} if recompute is None else {
        "gradient_checkpointing": recompute, "gradient_checkpointing_kwargs": {"use_reentrant": False}
    }  # fmt: skip

    def dataset(rows: Rows) -> Any:
        return Dataset.from_list(
            [
                {"input_ids": row.ids, "labels": [-100] * row.prompt_tokens + row.ids[row.prompt_tokens :]}
                for row in rows
            ]
        )

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.tick()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.tick()

        def tick(self) -> None:
            finish(options.device)
            self.times.append(time.perf_counter())

    arguments = SFTConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=options.rows,
        per_device_eval_batch_size=options.rows,
        num_train_epochs=1, learning_rate=RATE, lr_scheduler_type="constant", warmup_steps=0, weight_decay=0.0,
        max_grad_norm=1.0, optim="adamw_torch_fused" if options.device == "cuda" else "adamw_torch",
        bf16=True, use_cpu=options.device == "cpu", padding_free=True, max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True}, train_sampling_strategy="sequential", use_liger_kernel=liger,
        logging_steps=1, report_to="none", save_strategy="no", disable_tqdm=True, seed=0, **checkpointing,
    )  # fmt: skip
    clock = Clock()
    trainer = SFTTrainer(
        adapted, arguments, processing_class=words, callbacks=[clock],
        train_dataset=dataset([row for rows in options.batches for row in rows]),
    )  # fmt: skip

    def train(batches: Sequence[Rows]) -> tuple[list[float], list[float]]:
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        assert len(losses) == len(batches) == len(clock.times) - 1
        return [after - before for before, after in zip(clock.times, clock.times[1:], strict=False)], losses

    return Engine(train, lambda rows: float(trainer.evaluate(dataset(rows))["eval_loss"]))
