"""Tries some steps of training in a process of its own (trial_process), which gets a trial on its stdin.

It trains as the stage does, through the same backend and engine, and writes what it measured as JSON, the last line of
its output. So nothing that it allocates stays in the process that plans, and its peak memory is that of training alone.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import torch

from journeyman.config import TrainConfig
from journeyman.errors import OutOfMemory
from journeyman.models.opening import open_base
from journeyman.training.backends import Gpus, TransformersBackend, backend_of
from journeyman.training.batches import Pack
from journeyman.training.checkpoint import TrainingState, save_checkpoint
from journeyman.training.devices import Gpu
from journeyman.training.engine import KeyedPack, TrainingEngine
from journeyman.training.hardware import keep_freed_memory, use_threads
from journeyman.training.trial_messages import OUT_OF_MEMORY, Measured, Trial, TrialGroup

_AGREE, _ENOUGH = 0.02, 3
"""Groups are measured until three repetitions of each agree within 2 %, or the time is up."""
_MOST = 12
_COMPILES = 2
"""Repetitions of a group on a GPU in which kernels are compiled and passes captured, which can take ten seconds."""
_LEAST_S = 0.5
_OVERRUN = 1.5


class _OutOfTime(Exception):
    """The trial may not go on."""


class Stopwatch:
    """Measures groups of packs with one engine.

    Args:
        budget_s: seconds for everything from now on.
    """

    def __init__(self, engine: TrainingEngine, config: TrainConfig, budget_s: float, *, cuda: bool) -> None:
        self._engine, self._config, self._cuda = engine, config, cuda
        self._end = time.monotonic() + budget_s
        self._abandon = time.monotonic() + _OVERRUN * budget_s
        self._count = 0
        self.updates: list[float] = []

    @property
    def left_s(self) -> float:
        return self._end - time.monotonic()

    def train(self, packs: list[Pack]) -> float:
        """Seconds of the gradients of a group; the optimizer's step is measured apart."""
        labels = sum(one.label_weight for one in packs) or 1.0
        keyed = [KeyedPack(one, f"{self._count}/{number}") for number, one in enumerate(packs)]
        self._count += 1
        start = self._now()
        self._engine.accumulate(keyed, labels, self._heard)
        middle = self._now()
        self._engine.clip(self._config.max_grad_norm)
        self._engine.step(self._config.learning_rate)
        self.updates.append(self._now() - middle)
        return middle - start

    def evaluate(self, packs: list[Pack]) -> float:
        start = self._now()
        self._engine.evaluate(packs, self._heard)
        return self._now() - start

    def _now(self) -> float:
        if self._cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def _heard(self, tokens: float) -> None:
        if self.updates and time.monotonic() > self._abandon:  # one step is made in any case
            raise _OutOfTime


def warm_ups(groups: int, *, cuda: bool) -> list[int]:
    """How many of the first repetitions of each group are slower than all later ones.

    On a GPU kernels are compiled for new sizes, and passes of small models are captured (training.captured). On a
    processor memory is touched for the first time, which the shortest and the longest, the first two, do for all.
    """
    return [_COMPILES] * groups if cuda else [1, 1, *[0] * groups][:groups]


