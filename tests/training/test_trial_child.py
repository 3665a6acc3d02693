"""Which steps are tried within a budget, by a clock that an engine without weights moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import cast

import pytest

from journeyman.config import TrainConfig
from journeyman.training import trial_child
from journeyman.training.engine import KeyedPack, TrainingEngine
from journeyman.training.trial_child import Stopwatch, measure, warm_ups
from journeyman.training.trial_messages import Measured, Trial, TrialGroup, TrialPack

SIZES = [100, 400, 200]


class _Engine:
    """Takes what `seconds` says of (tokens, repetitions of these so far), and a tenth of it to validate."""

    def __init__(self, seconds: Callable[[int, int], float]) -> None:
        self.now, self._seconds, self._seen = 0.0, seconds, dict[int, int]()

    def accumulate(self, packs: Sequence[KeyedPack], labels: float, heard: Callable[[float], None]) -> None:
        tokens = sum(len(one.pack.ids_T) for one in packs)
        self.now += self._seconds(tokens, self._seen.get(tokens, 0))
        self._seen[tokens] = self._seen.get(tokens, 0) + 1
        heard(tokens)

    def evaluate(self, packs: Sequence[object], heard: Callable[[float], None]) -> None:
        self.now += 0.01

    def clip(self, most: float) -> None: ...

    def step(self, rate: float) -> None: ...


def _tried(
    monkeypatch: pytest.MonkeyPatch, seconds: Callable[[int, int], float], budget_s: float, *, cuda: bool
) -> Measured:
    engine = _Engine(seconds)
    monkeypatch.setattr(
        trial_child, "time", SimpleNamespace(monotonic=lambda: engine.now, perf_counter=lambda: engine.now)
    )
    monkeypatch.setattr(trial_child.torch.cuda, "synchronize", lambda: None)

    def group(tokens: int) -> TrialGroup:
        part = TrialPack(
            ids=[7] * tokens, lengths=[tokens], prefixes=[-1], source=[0], labels=[7], weights=[1.0], row_tokens=tokens
        )
        return TrialGroup(parts=[part], size=float(tokens))

    trial = Trial(
        base="", config=TrainConfig(), memory="keep", factors=None, gpus=[], sharded=False,
        groups=[group(tokens) for tokens in SIZES], validation=[group(50)], budget_s=budget_s,
    )  # fmt: skip
    watch = Stopwatch(cast(TrainingEngine, engine), trial.config, budget_s, cuda=cuda)
    return measure(watch, trial, warm_ups(len(SIZES), cuda=cuda), lambda _: None)


def test_compiling_kernels_does_not_end_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """What compiling takes says nothing of what a repetition takes."""
    made = _tried(
        monkeypatch, lambda tokens, seen: 12.0 if tokens == 100 and not seen else 1e-3 * tokens, 20, cuda=True
    )
    assert all(len(times) > 2 for times in made.groups)
    assert made.groups[0][2:] == pytest.approx([0.1] * len(made.groups[0][2:]))


def test_compiling_that_takes_longer_than_the_budget_leaves_nothing_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    made = _tried(monkeypatch, lambda tokens, seen: 12.0 if not seen else 1e-3 * tokens, 8, cuda=True)
    assert [len(times) for times in made.groups] == [1, 0, 0]


def test_on_a_processor_a_step_for_which_no_time_is_left_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    made = _tried(monkeypatch, lambda tokens, _: 0.1 * tokens, 25, cuda=False)
    assert [len(times) for times in made.groups] == [2, 0, 0]
