"""Optimizer steps of ours and of transformers + peft, on the same rows and from the same adapter."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from journeyman.config import TrainConfig
from journeyman.models.decoder import Decoder
from journeyman.models.families import is_stacked
from journeyman.models.geometry import Geometry
from journeyman.protocols import SilentReporter
from journeyman.rendering.renderer import Rendered
from journeyman.training.batches import rows_of_step
from journeyman.training.cpu import CpuEngine
from journeyman.training.loop import Trainer, TrainingJob, learning_rate
from journeyman.training.lora import Adapter

STEPS = 45
TOLERANCE = 1e-5
"""Of the loss. Float32 sums in another order differ in the seventh digit, and AdamW's division by the root of a moment
that is nearly zero enlarges that for single elements. Measured: 2e-7."""
_CONFIG = {
    "epochs": 3, "batch_size": 4, "learning_rate": 2e-3, "warmup_steps": 5, "weight_decay": 0.01, "patience": 99,
    "precision": "float32", "threads": 2, "lora": {"rank": 4, "alpha": 8},
}  # fmt: skip

Trained = tuple[list[float], dict[str, torch.Tensor]]
"""The loss of every step, and the adapter."""


def train_config() -> TrainConfig:
    return TrainConfig.model_validate(_CONFIG)


def rows() -> list[Rendered]:
    """60 rows: counts from a start of their own, something that can be learned, of 10 to 49 tokens.

    Two thirds begin with the same 20 or 24 tokens, as rows of a role with one system prompt do.
    """
    generator = torch.Generator().manual_seed(5)
    made = []
    for number in range(60):
        prompt, answer = 4 + number % 9, 6 + number * 7 % 35
        start = int(torch.randint(3, 200, (1,), generator=generator))
        system = list(range(40, 60 + 4 * (number % 2))) if number % 3 else []
        ids = system + [3 + (start + i * (1 + number % 2)) % 200 for i in range(prompt + answer - 1)]
        made.append(Rendered([*ids, 2], len(system) + prompt, weight=0.5 if number % 7 == 0 else 1.0))
    return made


def train(
    decoder: Decoder, config: TrainConfig, folder: Path, pack_tokens: int = 2048, *, recompute: bool = False
) -> Trained:
    """Ours."""
    job = TrainingJob(rows(), [], config, "", folder / "checkpoints", pack_tokens)
    engine = CpuEngine(decoder, config, recompute=recompute)
    Trainer(job, engine, SilentReporter()).run()
    return losses_in(folder), engine.adapter()


def losses_in(folder: Path) -> list[float]:
    """Of every step, from the metrics of a run without validation rows."""
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def peft_losses(
    model: Any, start: Mapping[str, torch.Tensor], made: Sequence[Rendered], config: TrainConfig, steps: int
) -> Trained:
    """The loss of every step, and the adapter, with nothing but transformers, peft and torch: a plain loop over rows.

    `start`: the adapter before training.
    """
    trained = {name.replace(".default", ""): p for name, p in model.named_parameters() if p.requires_grad}
    assert trained.keys() == start.keys()
    with torch.no_grad():
        for name, value in trained.items():
            value.copy_(start[name])
    optimizer = torch.optim.AdamW(trained.values(), lr=config.learning_rate, weight_decay=config.weight_decay)
    losses = []
    for step in range(steps):
        batch = [made[index] for index in rows_of_step(step, len(made), config.rows_per_step, config.seed)]
        weight = sum(row.weight * row.trained_tokens for row in batch)
        total = 0.0
        for row in batch:
            labels = [-100] * row.prompt_tokens + row.ids[row.prompt_tokens :]
            mean = model(input_ids=torch.tensor([row.ids]), labels=torch.tensor([labels])).loss
            part = mean * row.trained_tokens * row.weight / weight
            part.backward()
            total += part.item()
        torch.nn.utils.clip_grad_norm_(trained.values(), config.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, config)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
    return losses, trained


def train_with_peft(base: Any, geometry: Geometry, config: TrainConfig, learns: float = 0.97) -> Trained:
    """Theirs: `base` is a model of transformers, which peft changes.

    `learns`: the share of the first loss that the last one has at most.
    """
    from peft import LoraConfig, get_peft_model

    start = Adapter(geometry, config.lora, config.seed)
    lora = LoraConfig(
        r=config.lora.rank, lora_alpha=config.lora.alpha, task_type="CAUSAL_LM",
        target_modules=[module for module in start.modules if not is_stacked(module)],
        target_parameters=start.expert_parameters() or None,
    )  # fmt: skip
    losses, trained = peft_losses(get_peft_model(base, lora), start.parameters, rows(), config, STEPS)
    assert losses[-1] < learns * losses[0], "the reference learns"
    return losses, trained


def largest_difference(losses: Sequence[float], expected: Sequence[float]) -> float:
    """Of two curves, relative to the expected one."""
    return max(abs(a - b) / b for a, b in zip(losses, expected, strict=True))


def assert_equal_training(ours: Trained, theirs: Trained, what: str = "") -> None:
    (losses, adapter), (expected, trained) = ours, theirs
    assert len(losses) == STEPS
    difference = largest_difference(losses, expected)
    assert difference < TOLERANCE, f"{what}: the curves part by {difference:.1e}"
    for name, value in adapter.items():
        change = (trained[name] - value).norm() / value.norm()
        assert change < 1e-2, f"{what}, {name}: {change:.1e}"
