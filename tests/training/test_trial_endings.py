"""How the process that tries steps ends if memory runs out, and what is told of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from journeyman.config import TrainConfig
from journeyman.errors import OutOfMemory
from journeyman.protocols import SilentReporter
from journeyman.training import trial_child, trial_messages, trial_steps
from journeyman.training.trial_messages import Measured, Trial
from journeyman.training.trial_steps import TrialFailed, TrialOutOfMemory


@pytest.mark.parametrize(
    ("ending", "certain"), [(-9, False), (trial_messages.OUT_OF_MEMORY, True), (-15, None), (1, None)]
)
def test_a_process_that_ran_out_of_memory_is_told_from_others(
    monkeypatch: pytest.MonkeyPatch, ending: int, certain: bool | None
) -> None:
    trial = Trial(
        base="", config=TrainConfig(), memory="keep", factors=None, gpus=[], sharded=False, groups=[], validation=[],
        budget_s=5.0,
    )  # fmt: skip
    helpers = Path(__file__).parents[1] / "helpers"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(helpers), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("JOURNEYMAN_TEST_ENDING", str(ending))
    monkeypatch.setattr(trial_steps, "MODULE", "ends_as_told")
    with pytest.raises(TrialFailed) as caught:
        trial_steps.run_child(trial, 60.0, SilentReporter())
    assert (caught.value.certain if isinstance(caught.value, TrialOutOfMemory) else None) is certain


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no"), OutOfMemory("no"), MemoryError()])
def test_the_process_says_that_it_ran_out_of_memory(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fails(trial: Trial) -> None:
        raise error

    monkeypatch.setattr(trial_child, "_run", fails)
    with pytest.raises(SystemExit) as caught:
        trial_child.run(None)  # type: ignore[arg-type]
    assert caught.value.code == trial_messages.OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("groups", "measured_s", "too_long"),
    [
        ([[4.0], []], 8.0, True),  # nothing is known after the warm-up
        ([[4.0, 1.0, 0.2], [2.0, 0.2], []], 8.0, True),  # most of the time went into first repetitions
        ([[0.3, 0.3, 0.2], [2.0, 2.0], []], 8.0, False),  # steps are long, and not all groups fit into the time
        ([[4.0, 2.0, 0.2], [1.0, 0.5, 0.2]], 8.0, False),  # compiling took long, but all groups were repeated
    ],
)
def test_a_trial_in_which_compiling_took_the_time_is_made_again(
    groups: list[list[float]], measured_s: float, too_long: bool
) -> None:
    made = Measured(groups=groups, validation=[], updates=[], warm_ups=[2] * len(groups), measured_s=measured_s)
    assert trial_steps._compiled_too_long(made) is too_long
