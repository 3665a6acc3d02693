"""The nearest configurations of training that fit, on the processor and on cards that are not there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from journeyman.config import TrainConfig
from journeyman.models.known import known_base
from journeyman.sizing.fitting import Severity
from journeyman.sizing.parameters import lora_parameters
from journeyman.training import devices, fitting, placement
from journeyman.training.devices import Gpu, Survey
from journeyman.training.fitting import Fitter, Fitting, Rows
from journeyman.training.placement import Workload, memory_on_processor, place

NAME = "Qwen/Qwen2.5-1.5B-Instruct"
BASE = known_base(NAME)
assert BASE is not None
LENGTHS = [300] * 90 + [1400] * 10
CARD = Gpu(0, "NVIDIA A100", 40_000_000_000, 40_000_000_000, (8, 0))


def _without_measuring(patch: pytest.MonkeyPatch, *cards: Gpu, fast_bfloat16: bool = True) -> None:
    found, rounds = Survey(cards), ("bfloat16", "auto" if fast_bfloat16 else "bfloat16")
    for module in (devices, placement, fitting):
        patch.setattr(module, "survey", lambda: found)
    for module in (placement, fitting):
        patch.setattr(module, "gpu_rates", lambda dtype, device: (1e5, 1e12))
        patch.setattr(module, "matrix_gflops", lambda dtype: 100.0 if dtype == torch.float32 else 200.0)
        patch.setattr(module, "compute_dtype", lambda asked: torch.bfloat16 if asked in rounds else torch.float32)


def _found(limit_gb: float | None, cuts: bool = False, **settings: object) -> list[Fitting]:
    train = TrainConfig.model_validate({"max_memory_gb": limit_gb, "device": "cpu", **settings})
    trainable = lora_parameters(BASE.geometry, train.lora.rank, train.lora.targets)
    work = Workload(BASE.geometry, trainable, max(LENGTHS), 4000)
    placed = place(work, train)
    assert placed.misfit is not None
    return Fitter(work, train, placed, Rows(LENGTHS, cuts), NAME, 30).found()


def _settings(found: Sequence[Fitting]) -> list[dict[str, object]]:
    return [one.change.settings for one in found]


def test_a_forced_mode_is_given_up_first(monkeypatch: pytest.MonkeyPatch) -> None:
    _without_measuring(monkeypatch)
    found = _found(8, memory="keep")
    assert _settings(found)[0] == {"train.memory": "auto"}
    assert found[0].memory.way in ("recompute", "stream") and found[0].seconds > 0


def test_all_that_fits_is_below_the_limit_and_ordered_by_what_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    _without_measuring(monkeypatch, fast_bfloat16=False)
    found = _found(8, memory="keep")
    severities = [one.change.severity for one in found]
    assert severities == sorted(severities) and len(found) > 2
    assert all(one.memory.bytes <= 8e9 for one in found)
    assert {"train.precision": "bfloat16"} in [
        {key: value for key, value in one.items() if key == "train.precision"} for one in _settings(found)
    ]


def test_the_time_is_that_of_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    _without_measuring(monkeypatch, fast_bfloat16=False)
    asked = {"memory": "recompute", "precision": "float32", "pack_tokens": 8192}
    work = Workload(BASE.geometry, 10**7, max(LENGTHS), 4000)
    needed = memory_on_processor(work, 4, TrainConfig.model_validate({**asked, "max_memory_gb": 1000})).bytes
    seconds = {str(one.change.settings): one.seconds for one in _found(0.95 * needed / 1e9, **asked)}
    exact = seconds["{'train.pack_tokens': 4096}"]
    assert seconds["{'train.precision': 'bfloat16'}"] == pytest.approx(exact / 2)


def test_rows_are_dropped_only_if_most_of_them_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    _without_measuring(monkeypatch)
    for cuts, what in ((False, "drops 10 of 100"), (True, "cuts 10 of 100")):
        found = _found(2.2, cuts)
        shorter = [one for one in found if "curate.max_length" in one.change.settings]
        assert all(what in " ".join(cost.sentence() for cost in one.change.costs) for one in shorter)
    lengths = [
        one.change.settings["curate.max_length"] for one in _found(2.2) if "curate.max_length" in one.change.settings
    ]
    assert all(one >= 300 for one in lengths), "at 300 and above nine of ten rows stay"


def test_a_smaller_base_is_last_and_has_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    _without_measuring(monkeypatch)
    found = _found(2.1)
    assert found[-1].change.severity is Severity.OTHER_MODEL
    assert found[-1].change.settings["base.model"] == "Qwen/Qwen2.5-0.5B-Instruct"


def test_nothing_fits_into_less_than_python_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    _without_measuring(monkeypatch)
    assert _found(0.3) == []


def test_a_second_card_or_the_processor_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(CARD, free_bytes=5_000_000_000)
    _without_measuring(monkeypatch, small, replace(small, index=1))
    monkeypatch.setattr(placement, "free_memory_bytes", lambda: 64 * 10**9)
    found = _settings(_found(None, device="cuda", memory="keep"))
    assert {"train.device": "cpu", "train.gpus": 1} in found, found
    wide = replace(CARD, free_bytes=60_000_000_000)
    _without_measuring(monkeypatch, wide)
    assert {"train.device": "cuda"} in _settings(_found(None, memory="keep", **_more_than_free(monkeypatch)))


def _more_than_free(patch: pytest.MonkeyPatch) -> dict[str, object]:
    patch.setattr(placement, "free_memory_bytes", lambda: 2 * 10**9)
    return {}
