"""Steps of a planned run are tried in a process of their own; what a run computes is known before it begins."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from journeyman.config import TrainConfig
from journeyman.models.gguf_file import GgufFile
from journeyman.models.weights import load_decoder
from journeyman.protocols import SilentReporter
from journeyman.rendering.rendered_rows import RenderedRows
from journeyman.rendering.renderer import Rendered
from journeyman.sizing.memory import MemoryWay
from journeyman.sizing.memory_choice import MemoryChoice
from journeyman.training import trial_steps
from journeyman.training.batches import Pack, pack
from journeyman.training.cpu import CpuEngine
from journeyman.training.devices import Gpu
from journeyman.training.engine import KeyedPack, LossSum
from journeyman.training.loop import Trainer, TrainingJob
from journeyman.training.placement import Placement
from journeyman.training.schedule import Schedule, groups_of, schedule_of, work_of
from journeyman.training.trial_messages import Measured, Trial, TrialGroup, TrialPack
from journeyman.training.trial_steps import Adapters, TrialFailed, schedules_of, try_steps

CONFIG = TrainConfig.model_validate(
    {"epochs": 3, "batch_size": 5, "warmup_steps": 1, "patience": 99, "precision": "float32", "lora": {"rank": 2}}
)


def _rows(count: int, seed: int = 0) -> list[Rendered]:
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(3, 200, (24,), generator=generator).tolist()
    ends = (torch.randint(3, 200, (8 + 7 * (number % 6),), generator=generator).tolist() for number in range(count))
    return [Rendered([*start, *end, 2], 26) for end in ends]  # their beginning is shared


def _lazily(rows: list[Rendered]) -> RenderedRows:
    return RenderedRows(rows.__getitem__, [len(row.ids) for row in rows])


class _Watched(CpuEngine):
    """Counts what the loop lets it compute."""

    trained: Counter[tuple[int, ...]]
    validations: int

    def accumulate(self, packs, divisor, heard):  # type: ignore[no-untyped-def]
        self.trained[tuple(sorted(len(one.pack.ids_T) for one in packs))] += 1
        return super().accumulate(packs, divisor, heard)

    def evaluate(self, packs, heard) -> LossSum:  # type: ignore[no-untyped-def]
        self.validations += 1
        return super().evaluate(packs, heard)


@pytest.mark.parametrize("group_tokens", [0, 150])
def test_the_schedule_is_what_the_loop_computes(tiny_gguf: Path, tmp_path: Path, group_tokens: int) -> None:
    train, val = _rows(23), _rows(6, 1)
    engine = _Watched(load_decoder(GgufFile(tiny_gguf), torch.float32), CONFIG)
    engine.trained, engine.validations = Counter(), 0
    Trainer(
        TrainingJob(train, val, CONFIG, "same", tmp_path / "checkpoints", 100, group_tokens), engine, SilentReporter()
    ).run()
    made = schedule_of(_lazily(train), _lazily(val), CONFIG, 100, group_tokens)
    groups = [group for epoch in made.epochs for group in epoch.groups]
    assert Counter(tuple(sorted(len(one.ids_T) for one in group)) for group in groups) == engine.trained
    assert sum(epoch.validations for epoch in made.epochs) == engine.validations
    assert all(epoch.share == 1.0 for epoch in made.epochs)


def test_a_long_run_is_known_from_some_of_its_steps() -> None:
    rows = _lazily(_rows(40) * 200)
    made = schedule_of(rows, _lazily([]), CONFIG.model_copy(update={"epochs": 2}), 2048, 0)
    assert 0 < rows.rendered < 3000 and all(0.1 < epoch.share < 0.2 for epoch in made.epochs)


@pytest.mark.parametrize("place", [0, 3333, 7999])
def test_the_longest_row_of_a_long_run_is_tried(tiny_gguf: Path, place: int) -> None:
    rows = _rows(40) * 200
    rows[place] = Rendered([*range(3, 203), 2], 150)
    most = schedule_of(_lazily(rows), _lazily([]), CONFIG, 2048, 0)
    base = GgufFile(tiny_gguf)
    every = groups_of([most])
    groups = trial_steps._chosen(every, trial_steps._largest(every), base.geometry)
    trial = trial_steps._trial(base, None, base.geometry, _placed(), CONFIG, [most], groups, 5.0, whole=False)
    tried = [max(len(row) for row in _rows_in(one)) for group in trial.groups for one in group.packs()]
    assert max(tried) == 201


def test_what_is_largest_has_most_tokens_or_the_longest_row() -> None:
    many, short = pack(_rows(20), 2048), pack(_rows(1), 2048)
    long = pack([Rendered([*range(3, 203), 2], 150)], 2048)
    assert [id(one) for one in trial_steps._largest([short, many, long])] == [id(many), id(long)]
    assert [id(one) for one in trial_steps._largest([long, short])] == [id(long)]


def _rows_in(one: Pack) -> list[list[int]]:
    """Token ids of the segments of a pack, with the beginnings that they continue."""
    segments = [part.tolist() for part in torch.split(one.ids_T, one.lengths)]
    return [(segments[prefix] if prefix >= 0 else []) + own for own, prefix in zip(segments, one.prefixes, strict=True)]


def test_a_run_of_very_many_epochs_is_planned_in_one_pass_over_them() -> None:
    made = schedule_of(_lazily(_rows(9)), _lazily([]), CONFIG.model_copy(update={"epochs": 100_000}), 2048, 0)
    steps = made.epochs[0].steps
    assert len(made.epochs) == 100_000
    assert sum(epoch.validations for epoch in made.epochs) == 1 + -(-steps * 100_000 // -(-steps // 2))


def test_the_work_of_a_pack_counts_what_attends_to_what() -> None:
    made = schedule_of(_lazily(_rows(2)), _lazily([]), CONFIG, 2048, 0).epochs[0].groups[0]
    work = work_of(made)
    shared, first, second = 24, 8 + 1, 15 + 1  # a beginning, and what follows of each row
    pairs = sum(n * (n + 1) // 2 for n in (shared, first, second)) + shared * (first + second)
    begins = made[0].lengths[0]
    assert begins in (shared, shared + 1)  # by chance the first token after it may be the same
    if begins == shared:
        assert (work.packs, work.tokens, work.pairs) == (1, shared + first + second, pairs)
    assert work.labels == 2 * 33 - 2 * 26 + 7


def test_a_pack_survives_the_pipe() -> None:
    (pack,) = schedule_of(_lazily(_rows(5)), _lazily([]), CONFIG, 2048, 0).epochs[0].groups[0]
    again = TrialPack.model_validate_json(TrialPack.of(pack).model_dump_json()).pack()
    for name in ("ids_T", "source_L", "labels_L", "weights_L"):
        assert torch.equal(getattr(again, name), getattr(pack, name))
    assert (again.lengths, again.prefixes, again.row_tokens) == (pack.lengths, pack.prefixes, pack.row_tokens)
    assert KeyedPack(again, "0").pack.label_weight == pack.label_weight


def _placed(way: MemoryWay = "keep") -> Placement:
    return Placement((), torch.float32, 10.0, MemoryChoice(way, 100, 150, 10**9))


def _schedules(base: GgufFile, train: list[Rendered], val: list[Rendered], placed: Placement) -> list[Schedule]:
    return schedules_of(base.geometry, placed, CONFIG, Adapters([(_lazily(train), _lazily(val))]))


@pytest.mark.parametrize("way", ["keep", "stream"])
def test_steps_are_tried_by_the_engine_that_trains(tiny_gguf: Path, way: MemoryWay) -> None:
    base = GgufFile(tiny_gguf)
    schedules = _schedules(base, _rows(23), _rows(6, 1), _placed(way))
    made = try_steps(base, None, base.geometry, _placed(way), CONFIG, schedules, 30.0, SilentReporter())
    assert made.groups >= 3 and made.repetitions > made.groups
    assert len(made.time.epochs) == CONFIG.epochs and all(one > 0 for one in made.time.epochs)
    assert 0 < made.time.validation_s < made.time.seconds
    assert made.time.low < made.time.seconds < made.time.high
    assert made.load_s > 0 and made.checkpoint_s > 0
    assert made.measured_peak_bytes is not None and made.measured_peak_bytes > 100 << 20  # Python and torch


def test_a_process_that_fails_is_said(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = GgufFile(tiny_gguf)
    made = replace(_placed(), memory=MemoryChoice("keep", 100, 150, 1))
    schedules = _schedules(base, _rows(6), [], made)
    monkeypatch.setattr(trial_steps, "MODULE", "journeyman.no_such_module")
    with pytest.raises(TrialFailed, match=r"ended with exit code 1: .*no_such_module"):
        try_steps(base, None, base.geometry, made, CONFIG, schedules, 5.0, SilentReporter())


def test_a_process_whose_parent_has_ended_ends_too() -> None:
    """Before it imports torch."""
    orphan = subprocess.run([sys.executable, "-m", trial_steps.MODULE, "0"], stdin=subprocess.DEVNULL, check=False)
    assert orphan.returncode == 1
    loaded = f"import sys, {trial_steps.MODULE}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", loaded], check=True)


class _Stops(SilentReporter):
    stop_requested = True


def test_ctrl_c_ends_the_process(tiny_gguf: Path) -> None:
    base = GgufFile(tiny_gguf)
    schedules = _schedules(base, _rows(6), [], _placed())
    with pytest.raises(TrialFailed, match="stopped"):
        try_steps(base, None, base.geometry, _placed(), CONFIG, schedules, 30.0, _Stops())


def _measured(groups: list[list[float]], warm_ups: list[int]) -> Measured:
    return Measured(groups=groups, validation=[], updates=[0.1], warm_ups=warm_ups, measured_s=1.0)


def test_first_steps_cost_once_and_captured_passes_once_for_each_size() -> None:
    found = _measured([[5.0, 2.0, 1.0, 1.0], [2.5, 2.5, 2.0, 2.0], [3.5, 3.5, 3.0, 3.0]], [2, 2, 2])
    assert trial_steps._first_times(found, 0) == pytest.approx(5.0 + 1.0 + 1.0)
    assert trial_steps._first_times(found, 11) == pytest.approx(5.0 + 10 * 1.0)
    loads = _measured([[5.0, 2.0, 1.0], [0.2, 0.2, 0.1], [3.2, 0.2, 0.1], [0.2, 0.2, 0.1]], [2] * 4)
    assert trial_steps._first_times(loads, 11) == pytest.approx(5.0 + 3.0 + 10 * 0.2)  # kernels are loaded once
    assert trial_steps._first_times(_measured([[5.0, 2.0]], [2]), 3) == 0.0  # not repeated: not known
    assert trial_steps._first_times(_measured([[0.9, 1.0, 1.0]], [1]), 0) == 0.0


def test_a_long_trial_reaches_a_process_that_starts_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a pipe holds."""
    long = TrialPack(
        ids=[7] * 200_000, lengths=[200_000], prefixes=[-1], source=[0], labels=[7], weights=[1.0], row_tokens=200_000
    )
    trial = Trial(
        base="", config=CONFIG, memory="keep", factors=None, gpus=[], sharded=False,
        groups=[TrialGroup(parts=[long], size=1.0)], validation=[], budget_s=5.0,
    )  # fmt: skip
    helpers = Path(__file__).parents[1] / "helpers"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(helpers), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(trial_steps, "MODULE", "late_reader")
    assert trial_steps.run_child(trial, 60.0, SilentReporter()).groups == [[len(trial.model_dump_json())]]


