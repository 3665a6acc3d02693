"""The training loop: rows → packs → loss → clipped step, with schedule, validation, early stopping and checkpoints.

It is independent of the device: an `engine.TrainingEngine` does the computing. The loss of a step is the weighted mean
over all labels of its rows, however they are packed. No random state is kept: row order and dropout depend only on the
seed and the step.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from journeyman.config import TrainConfig
from journeyman.errors import Interrupted, StaleArtifact, TrainingDiverged
from journeyman.manifests import ValidationPoint
from journeyman.protocols import Reporter
from journeyman.rendering.renderer import Rendered
from journeyman.training.batches import (
    PACK_TOKENS,
    Pack,
    PacksAhead,
    group_size,
    pack,
    rows_of_step,
    steps_per_epoch,
)
from journeyman.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from journeyman.training.engine import Heard, KeyedPack, TrainingEngine
from journeyman.training.metrics import Metrics

_VALIDATIONS_PER_EPOCH = 2
_BEST = "best/"
TRAIN = "train"
"""The task whose progress is that of the whole job."""
_DIVERGED, _WINDOW = 2.0, 5
"""Nats by which the median loss of the last `_WINDOW` steps may exceed that of the first ones."""


@dataclass(frozen=True)
class TrainingJob:
    """What to train on, how, and where to keep the state.

    Attributes:
        pack_tokens: the most computed tokens of a pack.
        group_tokens: tokens that the engine gets at once; a checkpoint is possible between two groups.
        matrix_gflops: the device's measured rate, for the share of peak in the metrics.
        names: what the training rows are called in errors; empty: their numbers.
    """

    train: Sequence[Rendered]
    val: Sequence[Rendered]
    config: TrainConfig
    fingerprint: str
    folder: Path
    pack_tokens: int = PACK_TOKENS
    group_tokens: int = 0
    matrix_gflops: float | None = None
    names: Sequence[str] = ()


class Trainer:
    """One training run. When `run()` returns, the best adapter is in `self.best`, under `peft`'s names.

    Raises (from `run`):
        Interrupted: the user asked to stop; the state is saved.
        TrainingDiverged: the loss became NaN or exploded.
        DiskError: the disk is full.
        StaleArtifact: the checkpoint was made by another run or another engine.
    """

    def __init__(self, job: TrainingJob, engine: TrainingEngine, reporter: Reporter) -> None:
        self.job = job
        self.engine = engine
        self.reporter = reporter
        config = job.config
        self.steps_per_epoch = steps_per_epoch(len(job.train), config.rows_per_step)
        self.total_steps = self.steps_per_epoch * config.epochs
        self.total_tokens = config.epochs * sum(len(row.ids) for row in job.train)
        self.best: dict[str, Tensor] = engine.adapter()
        self.state = TrainingState(fingerprint=job.fingerprint, engine=engine.identity())
        self._packs = PacksAhead(self._packs_of)
        self._saved_at, self._saved_step = time.monotonic(), 0
        job.folder.mkdir(parents=True, exist_ok=True)

    def run(self) -> TrainingState:
        self._resume()
        self.metrics = Metrics(self.job.folder.parent, self.state.step, self.state.validated_step)
        try:
            self._begin()
            while not self.state.finished:
                if self._validation_due():
                    self._validate()
                elif self.state.step == self.total_steps:
                    self.state.finished = True
                else:
                    self._step()
                if self.state.step - self._saved_step >= self.job.config.checkpoint_steps:
                    self._save()
        except Interrupted:
            self._save()
            raise
        finally:
            self.metrics.close()
            self._packs.close()
        self._save()
        return self.state

    @property
    def late_loss(self) -> float | None:
        """The median loss of the last steps; None before the first step."""
        return statistics.median(self.state.losses[-_WINDOW:]) if self.state.losses else None

    def _begin(self) -> None:
        self.reporter.begin(TRAIN, self.total_tokens, "tokens")
        self.reporter.advance(self.state.tokens)

    def _step(self) -> None:
        config, state = self.job.config, self.state
        chosen, packs = self._rows(state.step), self._packs.of_step(state.step)
        labels = sum(p.label_weight for p in packs)
        before = sum(p.row_tokens for p in packs[: state.packs_done])
        while state.packs_done < len(packs):
            left = packs[state.packs_done :]
            group = left[: group_size(left, self.job.group_tokens)]
            start = time.perf_counter()
            keyed = [KeyedPack(one, f"{state.step}/{state.packs_done + number}") for number, one in enumerate(group)]
            made = self.engine.accumulate(keyed, labels, self._heard(state.tokens + before))
            assert math.isclose(made.labels, sum(p.label_weight for p in group)), "a pack was lost or taken twice"
            state.step_loss += made.loss
            state.packs_done += len(group)
            state.step_s += time.perf_counter() - start
            before += sum(p.row_tokens for p in group)
            if time.monotonic() - self._saved_at >= config.checkpoint_s:
                self._save()
        self._update(chosen, packs)

    def _rows(self, step: int) -> list[int]:
        config = self.job.config
        return rows_of_step(step, len(self.job.train), config.rows_per_step, config.seed)

    def _packs_of(self, step: int) -> list[Pack]:
        return pack([self.job.train[index] for index in self._rows(step)], self.job.pack_tokens)

    def _update(self, chosen: Sequence[int], packs: Sequence[Pack]) -> None:
        """Takes the optimizer's step, once all gradients are computed."""
        start, config, state = time.perf_counter(), self.job.config, self.state
        loss = state.step_loss
        norm = self.engine.clip(config.max_grad_norm)
        self._refuse_runaway(loss, norm, chosen)
        rate = learning_rate(state.step, self.total_steps, config)
        self.engine.step(rate)
        tokens = sum(p.row_tokens for p in packs)
        seconds = state.step_s + time.perf_counter() - start
        share = {}
        if self.job.matrix_gflops:
            share["matrix_share"] = self._operations(packs) / seconds / (self.job.matrix_gflops * 1e9)
        state.step += 1
        state.tokens += tokens
        state.train_s += seconds
        state.packs_done, state.step_loss, state.step_s = 0, 0.0, 0.0
        self.reporter.advance(state.tokens)
        self.metrics.write(
            state.step,
            loss=loss,
            learning_rate=rate,
            gradient_norm=norm,
            tokens=tokens,
            computed_tokens=sum(len(p.ids_T) for p in packs),
            seconds=seconds,
            tokens_per_s=tokens / seconds,
            memory_gb=self.engine.memory_bytes() / 1e9,
            **share,
        )

    def _refuse_runaway(self, loss: float, norm: float, chosen: Sequence[int]) -> None:
        at = f"step {self.state.step + 1}"
        remedy = "Lower train.learning_rate, or set train.precision = 'float32', then: journeyman run --redo"
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise TrainingDiverged(f"{at}: loss {loss}, gradient norm {norm}, {self._named(chosen)}", remedy)
        losses = self.state.losses
        losses.append(loss)
        del losses[_WINDOW:-_WINDOW]
        first, last = statistics.median(losses[:_WINDOW]), statistics.median(losses[-_WINDOW:])
        if len(losses) >= 2 * _WINDOW and last > first + _DIVERGED:
            raise TrainingDiverged(
                f"{at}: the loss exploded, from {first:.2f} in the first {_WINDOW} steps to {last:.2f} in the last "
                f"{_WINDOW}; {self._named(chosen)}",
                remedy,
            )

    def _named(self, chosen: Sequence[int]) -> str:
        """Rows for an error."""
        names = self.job.names
        return f"rows {', '.join(names[number] for number in chosen) if names else list(chosen)}"

    def _operations(self, packs: Sequence[Pack]) -> int:
        """Operations of the frozen matrices: forward and input gradient; of the head, at labels only."""
        sizes = self.engine.sizes
        head = sizes.vocab * sizes.hidden
        tokens, labels = sum(len(p.ids_T) for p in packs), sum(len(p.labels_L) for p in packs)
        return 4 * ((sizes.linear_parameters - head) * tokens + head * labels)

    def _heard(self, before: float) -> Heard:
        """Reports progress within a step, and stops the work if the user asked for it."""
        last = f" loss {self.state.losses[-1]:.3f}" if self.state.losses else ""
        note = f"step {self.state.step + 1}/{self.total_steps}{last}"

        def heard(tokens: float) -> None:
            self.reporter.advance(before + tokens, note)
            if self.reporter.stop_requested:
                raise Interrupted(f"stopped before step {self.state.step + 1} of {self.total_steps} was done")

        return heard

    def _validation_due(self) -> bool:
        due = self.state.step % validation_interval(self.steps_per_epoch) == 0 or self.state.step == self.total_steps
        return due and self.state.packs_done == 0 and self.state.validated_step < self.state.step

    def _validate(self) -> None:
        """Measures the validation loss, keeps the best adapter, and ends training when patience runs out."""
        state, config = self.state, self.job.config
        if not self.job.val:
            state.validated_step = state.step
            self._keep_as_best()
            return
        start = time.perf_counter()
        packs = pack(self.job.val, self.job.pack_tokens)
        self.reporter.begin("validate", sum(p.row_tokens for p in packs), "tokens")
        loss = self.engine.evaluate(packs, self._heard(0.0)).mean
        best_before = min((point.loss for point in state.validations), default=math.inf)
        state.validations.append(ValidationPoint(step=state.step, loss=loss))
        state.validated_step = state.step
        state.train_s += time.perf_counter() - start
        self.metrics.write(state.step, validation_loss=loss)
        self.reporter.say(f"validation loss {loss:.4f} after step {state.step} of {self.total_steps}")
        self._begin()
        if loss < best_before:
            self._keep_as_best()
        if state.gain_loss is None or loss < state.gain_loss - config.min_gain:
            state.gain_loss, state.gain_step = loss, state.step
        state.finished = sum(point.step > state.gain_step for point in state.validations) >= config.patience

    def _keep_as_best(self) -> None:
        self.state.best_step = self.state.step
        self.best = self.engine.adapter()

    def _save(self) -> None:
        best = {f"{_BEST}{name}": value for name, value in self.best.items()}
        save_checkpoint(self.job.folder, self.state, self.engine.state() | best)
        self._saved_at, self._saved_step = time.monotonic(), self.state.step

    def _resume(self) -> None:
        loaded = load_checkpoint(self.job.folder)
        if loaded is None:
            return
        state, tensors = loaded
        if state.fingerprint != self.job.fingerprint:
            raise StaleArtifact(
                f"{self.job.folder}: the checkpoint belongs to another run", "Train again: journeyman run --redo"
            )
        mine = self.engine.identity()
        if state.engine not in ("", mine):
            raise StaleArtifact(
                f"{self.job.folder}: the checkpoint was made by the engine '{state.engine}', this one is '{mine}'",
                "Resume on a machine with that engine, or train again: journeyman run --redo",
            )
        if state.step > self.total_steps:
            raise StaleArtifact(
                f"{self.job.folder}: the checkpoint is of step {state.step}, and training has {self.total_steps} steps",
                "Train again: journeyman run --redo",
            )
        self.state = state.model_copy(update={"engine": mine})
        self.best = {name.removeprefix(_BEST): value for name, value in tensors.items() if name.startswith(_BEST)}
        self.engine.load_state({name: value for name, value in tensors.items() if not name.startswith(_BEST)})
        self._saved_step = state.step
        self.reporter.say(f"resumed after step {state.step} of {self.total_steps}")


def validations_of_epoch(epoch: int, epochs: int, steps_per_epoch: int) -> int:
    """Validations in an epoch (from 0): the first epoch has the one before all steps, the last the one after them."""
    every, total = validation_interval(steps_per_epoch), steps_per_epoch * epochs
    first, end = epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch
    return end // every - first // every + (end == total and total % every > 0) + (epoch == 0)


def validation_interval(steps_per_epoch: int) -> int:
    """Steps between validations; one is made after the last step as well."""
    return max(1, math.ceil(steps_per_epoch / _VALIDATIONS_PER_EPOCH))


def learning_rate(step: int, total_steps: int, config: TrainConfig) -> float:
    """The learning rate of optimizer step `step` (from 0): linear warm-up, then cosine or linear decay to zero."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    share = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    left = (1 + math.cos(math.pi * share)) / 2 if config.schedule == "cosine" else 1 - share
    return config.learning_rate * left
