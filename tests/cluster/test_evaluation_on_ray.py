"""An evaluation over replicas of the engine on two nodes: the answers of one machine, each asked once."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("ray")
import ray
import torch

from conftest import log_row, write_tiny_gguf
from fake_engine import ENGINE
from journeyman.artifacts import read_rows
from journeyman.checksum_lines import read_lines
from journeyman.cluster import launching
from journeyman.cluster.launching import refuse_other_engine
from journeyman.cluster.ray_engines import RayEngine, running_on_ray
from journeyman.cluster.replica import Started
from journeyman.cluster.shipping import Shipment
from journeyman.config import LoraConfig
from journeyman.errors import EngineError, Interrupted
from journeyman.evidence import RESPONSES
from journeyman.inference.dispatch import DispatchProgress, dispatch
from journeyman.inference.engines import running_engine
from journeyman.inference.response_cache import ResponseCache
from journeyman.models.gguf_file import GgufFile
from journeyman.protocols import EngineSettings, Question, SilentReporter
from journeyman.records import Message, Prediction, RegressionAnswer
from journeyman.training.export import write_gguf
from journeyman.training.lora import Adapter
from ray_cluster import ray_cluster
from replica_probes import base_of, pids, pulse_after
from test_pipeline import call

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the files that were sent to nodes."""
    return tmp_path_factory.mktemp("cache") / "journeyman" / "shipped"


@pytest.fixture(scope="module")
def address(shipped: Path) -> Iterator[str]:
    """A head without CPUs and two nodes, to which nobody is connected."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(shipped.parents[1]))
        with ray_cluster(nodes=2, cpus=1) as cluster:
            ray.shutdown()
            yield cluster.address


@pytest.fixture
def connected(address: str) -> Iterator[None]:
    ray.init(address, log_to_driver=False, namespace="journeyman")
    yield
    ray.shutdown()


def settings_of(base: Path, context: int = 512, threads: int | None = 1) -> EngineSettings:
    return EngineSettings(base, {}, context, threads, 0.0, 1)


def questions(count: int, tokens: int = 150) -> list[Question]:
    return [
        Question(f"r{n}", "coder", "base", [Message(role="user", content=f"Task {n}: amber")], tokens)
        for n in range(count)
    ]


def all_ready(engine: RayEngine) -> list[Any]:
    """All replicas, when each has loaded its engine."""
    while not (len(found := engine._pool._all) == engine.replicas and all(one.started for one in found)):
        engine._pool.refuse()
        time.sleep(0.05)
    return list(found)


def pids_of(replica: Any) -> tuple[int, int]:
    """The process of a replica, and that of its engine."""
    return ray.get(replica.actor.__ray_call__.remote(pids))  # type: ignore[no-any-return]


def gone(pid: int) -> bool:
    """Whether a process ends within half a minute."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


class Hears(SilentReporter):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


class At(SilentReporter):
    """Does something at certain numbers of complete answers."""

    def __init__(self, acts: dict[int, Callable[[], None]]) -> None:
        self.left = acts

    def advance(self, done: float, note: str = "") -> None:
        for answers in [number for number in self.left if number <= done]:
            self.left.pop(answers)()


def without_times(rows: list[Prediction]) -> list[Prediction]:
    return [row.model_copy(update={"latency_s": None, "first_token_s": None}) for row in rows]


def keys(folder: Path) -> list[str]:
    return sorted(line.content["key"] for line in read_lines(folder / RESPONSES)[0] if line.content)


def test_a_cluster_answers_as_one_machine_does(make_run: Callable[..., Path], address: str, tmp_path: Path) -> None:
    here = make_run(rows=[log_row(i) for i in range(60)], toml="parallel = 1\nthreads = 1\n")
    assert call("train", "--dir", here) == 0
    there = shutil.copytree(here, tmp_path / "there")
    assert call("evaluate", "--dir", here) == 0
    assert call("evaluate", "--dir", there, "--set", f"cluster.address={address}") == 0
    for name, kind in (("predictions", Prediction), ("regressions", RegressionAnswer)):
        local, far = (list(read_rows(one / "05-evaluation" / f"{name}.jsonl", kind)) for one in (here, there))
        assert local and (without_times(local) == without_times(far) if kind is Prediction else local == far)
    scores = [(one / "05-evaluation" / "scores.jsonl").read_bytes() for one in (here, there)]
    assert scores[0] == scores[1]
    assert keys(here) == keys(there) and len(set(keys(there))) == len(keys(there)), "each is asked once"
    before = (there / RESPONSES).read_bytes()
    assert call("evaluate", "--dir", there, "--redo", "--set", f"cluster.address={address}") == 0
    assert (there / RESPONSES).read_bytes() == before, "nothing is asked again"


