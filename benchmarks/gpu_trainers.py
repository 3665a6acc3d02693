"""TRL and Unsloth as peers of training_gpu.py: their trainers take the steps, with our rows, order and start values.

Both concatenate the rows of a step and let them attend only to themselves (padding-free). That is what packing does in
them, but packing would also choose which rows come together.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from gpu_model import RATE, Engine, Rows, finish, published_names, value
from gpu_peers import network, same_start, transformers_config, with_peft

from journeyman.config import TrainConfig
from journeyman.models.geometry import Geometry

RECOMPUTED = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
NOT_RECOMPUTED = {"gradient_checkpointing": False}


def trl(model: Geometry, config: TrainConfig, options: argparse.Namespace, variants: Sequence[str]) -> Engine:
    attention = "flex_attention" if "flex" in variants else "sdpa" if "sdpa" in variants else varlen_attention()
    adapted = with_peft(network(model, options.device, attention), model, config)
    recompute = options.recompute or "recompute" in variants
    return sft((adapted, tokenizer()), options, RECOMPUTED if recompute else NOT_RECOMPUTED, "liger" in variants)


def unsloth(model: Geometry, config: TrainConfig, options: argparse.Namespace, variants: Sequence[str]) -> Engine:
    recompute = options.recompute or "recompute" in variants
    # Its trainer applies the checkpointing that its model was made with.
    return sft(loaded_by_unsloth(model, config, options, recompute), options, {} if recompute else NOT_RECOMPUTED)


def varlen_attention() -> str:
    """Registers torch's FlashAttention for rows end to end, which takes the place of the package flash_attn."""
    import transformers
    from torch.nn.attention.varlen import varlen_attn

    takes = inspect.signature(varlen_attn).parameters
    settings: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in takes else {"is_causal": True}
    if "enable_gqa" in takes:
        settings["enable_gqa"] = True

    def attend(
        module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, cu_seq_lens_q: Any = None,
        max_length_q: Any = None, **_: Any,
    ) -> tuple[Any, None]:  # fmt: skip
        q, k, v = (one[0].transpose(0, 1) for one in (query, key, value))
        assert scaling == query.shape[-1] ** -0.5
        most = int(max_length_q)
        out = varlen_attn(q, k, v, cu_seq_lens_q, cu_seq_lens_q, most, most, **settings)
        return out[None], None

    transformers.AttentionInterface.register("varlen", attend)
    transformers.AttentionMaskInterface.register("varlen", transformers.masking_utils.flash_attention_mask)
    return "varlen"


def tokenizer() -> Any:
    """The trainers want one, although the rows are token ids already."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"<end>": 0, "<pad>": 1}, unk_token="<end>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<end>", unk_token="<end>")


def loaded_by_unsloth(
    model: Geometry, config: TrainConfig, options: argparse.Namespace, recompute: bool
) -> tuple[Any, Any]:
    """Model and tokenizer, loaded by Unsloth from a folder with our values."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "UNSLOTH_DISABLE_STATISTICS": "1"}
    os.environ["UNSLOTH_COMPILE_LOCATION"] = tempfile.mkdtemp()
    from unsloth import FastLanguageModel

    folder = saved(model, options)
    longest = max(1024, *(len(row.ids) for rows in options.batches for row in rows))
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


def sft(ready: tuple[Any, Any], options: argparse.Namespace, settings: dict[str, Any], liger: bool = False) -> Engine:
    """TRL's trainer for a model and a tokenizer; `settings`: further arguments of SFTConfig."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    adapted, words = ready

    def dataset(rows: Rows) -> Any:
        found = Dataset.from_list(
            [
                {"input_ids": row.ids, "labels": [-100] * row.prompt_tokens + row.ids[row.prompt_tokens :]}
                for row in rows
            ]
        )
        found._unsloth_truncated_to = max(
            len(row.ids) for row in rows
        )  # or it pads, in doubt that they are short enough
        return found

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
        per_device_eval_batch_size=options.rows, gradient_accumulation_steps=1,  # Unsloth's default is 2
        num_train_epochs=1, learning_rate=RATE, lr_scheduler_type="constant", warmup_steps=0, weight_decay=0.0,
        max_grad_norm=1.0, optim="adamw_torch_fused" if options.device == "cuda" else "adamw_torch",
        bf16=True, use_cpu=options.device == "cpu", padding_free=True, max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True}, train_sampling_strategy="sequential", use_liger_kernel=liger,
        logging_steps=1, report_to="none", save_strategy="no", disable_tqdm=True, seed=0, **settings,
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
