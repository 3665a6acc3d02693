"""The protocol between the loop and a device: additive sums, transferable state, and the identity of checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from conftest import write_tiny_gguf
from journeyman.config import TrainConfig
from journeyman.errors import InputError, Interrupted
from journeyman.models.gguf_file import GgufFile
from journeyman.models.weights import load_decoder
from journeyman.protocols import SilentReporter
from journeyman.rendering.renderer import Rendered
from journeyman.training.batches import pack
from journeyman.training.checkpoint import load_checkpoint, save_checkpoint
from journeyman.training.cpu import CpuEngine
from journeyman.training.engine import KeyedPack, TrainingEngine
from journeyman.training.loop import Trainer, TrainingJob

CONFIG = TrainConfig.model_validate(
    {
        "epochs": 2, "batch_size": 5, "learning_rate": 3e-3, "warmup_steps": 2, "precision": "float32",
        "lora": {"rank": 4, "dropout": 0.1},
    }
)  # fmt: skip


LOSSES = [15.06938, 13.18442, 13.51396, 13.98145, 12.24507, 13.08447, 12.63742, 10.90926]
VALIDATIONS = [14.92909, 14.31195, 13.6563, 13.26777, 13.15699]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> GgufFile:
    return GgufFile(write_tiny_gguf(tmp_path_factory.mktemp("engine") / "tiny.gguf", seed=3))


def _engine(file: GgufFile, dtype: torch.dtype = torch.float32) -> CpuEngine:
    return CpuEngine(load_decoder(file, dtype), CONFIG)


def _rows(count: int, start: int = 0) -> list[Rendered]:
    """Rows that count upwards, with various lengths and weights."""
    return [
        Rendered(
            [*((start + number * 11 + i + 3) % 200 + 3 for i in range(14 + number % 6)), 2],
            6,
            weight=1 - number % 3 / 4,
        )
        for number in range(count)
    ]


def _keyed(count: int) -> tuple[list[KeyedPack], float]:
    packs = [KeyedPack(one, f"0/{number}") for number, one in enumerate(pack(_rows(count), 40))]
    assert len(packs) >= 3
    return packs, sum(one.pack.label_weight for one in packs)


def _silent(_: float) -> None: ...


def _gradients(engine: TrainingEngine) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in engine.state().items() if name.startswith("gradient/")}


def test_it_trains_as_it_always_did(file: GgufFile, tmp_path: Path) -> None:
    """Reference losses from before the engine was separated; the last digits depend on the processor."""
    job = TrainingJob(_rows(20), _rows(4, 90), CONFIG, "f", tmp_path / "checkpoints", pack_tokens=48)
    trainer = Trainer(job, _engine(file), SilentReporter())
    state = trainer.run()
    assert state.losses == pytest.approx(LOSSES, rel=1e-4)
    assert [point.loss for point in state.validations] == pytest.approx(VALIDATIONS, rel=1e-4)
    assert {value.dtype for value in trainer.best.values()} == {torch.float32}


def test_two_workers_that_share_a_step_make_the_step(file: GgufFile) -> None:
    packs, labels = _keyed(9)
    one, first, second = (_engine(file) for _ in range(3))
    whole = one.accumulate(packs, labels, _silent)
    made = first.accumulate(packs[::2], labels, _silent) + second.accumulate(packs[1::2], labels, _silent)
    assert made.labels == pytest.approx(whole.labels) == pytest.approx(labels)
    assert made.loss == pytest.approx(whole.loss, rel=1e-6)
    theirs = _gradients(second)
    together = {name: value + theirs.get(name, 0) for name, value in first.state().items()}
    assert theirs.keys() == _gradients(one).keys()
    first.load_state(together)
    assert first.clip(1.0) == pytest.approx(one.clip(1.0), rel=1e-5)
    for engine in (one, first):
        engine.step(1e-3)
        assert not _gradients(engine)
    for name, value in one.adapter().items():
        assert torch.allclose(value, first.adapter()[name], rtol=1e-4, atol=1e-6), name
    parts = [first.evaluate([each.pack for each in some], _silent) for some in (packs[::2], packs[1::2])]
    mean = one.evaluate([each.pack for each in packs], _silent).mean
    assert (parts[0] + parts[1]).mean == pytest.approx(mean, rel=1e-5)


def test_work_that_is_given_up_leaves_the_gradients_of_before(file: GgufFile) -> None:
    packs, labels = _keyed(9)
    engine = _engine(file)
    engine.accumulate(packs[:1], labels, _silent)
    before = _gradients(engine)

    def stopping(tokens: float) -> None:
        if tokens > packs[1].pack.row_tokens:
            raise Interrupted("enough")

    with pytest.raises(Interrupted):
        engine.accumulate(packs[1:], labels, stopping)
    assert before and all(torch.equal(value, before[name]) for name, value in _gradients(engine).items())


def test_state_moves_to_another_engine_bit_for_bit(file: GgufFile) -> None:
    packs, labels = _keyed(8)
    one, other = _engine(file), _engine(file)
    one.accumulate(packs, labels, _silent)
    one.clip(1.0)
    one.step(1e-2)
    one.accumulate(packs[:1], labels, _silent)
    other.load_state(one.state())
    for engine in (one, other):
        engine.accumulate(packs[1:], labels, _silent)
        engine.clip(1.0)
        engine.step(1e-2)
    assert one.state().keys() == other.state().keys()
    assert all(torch.equal(value, other.state()[name]) for name, value in one.state().items())


def test_a_checkpoint_goes_on_with_the_same_engine_only(file: GgufFile, tmp_path: Path) -> None:
    job = TrainingJob(_rows(10), [], CONFIG, "f", tmp_path / "checkpoints")
    made = Trainer(job, _engine(file), SilentReporter()).run()
    assert made.engine == "cpu float32"
    with pytest.raises(InputError, match="made by the engine 'cpu float32', this one is 'cpu bfloat16'"):
        Trainer(job, _engine(file, torch.bfloat16), SilentReporter()).run()
    loaded = load_checkpoint(job.folder)
    assert loaded is not None
    save_checkpoint(job.folder, loaded[0].model_copy(update={"engine": ""}), loaded[1])
    resumed = Trainer(job, _engine(file), SilentReporter()).run()
    assert (resumed.step, resumed.engine) == (made.step, "cpu float32"), "checkpoints of before name no engine"


class _Forgets(CpuEngine):
    """Drops one of the packs that it is given."""

    def accumulate(self, packs, divisor, heard):  # type: ignore[no-untyped-def]
        return super().accumulate(packs[1:], divisor, heard)


def test_an_engine_that_loses_a_pack_is_found_out(file: GgufFile, tmp_path: Path) -> None:
    job = TrainingJob(_rows(10), [], CONFIG, "f", tmp_path / "checkpoints", pack_tokens=20, group_tokens=90)
    with pytest.raises(AssertionError, match="lost or taken twice"):
        Trainer(job, _Forgets(load_decoder(file, torch.float32), CONFIG), SilentReporter()).run()
