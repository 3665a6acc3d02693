"""Training on a real Ray cluster of several nodes on this machine: the same curve as on one machine, whatever dies."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

pytest.importorskip("ray")

from ray.cluster_utils import Cluster

import training_ranks
from conftest import write_tiny_gguf
from journeyman.cluster import head, ray_training, shares, training_group
from journeyman.cluster.nodes import software_here
from journeyman.cluster.ray_training import backend_of
from journeyman.cluster.shipping import Shipment
from journeyman.config import TrainConfig
from journeyman.errors import InputError, Interrupted, UsageError, WorkerDied
from journeyman.models.opening import open_base
from journeyman.protocols import SilentReporter
from journeyman.training import backends
from journeyman.training.backends import Backend, Gpus
from journeyman.training.batches import pack
from journeyman.training.checkpoint import load_checkpoint
from journeyman.training.devices import Gpu
from journeyman.training.engine import KeyedPack
from journeyman.training.loop import TrainingJob
from journeyman.training.persisting import train_to_the_end
from journeyman.training.side_by_side import train_each
from ray_cluster import add_node, ray_cluster
from training_ranks import rows

pytestmark = pytest.mark.slow

EQUAL = 1e-6
"""Of the loss, relative; sums in another order differ in the seventh digit. Measured: 2e-7."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("base") / "tiny.gguf", seed=3)


class Nodes:
    """A cluster, each of whose nodes has a cache of its own, as on another machine."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster, self._folder, self._made = cluster, folder, 0
        self.alive: list[Any] = []

    def grow_to(self, count: int) -> None:
        while len(self.alive) < count:
            cache = self._folder / f"node-{self._made}"
            self._made += 1
            self.alive.append(add_node(self._cluster, env_vars={"XDG_CACHE_HOME": str(cache)}))

    def kill_one(self) -> None:
        node = self.alive.pop()
        workers = psutil.Process(node.all_processes["raylet"][0].process.pid).children()
        self._cluster.remove_node(node, allow_graceful=False)
        for one in workers:  # they would notice a little later, perhaps after the last step
            with suppress(psutil.NoSuchProcess):
                one.kill()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with ray_cluster(nodes=0) as cluster:
        made = Nodes(cluster, tmp_path_factory.mktemp("caches"))
        made.grow_to(2)
        yield made


@pytest.fixture(scope="module", autouse=True)
def _files_of_this_machine_are_not_seen() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_training, "Shipment", partial(Shipment, look=False))
        yield


class _Reporter(SilentReporter):
    """Does something once a share of all tokens is done.

    Attributes:
        said: lines for the user.
    """

    def __init__(self, share: float = 1.0, then: Callable[[], None] | None = None) -> None:
        self._share, self._then, self._most = share, then, math.inf
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def begin(self, task: str, total: float, unit: str) -> None:
        self._most = self._share * total if task == "train" else math.inf

    def advance(self, done: float, note: str = "") -> None:
        if done > self._most:
            self._share = math.inf
            self._most = math.inf
            if self._then is None:
                self.stop_requested = True
            else:
                self._then()


class _ReporterOfAll(_Reporter):
    """The progress is that of all adapters."""

    def begin(self, task: str, total: float, unit: str) -> None:
        self._most = self._share * total


def _config(dropout: float = 0.0) -> TrainConfig:
    return training_ranks.config(dropout).model_copy(update={"checkpoint_steps": 3, "threads": 1})


def _on_ray(base: Path, reporter: _Reporter, dropout: float = 0.0) -> Backend:
    return backend_of(open_base(base), _config(dropout), "keep", None, None, reporter)


def _here(base: Path, dropout: float = 0.0) -> Backend:
    return backends.backend_of(open_base(base), _config(dropout), "keep")


def _train(
    backend: Backend, folder: Path, reporter: _Reporter | None = None, dropout: float = 0.0, name: str = ""
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Trains, or resumes; the losses of all steps and validations so far, and the adapter."""
    place = folder / name
    job = TrainingJob(rows(30), rows(7, seed=9), _config(dropout), "f", place / "checkpoints", 50, 60)
    trainer, _ = train_to_the_end(backend, job, reporter or _Reporter())
    lines = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    losses = [value for line in lines for key, value in line.items() if key in ("loss", "validation_loss")]
    return losses, trainer.best


def _assert_equal(made: tuple[list[float], Any], expected: tuple[list[float], Any]) -> None:
    assert len(expected[0]) >= 10
    assert made[0] == pytest.approx(expected[0], rel=EQUAL)
    assert made[1].keys() == expected[1].keys()
    for name, value in expected[1].items():
        assert (made[1][name] - value).norm() <= 1e-3 * value.norm()


@pytest.fixture(scope="class")
def reporter() -> _Reporter:
    return _Reporter()


