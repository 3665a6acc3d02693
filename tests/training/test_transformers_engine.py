"""The engine that trains through transformers and peft: against our own decoder, and against a plain loop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import StopsAfter
from equal_training import peft_losses
from journeyman.config import TrainConfig
from journeyman.errors import InputError, Interrupted
from journeyman.models.hf_folder import HfFolder
from journeyman.models.transformers_model import model_sizes
from journeyman.models.weights import load_decoder
from journeyman.protocols import SilentReporter
from journeyman.rendering.renderer import Rendered
from journeyman.training.batches import pack
from journeyman.training.cpu import CpuEngine
from journeyman.training.engine import KeyedPack, TrainingEngine
from journeyman.training.loop import Trainer, TrainingJob
from journeyman.training.transformers_engine import TransformersEngine
from journeyman.training.unpacking import rows_of
from other_families import other_folder
from tiny_families import save_folder, transformers_model

pytest.importorskip("peft")
SETTINGS: dict[str, Any] = {
    "epochs": 3, "batch_size": 4, "learning_rate": 2e-2, "warmup_steps": 2, "weight_decay": 0.01, "patience": 99,
    "precision": "float32", "lora": {"rank": 4, "alpha": 8},
}  # fmt: skip
CONFIG = TrainConfig.model_validate(SETTINGS)
DROPOUT = TrainConfig.model_validate({**SETTINGS, "lora": {"rank": 4, "alpha": 8, "dropout": 0.2}})


def _rows(count: int = 12) -> list[Rendered]:
    """Counts from a start of their own, with various lengths and weights; two thirds begin with the same tokens."""
    rows = []
    for number in range(count):
        system = list(range(40, 60 + 4 * (number % 2))) if number % 3 else []
        ids = [3 + (number * 37 + i * (1 + number % 2)) % 200 for i in range(9 + number % 5)]
        rows.append(Rendered([*system, *ids, 2], len(system) + 4 + number % 3, weight=1 - number % 4 / 5))
    return rows


def _silent(_: float) -> None: ...


def _engine(folder: Path, config: TrainConfig = CONFIG, *, recompute: bool = False) -> TransformersEngine:
    return TransformersEngine(folder, model_sizes(folder), config, torch.float32, recompute=recompute)


def _step(engine: TrainingEngine, number: int) -> tuple[float, dict[str, torch.Tensor]]:
    """One optimizer step: the loss, and the gradients before they are clipped."""
    packs = [KeyedPack(one, f"{number}/{place}") for place, one in enumerate(pack(_rows(), 150))]
    assert len(packs) > 1 and any(max(one.pack.prefixes) >= 0 for one in packs)
    loss = engine.accumulate(packs, sum(one.pack.label_weight for one in packs), _silent).loss
    gradients = {name: value.clone() for name, value in engine.state().items() if name.startswith("gradient/")}
    engine.clip(1.0)
    engine.step(5e-3)
    return loss, gradients


@pytest.fixture(scope="module")
def stablelm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return other_folder("stablelm", tmp_path_factory.mktemp("stablelm"))


@pytest.mark.parametrize("case", ["llama", "qwen2", "gemma3", "phi 3"])
def test_it_computes_what_our_own_engine_computes(case: str, tmp_path: Path) -> None:
    folder = save_folder(transformers_model(case), tmp_path)
    own, other = CpuEngine(load_decoder(HfFolder(folder), torch.float32), CONFIG), _engine(folder)
    if case != "phi 3":  # whose layers are not in the order of our own modules
        assert all(torch.equal(value, own.adapter()[name]) for name, value in other.adapter().items())
    other.load_state(own.state())
    for number in range(4):
        (loss, gradients), (wanted, references) = _step(other, number), _step(own, number)
        assert loss == pytest.approx(wanted, rel=1e-6)
        assert gradients.keys() == references.keys()
        for name, value in gradients.items():
            assert (value - references[name]).norm() <= 1e-4 * references[name].norm(), name
    packs = pack(_rows(), 150)
    assert other.evaluate(packs, _silent).mean == pytest.approx(own.evaluate(packs, _silent).mean, rel=1e-6)
    sizes, geometry = other.sizes, own.sizes
    for name in ("parameters", "linear_parameters", "layers", "hidden", "vocab", "context", "cache_width"):
        assert getattr(sizes, name) == getattr(geometry, name), name
    assert sorted(sizes.adapted_shapes(CONFIG.lora.targets)) == sorted(geometry.adapted_shapes(CONFIG.lora.targets))


def test_packs_are_taken_apart_into_their_rows() -> None:
    rows, packs = _rows(), pack(_rows(), 150)
    found = [row for one in packs for row in rows_of(one)]
    assert sorted(row.ids_T.tolist() for row in found) == sorted(row.ids for row in rows)
    for row in found:
        (wanted,) = [one for one in rows if one.ids == row.ids_T.tolist()]
        assert row.labels_L.tolist() == wanted.ids[wanted.prompt_tokens :]
        assert row.ids_T[row.source_L + 1].tolist() == row.labels_L.tolist()
        assert set(row.weights_L.tolist()) == {torch.tensor(wanted.weight).item()}


def _plain_loop(folder: Path, targets: list[str], start: dict[str, torch.Tensor], steps: int) -> list[float]:
    """The same training with nothing but transformers, peft and torch."""
    import peft
    from transformers import AutoModelForCausalLM

    model: Any = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM"),
    )
    return peft_losses(model, start, _rows(), CONFIG, steps)[0]


TARGETS = {
    "stablelm": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "starcoder2": ["q_proj", "k_proj", "v_proj", "o_proj", "c_fc", "c_proj"],
    "falcon_h1": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "lfm2": ["q_proj", "k_proj", "v_proj", "out_proj", "in_proj", "w1", "w2", "w3"],
    "qwen2_moe": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "falcon": ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"],
}


@pytest.mark.parametrize("case", TARGETS)
def test_it_trains_as_a_plain_loop_does(case: str, tmp_path: Path) -> None:
    folder = other_folder(case, tmp_path / "base")
    engine = _engine(folder)
    sizes, start = model_sizes(folder), engine.adapter()
    job = TrainingJob(_rows(), [], CONFIG, "f", tmp_path / "run" / "checkpoints", pack_tokens=80)
    trainer = Trainer(job, engine, SilentReporter())
    trainer.run()
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    wanted = _plain_loop(folder, TARGETS[case], start, trainer.total_steps)
    assert wanted[-1] < 0.97 * wanted[0], "the reference learns"
    assert losses == pytest.approx(wanted, rel=1e-5)
    assert sum(map(torch.numel, start.values())) == sum(4 * sum(s) for s in sizes.adapted_shapes(CONFIG.lora.targets))


@pytest.mark.parametrize("case", ["stablelm", "falcon_h1", "lfm2"])
def test_recomputed_activations_change_no_bit(case: str, tmp_path: Path) -> None:
    folder = other_folder(case, tmp_path)
    kept, recomputed = _engine(folder, DROPOUT), _engine(folder, DROPOUT, recompute=True)
    for number in range(2):
        one, other = _step(kept, number), _step(recomputed, number)
        assert one[0] == other[0]
        assert all(torch.equal(value, other[1][name]) for name, value in one[1].items())
    assert all(torch.equal(value, recomputed.state()[name]) for name, value in kept.state().items())


def test_dropout_depends_on_the_packs_key_alone_and_evaluation_has_none(stablelm: Path) -> None:
    engines = [_engine(stablelm, DROPOUT) for _ in range(3)] + [_engine(stablelm)]
    _step(engines[0], 0)
    torch.manual_seed(5)  # changes nothing
    for engine in engines[1:]:
        engine.load_state(engines[0].state())
    packs = pack(_rows(), 150)
    assert len({engine.evaluate(packs, _silent).loss for engine in engines}) == 1
    first, same, later, without = (_step(one, at)[0] for one, at in zip(engines, (1, 1, 2, 1), strict=True))
    assert first == same and len({first, later, without}) == 3


def _job(folder: Path) -> TrainingJob:
    return TrainingJob(_rows(), _rows(3), DROPOUT, "f", folder / "checkpoints", pack_tokens=80)


def test_stopped_training_goes_on_bit_for_bit(stablelm: Path, tmp_path: Path) -> None:
    whole = Trainer(_job(tmp_path / "whole"), _engine(stablelm, DROPOUT), SilentReporter())
    wanted, stops = whole.run(), 0
    while True:
        trainer = Trainer(_job(tmp_path / "parts"), _engine(stablelm, DROPOUT), StopsAfter(40))
        try:
            state = trainer.run()
            break
        except Interrupted:
            stops += 1
            assert stops < 50, "each run gets further"
    assert stops >= 2
    assert (state.losses, state.validations) == (wanted.losses, wanted.validations)
    assert all(torch.equal(value, trainer.best[name]) for name, value in whole.best.items())
    assert state.engine.startswith("transformers 5.") and state.engine.endswith("cpu float32")


def test_work_that_is_given_up_within_a_row_leaves_the_gradients_of_before(stablelm: Path) -> None:
    engine = _engine(stablelm)
    packs = [KeyedPack(one, str(number)) for number, one in enumerate(pack(_rows(), 60))]
    engine.accumulate(packs[:1], 10.0, _silent)
    before = {name: value.clone() for name, value in engine.state().items()}
    heard: list[float] = []

    def stopping(tokens: float) -> None:
        heard.append(tokens)
        if len(heard) == 7:
            raise Interrupted("enough")

    with pytest.raises(Interrupted):
        engine.accumulate(packs[1:], 10.0, stopping)
    assert heard == sorted(heard) and heard[0] < heard[-1]
    assert all(torch.equal(value, before[name]) for name, value in engine.state().items())
    reports: list[float] = []
    engine.accumulate(packs, 10.0, reports.append)
    assert reports == sorted(reports) and reports[-1] == sum(one.pack.row_tokens for one in packs)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import socket

    def refused(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    yield


def test_nothing_is_asked_of_the_hub(stablelm: Path, no_network: None) -> None:
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    _step(_engine(stablelm), 0)
    assert before == constants.HF_HUB_OFFLINE


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    folder = other_folder("stablelm", tmp_path / "a")
    deeper = other_folder("stablelm", tmp_path / "b", num_hidden_layers=3)
    wider = other_folder("stablelm", tmp_path / "c", intermediate_size=64)
    for other, why in (
        (deeper, "unexpected keys model.layers.2"),
        (wider, "transformers cannot load it|mismatched keys"),
    ):
        (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
        with pytest.raises(InputError, match=why):
            _engine(folder)
    (deeper / "model.safetensors").write_bytes(
        (other_folder("stablelm", tmp_path / "d") / "model.safetensors").read_bytes()
    )
    with pytest.raises(InputError, match=r"missing keys model\.layers\.2"):
        _engine(deeper)