def test_replicas_that_die_lose_no_row(connected: None, tiny_gguf: Path, tmp_path: Path) -> None:
    """First the process of a replica is killed, later that of the other one's engine."""
    settings, asked = settings_of(tiny_gguf), questions(60)
    with running_engine(settings) as engine:
        alone = [engine.generate(question).text for question in asked]
    with running_on_ray(settings, SilentReporter()) as engine:
        old = all_ready(engine)
        assert engine.replicas == 2 and len({one.node for one in old}) == 2
        processes = list(map(pids_of, old))
        first, second = (partial(os.kill, processes[place][place], signal.SIGKILL) for place in (0, 1))
        reporter = At({10: first, 35: second})
        found = dispatch(asked, engine, ResponseCache(tmp_path), 1, DispatchProgress(reporter, len(asked)))
        assert not reporter.left and [one.text for one in found.predictions] == alone
        assert found.peak_memory_bytes and found.peak_memory_bytes > 1 << 20
        assert len(keys(tmp_path)) == len(set(keys(tmp_path))) == len(asked)
        new = all_ready(engine)
        assert not set(old) & set(new), "each node has another one"
        assert all(gone(pid) for pids in processes for pid in pids), "the engine ends with its replica"
        processes = list(map(pids_of, new))
    assert all(gone(pid) for pids in processes for pid in pids), "and all end with the evaluation"


def test_a_question_can_be_cancelled_and_one_that_kills_replicas_is_named(connected: None, tmp_path: Path) -> None:
    """A failure ends the waiting for answers. The model goes on until its limit, which takes a while."""
    settings = settings_of(write_tiny_gguf(tmp_path / "endless.gguf", context=60_000), 60_000)
    (question,) = questions(1, tokens=50_000)
    heard: list[int] = []
    killed = set()

    def stop(pieces: int) -> None:
        heard.append(pieces)
        if pieces:
            raise Interrupted("stopped")

    def kill(_: int) -> None:
        for one in engine._pool._all:
            if one.started and one.asked and one.actor not in killed:
                killed.add(one.actor)
                os.kill(pids_of(one)[0], signal.SIGKILL)

    with running_on_ray(settings, SilentReporter()) as engine:
        with pytest.raises(Interrupted):
            engine.generate(question, stop)
        assert 0 < heard[-1] < 50_000
        pulses = [ray.get(one.actor.__ray_call__.remote(pulse_after)) for one in all_ready(engine)]
        assert [one.requests for one in pulses] == [0, 0]
        assert engine.generate(replace(question, max_tokens=5)).answer_tokens == 5
        with pytest.raises(EngineError, match="row r0, arm base: 3 replicas of the engine died"):
            engine.generate(question, kill)
        assert len(killed) == 3

        def fail(pieces: int) -> None:
            if pieces:
                engine._pool._fail(EngineError("a node has another engine"))

        with pytest.raises(EngineError, match="a node has another engine"):
            engine.generate(question, fail)  # not after its answer


def test_a_node_that_does_not_see_the_files_gets_them(
    connected: None, shipped: Path, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "Shipment", partial(Shipment, look=False))
    adapters = {role: tmp_path / f"{role}.gguf" for role in ("coder", "tester")}
    for seed, path in enumerate(adapters.values(), 1):
        adapter = Adapter(GgufFile(tiny_gguf).geometry, LoraConfig(rank=4), 0)
        torch.manual_seed(seed)
        for values in adapter.parameters.values():
            torch.nn.init.normal_(values.data, std=0.3)
        write_gguf(adapter, path)
    settings = replace(settings_of(tiny_gguf), adapters=adapters)
    asked = [replace(one, adapter=name) for name in (None, *adapters) for one in questions(4)]
    with running_engine(settings) as engine:
        local = [engine.generate(one).text for one in asked]
        answers = ResponseCache(tmp_path)
        kept = [answers.key(one, engine) for one in asked]
    assert len(set(local)) > 8, "the adapters do something"
    with running_on_ray(settings, SilentReporter()) as engine:
        assert [engine.generate(one).text for one in asked] == local
        assert [answers.key(one, engine) for one in asked] == kept, "what was answered here is not asked there"
        (place,) = {ray.get(one.actor.__ray_call__.remote(base_of)) for one in all_ready(engine)}
    assert place.parents[1] == shipped and place.name == tiny_gguf.name


def test_no_node_with_enough_cpus_is_said_at_once(connected: None, tiny_gguf: Path) -> None:
    with (
        pytest.raises(EngineError, match="no node of the cluster has 64 CPUs"),
        running_on_ray(settings_of(tiny_gguf, threads=64), SilentReporter()),
    ):
        pass


def test_a_base_that_the_engine_does_not_load_is_refused_with_the_node(connected: None, tmp_path: Path) -> None:
    strange = write_tiny_gguf(tmp_path / "strange.gguf", "nothing")
    reporter = Hears()
    with (
        pytest.raises(EngineError, match=r"node .* is left out: the engine did not start"),
        running_on_ray(settings_of(strange), reporter),
    ):
        pass
    assert len(reporter.lines) == 2 and all("is left out" in line for line in reporter.lines)


def test_an_engine_that_makes_an_evaluation_stale_is_refused() -> None:
    same = Started(ENGINE, ("a",), 1.0, 1.0)
    refuse_other_engine("far", ENGINE, ("a",), same)
    slower = Started(ENGINE.model_copy(update={"processor": "two"}), ("a",), 1.0, 1.0)
    refuse_other_engine("far", ENGINE, ("a",), slower)  # recorded, as on one machine
    newer = Started(ENGINE.model_copy(update={"build": {"commit": "abd"}}), ("a",), 1.0, 1.0)
    with pytest.raises(EngineError, match=r"node far has another engine.*commit: abc, not abd"):
        refuse_other_engine("far", ENGINE, ("a",), newer)
    with pytest.raises(EngineError, match="node far has loaded other files"):
        refuse_other_engine("far", ENGINE, ("b",), same)
