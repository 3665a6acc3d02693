"""Losses that no real cluster gives on demand: what Ray says about them is scripted."""

from __future__ import annotations

from threading import Condition
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray")

from ray.exceptions import ActorDiedError

from journeyman.cluster import ray_errors, ray_pool
from journeyman.cluster.messages import packed, unpacked
from journeyman.cluster.ray_pool import Pool
from journeyman.cluster.replicas import Replicas


class _Ray:
    """Stands in for the module: references are names, and `answers` says what each gives."""

    def __init__(self, cpus: int) -> None:
        self.cpus = cpus
        self.answers: dict[str, Any] = {}
        self.made = 0

    def remote(self, **_: Any) -> Any:
        def class_of(_: Any) -> Any:
            return SimpleNamespace(remote=self._worker)

        return class_of

    def _worker(self) -> Any:
        self.made += 1
        name = f"worker {self.made}"
        call = SimpleNamespace(remote=lambda pieces: [f"{name}: {unpacked([pieces])}", "the rest"])
        return _Worker(name, SimpleNamespace(remote=lambda *_: f"{name}: start"), call)

    def put(self, what: Any) -> Any:
        return what

    def kill(self, _: Any) -> None: ...

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(self.cpus)}

    def wait(self, references: list[str], num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        return [one for one in references if one in self.answers][:num_returns], []

    def get(self, reference: str | list[str]) -> Any:
        if isinstance(reference, list):
            return [self.get(reference[0]), b""]
        answer = self.answers[reference]
        if isinstance(answer, Exception):
            raise answer
        return answer


class _Worker:
    def __init__(self, name: str, start: Any, call: Any) -> None:
        self.name, self.start, self.call = name, start, call


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> tuple[Pool, _Ray]:
    fake = _Ray(cpus=16)
    for module in (ray_pool, ray_errors):
        monkeypatch.setattr(module, "ray", fake)
    head = SimpleNamespace(check=lambda: None, wait=lambda: None, answered=True)
    monkeypatch.setattr(ray_pool, "Head", lambda: head)
    made = Pool(None)
    made.begin(len, list)
    return made, fake


def test_a_result_that_arrived_before_its_worker_was_lost_is_taken(pool: tuple[Pool, _Ray]) -> None:
    pool_, fake = pool
    fake.answers = {"worker 1: start": None}
    pool_.results(lambda: False)
    for number, name in enumerate(("A", "B")):
        pool_.add(number, name, name)
    pool_._send()
    assert set(pool_._running) == {"worker 1: A", "worker 1: B"}
    fake.answers |= {"worker 1: A": ActorDiedError(), "worker 1: B": packed("made")[0]}
    assert pool_.results(lambda: False) == {}
    assert pool_.results(lambda: False) == {1: "made"}
    assert [job.name for job in pool_._queue] == ["A"]


def test_a_node_lost_while_all_its_workers_start_counts_once(pool: tuple[Pool, _Ray]) -> None:
    pool_, fake = pool
    fake.answers = {f"worker {n}: start": ActorDiedError() for n in range(1, 17)}
    for _ in range(16):
        pool_.results(lambda: False)
    assert not pool_._starting and pool_._failed == 1


def test_of_equal_replicas_the_last_one_is_asked_again() -> None:
    slow, ready = SimpleNamespace(started=None, asked=0), SimpleNamespace(started=1.0, asked=0)
    replicas = Replicas.__new__(Replicas)
    replicas._all, replicas._changed = [slow, ready], Condition()  # type: ignore[list-item]
    replicas._failed, replicas._leased, replicas._last = None, 0, None
    replicas.refuse = lambda: None  # type: ignore[method-assign]
    assert replicas._lease(1) is ready
    ready.asked, slow.started = 0, 2.0  # it has answered, and the earlier one of the list has started
    assert replicas._lease(1) is ready