def test_a_trial_that_only_compiled_kernels_is_made_again(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are cached by then, as they will be when training begins."""
    budgets = list[float]()

    def child(trial: Trial, limit_s: float, reporter: object) -> Measured:
        budgets.append(trial.budget_s)
        times = [12.0] if len(budgets) == 1 else [0.12, 0.11, 0.1, 0.1]
        groups = [times, *[[] if len(budgets) == 1 else times] * (len(trial.groups) - 1)]
        return Measured(
            groups=groups, validation=[[] for _ in trial.validation], updates=[0.01], warm_ups=[2] * len(groups),
            measured_s=1.0, measured_peak_bytes=10**9,
        )  # fmt: skip

    monkeypatch.setattr(trial_steps, "run_child", child)
    base = GgufFile(tiny_gguf)
    placed = replace(_placed(), gpus=(Gpu(0, "card", 10**10, 10**10, (9, 0)),))
    schedules = _schedules(base, _rows(23), [], placed)
    made = try_steps(base, None, base.geometry, placed, CONFIG, schedules, 5.0, SilentReporter())
    assert budgets == [5.0, 5.0]
    assert made.groups > 1 and made.measured_peak_bytes == 10**9
    calls = sum(len(groups_of([one])) for one in schedules)
    assert made.time.seconds < 3 * calls


@pytest.mark.parametrize(("tried", "largest"), [(1, False), (3, True)])
def test_whether_the_largest_was_tried_is_told(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch, tried: int, largest: bool
) -> None:
    """The peak of smaller steps says nothing of the run's."""

    def child(trial: Trial, limit_s: float, reporter: object) -> Measured:
        groups = [[0.1, 0.1] if number < tried else [] for number in range(len(trial.groups))]
        return Measured(
            groups=groups, validation=[[] for _ in trial.validation], updates=[0.01], warm_ups=[1] * len(groups),
            measured_s=1.0, measured_peak_bytes=10**9,
        )  # fmt: skip

    monkeypatch.setattr(trial_steps, "run_child", child)
    base = GgufFile(tiny_gguf)
    schedules = _schedules(base, _rows(23), [], _placed())
    made = try_steps(base, None, base.geometry, _placed(), CONFIG, schedules, 5.0, SilentReporter())
    assert (made.groups, made.measured_peak_bytes) == (tried, 10**9 if largest else None)