def measure(watch: Stopwatch, trial: Trial, warm: list[int], told: Callable[[Measured], None]) -> Measured:
    """Runs the groups in turn; one for which no time seems to be left is not begun.

    Args:
        told: called with what is measured so far.
    """
    groups, validation = trial.groups, trial.validation
    packs, held_out = [one.packs() for one in groups], [one.packs() for one in validation]
    found: list[list[float]] = [[] for _ in groups]
    evaluated: list[list[float]] = [[] for _ in validation]
    begun = time.monotonic()

    def so_far() -> Measured:
        passed = time.monotonic() - begun
        return Measured(
            groups=found, validation=evaluated, updates=watch.updates, warm_ups=warm, measured_s=passed
        )  # fmt: skip

    least = _COMPILES if max(warm, default=0) >= _COMPILES else 1  # repetitions that say what another takes

    def expected(one: TrialGroup, times: Sequence[float]) -> float:
        """Seconds of another repetition, from the fastest rate of training so far; validation takes less."""
        if len(times) >= least:
            return times[-1]
        rates = [min(known) / group.size for group, known in zip(groups, found, strict=True) if len(known) >= least]
        return one.size * min(rates, default=0.0)

    def repeat(place: int) -> bool:
        if expected(groups[place], found[place]) > watch.left_s:
            return False
        found[place].append(watch.train(packs[place]))
        told(so_far())
        return True

    def validate(place: int) -> bool:
        if expected(validation[place], evaluated[place]) > watch.left_s:
            return False
        evaluated[place].append(watch.evaluate(held_out[place]))
        told(so_far())
        return True

    try:
        for place in range(len(groups)):
            for _ in range(warm[place] + 1):
                repeat(place)
            if place == 0 and validation:  # early, so that something is known of it in any case
                validate(0)
        for place in range(len(validation)):
            while len(evaluated[place]) < 2 and validate(place):
                pass
        go = True
        while go and watch.left_s > 0:
            settled = time.monotonic() - begun > _LEAST_S and _all_agree(found, warm)
            go = not settled and sum(repeat(one) for one in range(len(groups)) if len(found[one]) < _MOST) > 0
    except _OutOfTime:
        pass
    return so_far()


def _all_agree(found: list[list[float]], warm: list[int]) -> bool:
    return all(_agrees(one[skipped:]) for one, skipped in zip(found, warm, strict=True) if one)


def _agrees(seconds: list[float]) -> bool:
    if len(seconds) < _ENOUGH:
        return False
    return max(seconds[-_ENOUGH:]) - min(seconds[-_ENOUGH:]) <= _AGREE * min(seconds[-_ENOUGH:])


def run(trial: Trial) -> None:
    """Tries steps, and tells what they took; ends the process with OUT_OF_MEMORY if they need too much memory."""
    try:
        _run(trial)
    except (OutOfMemory, torch.OutOfMemoryError, MemoryError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        raise SystemExit(OUT_OF_MEMORY) from None


def _run(trial: Trial) -> None:
    """Loads the base as the stage `train` does, measures, and tells."""
    begun = time.monotonic()
    keep_freed_memory()
    use_threads(trial.config.threads)
    gpus = [Gpu(one.index, one.name, one.total_bytes, one.free_bytes, one.capability) for one in trial.gpus]
    said: list[str] = []
    where = Gpus(gpus, trial.sharded, said.append) if gpus else None
    with closing(backend_of(open_base(Path(trial.base)), trial.config, trial.memory, trial.factors, where)) as backend:
        with closing(backend.engine()) as engine:
            loaded = time.monotonic() - begun
            watch = Stopwatch(engine, trial.config, trial.budget_s - loaded, cuda=bool(gpus))
            warm = warm_ups(len(trial.groups), cuda=bool(gpus))
            made = measure(watch, trial, warm, lambda one: tell(one.model_copy(update={"load_s": loaded})))
            saving = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="journeyman-trial-") as scratch:
                best = {f"best/{name}": value for name, value in engine.adapter().items()}
                save_checkpoint(Path(scratch), TrainingState(fingerprint=""), engine.state() | best)
            saved = time.monotonic() - saving
            if trial.adapter_folder and not isinstance(backend, TransformersBackend):  # that one takes minutes
                backend.write(engine.adapter(), Path(trial.adapter_folder))
        peak = backend.peak_memory_bytes()
    told = {"load_s": loaded, "checkpoint_s": saved, "said": said, "measured_peak_bytes": peak}
    tell(made.model_copy(update=told))


def tell(made: Measured) -> None:
    """Writes what is known, a line that takes the place of earlier ones."""
    sys.stdout.write("\n" + made.model_dump_json() + "\n")
    sys.stdout.flush()


def main() -> None:
    run(Trial.model_validate_json(sys.stdin.buffer.read()))
