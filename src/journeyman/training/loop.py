"""The training loop: rows → packs → loss → clipped AdamW step, with validation and checkpoints.

AdamW: Loshchilov & Hutter, 2017 (arXiv 1711.05101). The loss of a step is the weighted mean over all
labelled tokens of its rows, however they are packed.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from journeyman.config import TrainConfig
from journeyman.errors import InputError, Interrupted
from journeyman.manifests import ValidationPoint
from journeyman.models.decoder import Decoder
from journeyman.models.loss import label_loss
from journeyman.ports import Reporter
from journeyman.rendering.renderer import Rendered
from journeyman.training.batches import Pack, pack, rows_of_step, steps_per_epoch
from journeyman.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from journeyman.training.lora import Adapter

_VALIDATIONS_PER_EPOCH = 2


@dataclass(frozen=True)
class TrainingJob:
    """What is trained, on what, and where its state lies."""

    decoder: Decoder
    train: Sequence[Rendered]
    val: Sequence[Rendered]
    config: TrainConfig
    fingerprint: str
    folder: Path


class Trainer:
    """One run. `run()` returns when the best adapter is in `self.adapter`.

    Raises (from `run`):
        Interrupted: the person asked to stop; the state is saved.
        InputError: the loss is not a number, the disk is full, or the checkpoint belongs to another run.
    """

    def __init__(self, job: TrainingJob, reporter: Reporter) -> None:
        self.job = job
        self.reporter = reporter
        config = job.config
        self.adapter = Adapter(job.decoder.geometry, config.lora, config.seed)
        self.optimizer = torch.optim.AdamW(
            list(self.adapter.parameters.values()), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.steps_per_epoch = steps_per_epoch(len(job.train), config.rows_per_step)
        self.total_steps = self.steps_per_epoch * config.epochs
        self.total_tokens = config.epochs * sum(len(row.ids) for row in job.train)
        self.best = {name: value.detach().clone() for name, value in self.adapter.parameters.items()}
        self.state = TrainingState(
            fingerprint=job.fingerprint, step=0, tokens=0, train_s=0.0, validations=[], best_step=0, finished=False
        )
        self._last_loss = math.nan
        torch.manual_seed(config.seed)
        job.folder.mkdir(parents=True, exist_ok=True)

    def run(self) -> TrainingState:
        self._resume()
        self.reporter.begin("train", self.total_tokens, "tokens")
        self.reporter.advance(self.state.tokens)
        saved_at = time.monotonic()
        if not self.state.validations:
            self._validate()
        while self.state.step < self.total_steps and not self.state.finished:
            self._step()
            if self._validation_due():
                self._validate()
            if time.monotonic() - saved_at >= self.job.config.checkpoint_s:
                self._save()
                saved_at = time.monotonic()
        self.state.finished = True
        self._save()
        self.adapter.load(self.best)
        return self.state

    def _step(self) -> None:
        start, step, config = time.perf_counter(), self.state.step, self.job.config
        chosen = rows_of_step(step, len(self.job.train), config.rows_per_step, config.seed)
        packs = pack([self.job.train[index] for index in chosen], config.pack_tokens)
        labels = sum(p.weights_L.sum().item() for p in packs)
        random_state = torch.get_rng_state()
        loss = 0.0
        for number, one in enumerate(packs):
            if self.reporter.stop_requested:
                self._stop(random_state)
            before = self.state.tokens + sum(len(p.ids_T) for p in packs[:number])
            note = f"step {step + 1}/{self.total_steps} loss {self._last_loss:.3f}"
            part = self._loss(one, training=True, report=(before, note)) / labels
            part.backward()  # type: ignore[no-untyped-call]
            loss += part.item()
        norm = torch.nn.utils.clip_grad_norm_(self.adapter.parameters.values(), config.max_grad_norm).item()
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise InputError(
                f"step {step + 1}: loss {loss}, gradient norm {norm}, rows {chosen} of train.jsonl",
                "Lower train.learning_rate, or set train.precision = 'float32', then journeyman run --redo",
            )
        rate = learning_rate(step, self.total_steps, config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        seconds = time.perf_counter() - start
        tokens = sum(len(p.ids_T) for p in packs)
        self._last_loss = loss
        self.state.step += 1
        self.state.tokens += tokens
        self.state.train_s += seconds
        self.reporter.advance(self.state.tokens)
        self._log(step=step + 1, loss=loss, learning_rate=rate, gradient_norm=norm, tokens=tokens, seconds=seconds)

    def _loss(self, one: Pack, *, training: bool, report: tuple[int, str] | None = None) -> Tensor:
        """The summed loss of a pack; `report` is how many tokens came before it, and the note beside the bar."""
        decoder = self.job.decoder

        def moved(share: float) -> None:
            if report is not None:
                self.reporter.advance(report[0] + share * len(one.ids_T), report[1])

        layers = self.adapter.layers(training=training)
        hidden_TD = decoder.hidden_states(one.ids_T, one.lengths, layers, on_progress=moved)
        return label_loss(hidden_TD[one.source_L], decoder.weights.head_VD, one.labels_L, one.weights_L)

    def _validation_due(self) -> bool:
        every = max(1, math.ceil(self.steps_per_epoch / _VALIDATIONS_PER_EPOCH))
        return self.state.step % every == 0 or self.state.step == self.total_steps

    @torch.no_grad()
    def _validate(self) -> None:
        """Measures the validation loss, keeps the best adapter, and ends the run where patience is out."""
        if not self.job.val:
            self._keep_as_best()
            return
        start = time.perf_counter()
        packs = pack(self.job.val, self.job.config.pack_tokens)
        total = sum(self._loss(one, training=False).item() for one in packs)
        loss = total / sum(one.weights_L.sum().item() for one in packs)
        best_before = min((point.loss for point in self.state.validations), default=math.inf)
        self.state.validations.append(ValidationPoint(step=self.state.step, loss=loss))
        self.state.train_s += time.perf_counter() - start
        self._log(step=self.state.step, validation_loss=loss)
        self.reporter.say(f"validation loss {loss:.4f} after step {self.state.step} of {self.total_steps}")
        if loss < best_before:
            self._keep_as_best()
        since_best = sum(point.step > self.state.best_step for point in self.state.validations)
        self.state.finished = since_best >= self.job.config.patience

    def _keep_as_best(self) -> None:
        self.state.best_step = self.state.step
        self.best = {name: value.detach().clone() for name, value in self.adapter.parameters.items()}

    def _stop(self, random_state: Tensor) -> None:
        """Saves the state as it was before the current step, whose half-made gradients are thrown away."""
        self.optimizer.zero_grad()
        torch.set_rng_state(random_state)
        self._save()
        raise Interrupted(f"stopped before step {self.state.step + 1} of {self.total_steps}", "Run it again to go on")

    def _save(self) -> None:
        tensors = {f"adapter/{name}": value.detach() for name, value in self.adapter.parameters.items()}
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        for name, value in self.adapter.parameters.items():
            for key, moment in self.optimizer.state.get(value, {}).items():
                tensors[f"optimizer/{key}/{name}"] = moment
        save_checkpoint(self.job.folder, self.state, {**tensors, "random_state": torch.get_rng_state()})

    def _resume(self) -> None:
        loaded = load_checkpoint(self.job.folder)
        if loaded is None:
            return
        state, tensors = loaded
        if state.fingerprint != self.job.fingerprint:
            raise InputError(f"{self.job.folder}: the checkpoint belongs to another run", "Run journeyman run --redo")
        self.state = state
        self.adapter.load(_under(tensors, "adapter/"))
        self.best = _under(tensors, "best/")
        moments = {key: _under(tensors, f"optimizer/{key}/") for key in ("step", "exp_avg", "exp_avg_sq")}
        for name, value in self.adapter.parameters.items():
            if name in moments["step"]:
                self.optimizer.state[value] = {key: values[name] for key, values in moments.items()}
        torch.set_rng_state(tensors["random_state"])
        self._trim_log()
        self.reporter.say(f"resumed after step {state.step} of {self.total_steps}")

    def _log(self, **values: float) -> None:
        with (self.job.folder.parent / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def _trim_log(self) -> None:
        """Drops lines of steps that a kill lost after the last checkpoint: they will be made again."""
        path = self.job.folder.parent / "metrics.jsonl"
        if path.is_file():
            lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
            kept = [line for line in lines if json.loads(line)["step"] <= self.state.step]
            path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def learning_rate(step: int, total_steps: int, config: TrainConfig) -> float:
    """The rate of optimizer step `step` (from 0): linear warm-up to the peak, then cosine or linear to zero."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    share = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    left = (1 + math.cos(math.pi * share)) / 2 if config.schedule == "cosine" else 1 - share
    return config.learning_rate * left


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