@pytest.fixture(scope="class")
def backend(nodes: Nodes, base: Path, reporter: _Reporter) -> Iterator[Backend]:
    with closing(_on_ray(base, reporter)) as made:
        yield made


class TestTwoNodes:
    """What needs the same workers."""

    def test_the_curve_is_that_of_one_machine_and_the_base_is_sent_once_to_each_node(
        self, backend: Backend, reporter: _Reporter, nodes: Nodes, base: Path, tmp_path: Path
    ) -> None:
        expected = _train(_here(base), tmp_path / "here")
        for name in ("one", "two"):  # adapters of two roles
            _assert_equal(_train(backend, tmp_path / "ray", name=name), expected)
        assert (backend.peak_memory_bytes() or 0) > base.stat().st_size
        sent = [line for line in reporter.said if line.startswith("the base was sent to node")]
        assert len(sent) == 2
        assert sum(line.startswith("training on 2 processors") for line in reporter.said) == 1
        alive = [one.node_id for one in nodes.alive]
        assert Shipment(base, look=False).deliver(alive) == dict.fromkeys(alive, 0)

    def test_stopping_in_the_middle_of_a_call_leaves_the_gradients_as_they_were(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(training_group, "_LOOK_EVERY_S", 0.05)
        packs = [KeyedPack(one, str(number)) for number, one in enumerate(pack(rows(600), 60))]
        heard: list[float] = []

        def stop(tokens: float) -> None:
            heard.append(tokens)
            if tokens:
                raise Interrupted("enough")

        engine = backend.engine()
        engine.accumulate(packs[:1], 10.0, lambda _: None)
        before = engine.state()
        with pytest.raises(Interrupted, match="enough"):
            engine.accumulate(packs, 10.0, stop)
        after = engine.state()
        assert 0 < heard[-1] < sum(one.pack.row_tokens for one in packs), "it stopped in the middle"
        assert any(name.startswith("gradient/") for name in before)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_lost_node_costs_the_steps_since_the_checkpoint(nodes: Nodes, base: Path, tmp_path: Path) -> None:
    nodes.grow_to(2)
    expected = _train(_here(base), tmp_path / "here")
    reporter = _Reporter(0.6, nodes.kill_one)
    with closing(_on_ray(base, reporter)) as backend:
        _assert_equal(_train(backend, tmp_path / "ray", reporter), expected)
        assert backend.machines == 1
    said = "\n".join(reporter.said)
    assert "training worker on node" in said
    assert "resumed after step 6" in said
    assert "training on 2 processors" in said
    assert "training on 1 processors" in said


def test_a_stopped_run_goes_on_with_another_number_of_nodes(nodes: Nodes, base: Path, tmp_path: Path) -> None:
    expected = _train(_here(base, 0.1), tmp_path / "here", dropout=0.1)
    for ray, until in ((True, 0.37), (False, 0.68)):
        reporter = _Reporter(until)
        backend = _on_ray(base, reporter, 0.1) if ray else _here(base, 0.1)
        with closing(backend), pytest.raises(Interrupted):
            _train(backend, tmp_path / "parts", reporter, 0.1)
        assert load_checkpoint(tmp_path / "parts" / "checkpoints") is not None
    nodes.grow_to(2)
    with closing(_on_ray(base, _Reporter(), 0.1)) as backend:
        _assert_equal(_train(backend, tmp_path / "parts", dropout=0.1), expected)


def test_stopping_is_heard_while_nodes_are_waited_for(nodes: Nodes, base: Path) -> None:
    reporter = _Reporter()
    reporter.stop_requested = True
    with closing(_on_ray(base, reporter)) as backend, pytest.raises(Interrupted, match="nodes could train"):
        backend.engine()


def test_too_few_nodes_end_the_run_with_the_remedy(nodes: Nodes, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_training, "_NO_NODE_S", -1.0)
    monkeypatch.setattr(shares.Shares, "nodes", lambda _: [])
    with closing(_on_ray(base, _Reporter())) as backend, pytest.raises(WorkerDied, match=r"no node.*ray status"):
        backend.engine()


def test_a_plan_for_other_devices_is_refused(nodes: Nodes, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, config = open_base(base), _config()
    gpus = Gpus([Gpu(0, "H200", 1 << 30, 1 << 30, (9, 0))])
    with pytest.raises(InputError, match="no node of the cluster has one"):
        backend_of(opened, config, "keep", None, gpus, _Reporter())
    monkeypatch.setattr(ray_training, "nodes_now", lambda: [shares.Node("n", "n", 1, 4)])
    with pytest.raises(InputError, match="the cluster has 4"):
        backend_of(opened, config, "keep", None, None, _Reporter())
    on_processors = config.model_copy(update={"device": "cpu"})
    assert backend_of(opened, on_processors, "keep", None, None, _Reporter()).machines == 1


def test_a_node_with_other_software_is_refused(nodes: Nodes, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_training, "software_here", lambda: software_here() | {"torch": "1.0"})
    with closing(_on_ray(base, _Reporter())) as backend, pytest.raises(UsageError, match=r"instead of 1\.0"):
        backend.engine()


def test_a_lost_head_ends_training(nodes: Nodes, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(_on_ray(base, _Reporter())) as backend:
        engine = backend.engine()
        monkeypatch.setattr(head, "answers", lambda address, within_s: False)
        monkeypatch.setattr(head, "_LOST_AFTER_S", 0.0)
        monkeypatch.setattr(head, "_EVERY_S", 0.0)
        with pytest.raises(WorkerDied, match="head of the Ray cluster"):
            engine.adapter()


class TestSideBySide:
    """Adapters of two roles, each on one of two nodes."""

    def _train(self, base: Path, folder: Path, reporter: _Reporter, *roles: str) -> dict[str, Any]:
        """One job for each role."""
        jobs = {
            role: TrainingJob(rows(30, seed=number), rows(7, 9), _config(), "f", folder / role / "checkpoints", 50, 60)
            for number, role in enumerate(roles)
        }

        def one(backend: Backend, role: str, voice: Any) -> dict[str, torch.Tensor]:
            return train_to_the_end(backend, jobs[role], voice)[0].best

        with closing(_on_ray(base, reporter)) as backend:
            return train_each(backend, jobs, 1e6, reporter, one)

    def test_they_have_the_bits_of_the_sequential_run_with_as_many_ranks(
        self, nodes: Nodes, base: Path, tmp_path: Path, reporter: _Reporter
    ) -> None:
        nodes.grow_to(2)
        made = self._train(base, tmp_path / "both", reporter, "coder", "planner")
        said = "\n".join(reporter.said)
        assert "2 adapters are trained, 2 at the same time" in said
        for role in ("coder", "planner"):
            assert f"{role}: training on 1 processors" in said
        with pytest.MonkeyPatch.context() as patch:  # on one node only, so that each has one rank there, too
            alive = shares.nodes_now
            patch.setattr(shares.Shares, "nodes", lambda _: [one for one in alive() if one.cpus][-1:])
            alone = self._train(base, tmp_path / "alone", _Reporter(), "coder", "planner")
        assert made.keys() == alone.keys()
        for role, adapter in alone.items():
            assert all(torch.equal(made[role][name], value) for name, value in adapter.items())
        here = {}
        for number, role in enumerate(("coder", "planner")):
            job = TrainingJob(rows(30, seed=number), rows(7, 9), _config(), "f", tmp_path / "l" / role / "c", 50, 60)
            here[role] = train_to_the_end(_here(base), job, _Reporter())[0].best
        for role, adapter in here.items():
            for name, value in adapter.items():
                assert (made[role][name] - value).norm() <= 1e-3 * value.norm()

    def test_stopping_keeps_both_checkpoints_and_a_resumed_run_finishes_both(
        self, nodes: Nodes, base: Path, tmp_path: Path, reporter: _Reporter
    ) -> None:
        nodes.grow_to(2)
        expected = self._train(base, tmp_path / "whole", _Reporter(), "coder", "planner")
        with pytest.raises(Interrupted):
            self._train(base, tmp_path / "parts", _ReporterOfAll(0.4), "coder", "planner")
        for role in ("coder", "planner"):
            state, _ = load_checkpoint(tmp_path / "parts" / role / "checkpoints") or (None, None)
            assert state is not None
            assert not state.finished
        made = self._train(base, tmp_path / "parts", reporter, "coder", "planner")
        assert sum("resumed after step" in line for line in reporter.said) == 2
        for role, adapter in expected.items():
            assert all(torch.equal(made[role][name], value) for name, value in adapter.items())

    def test_the_adapter_of_a_lost_node_is_trained_on_what_is_left(
        self, nodes: Nodes, base: Path, tmp_path: Path
    ) -> None:
        nodes.grow_to(2)
        expected = self._train(base, tmp_path / "whole", _Reporter(), "coder", "planner")
        kept: list[str] = []

        def lose() -> None:  # nodes begin at different times, so one may have no checkpoint yet
            kept.extend(path.parts[-3] for path in (tmp_path / "lossy").glob("*/checkpoints/step-*"))
            nodes.kill_one()

        reporter = _ReporterOfAll(0.4, lose)
        made = self._train(base, tmp_path / "lossy", reporter, "coder", "planner")
        lost = {line.partition(":")[0] for line in reporter.said if "was lost" in line}
        assert lost
        for role in lost.intersection(kept):
            assert any(line.startswith(f"{role}: resumed after step") for line in reporter.said)
        for role, adapter in expected.items():
            for name, value in adapter.items():
                assert (made[role][name] - value).norm() <= 1e-3 * value.norm()
