"""On a real Ray cluster of several nodes on this machine: the same results in the same order, whatever dies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray")

import ray
from ray._private.internal_api import memory_summary
from ray.cluster_utils import Cluster

from journeyman.cluster.connecting import connected
from journeyman.cluster.nodes import Node, check_nodes, refuse_other, software_here
from journeyman.cluster.ray_executor import RayExecutor
from journeyman.errors import InputError, Interrupted, UsageError, WorkerDied
from ray_cluster import STORE, add_node, ray_cluster

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ray_cluster(nodes=2) as made:
        yield made


def doubled(state: int, batch: int) -> tuple[int, str]:
    return batch * state, ray.get_runtime_context().get_node_id()


def two() -> int:
    return 2


def dies_once(marks: Path, batch: int) -> int:
    """The worker is killed at batch 3, the first time."""
    if batch == 3 and not (marks / "died").exists():
        (marks / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return batch


def same(path: Path) -> Path:
    return path


def dies(_: int, batch: int) -> int:
    if batch == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return batch


def refuses(_: int, batch: int) -> int:
    raise InputError(f"batch {batch} is bad", "mend it")


def no_state() -> int:
    raise InputError("no state", "mend it")


def slow(seconds: float, batch: int) -> int:
    time.sleep(seconds)
    return batch


def test_results_come_in_order_from_all_nodes(cluster: Cluster) -> None:
    nodes = set()
    for number, (value, node) in enumerate(RayExecutor().map_batches(doubled, two, range(100_000))):
        assert value == 2 * number
        nodes.add(node)
        if len(nodes) == 2:  # one worker may start long before the other
            break
    assert len(nodes) == 2


def test_no_batches_no_results(cluster: Cluster) -> None:
    assert list(RayExecutor().map_batches(doubled, two, [])) == []


def test_batches_are_read_a_bounded_number_ahead(cluster: Cluster) -> None:
    read = []

    def batches() -> Iterator[int]:
        for number in range(1000):
            read.append(number)
            yield number

    results = RayExecutor().map_batches(doubled, two, batches())
    assert next(results)[0] == 0 and len(read) <= 9
    results.close()  # type: ignore[attr-defined]


def test_a_killed_worker_costs_nothing_but_time(cluster: Cluster, tmp_path: Path) -> None:
    results = list(RayExecutor().map_batches(dies_once, partial(same, tmp_path), range(20)))
    assert results == list(range(20)) and (tmp_path / "died").exists()


def test_a_batch_that_kills_every_worker_is_named(cluster: Cluster) -> None:
    with pytest.raises(WorkerDied, match=r"died 5 times at row 3"):
        list(RayExecutor().map_batches(dies, two, range(20), named=lambda batch: f"row {batch}"))


@pytest.mark.parametrize(("function", "setup"), [(refuses, two), (doubled, no_state)])
def test_an_error_arrives_as_it_was_raised(cluster: Cluster, function: Any, setup: Any) -> None:
    with pytest.raises(InputError, match=r"^batch 0 is bad|^no state") as told:
        list(RayExecutor().map_batches(function, setup, range(5)))
    assert told.value.remedy == "mend it"


def test_who_asks_to_stop_does_not_wait_for_a_slow_batch(cluster: Cluster) -> None:
    start = time.monotonic()
    with pytest.raises(Interrupted):
        list(RayExecutor().map_batches(slow, partial(float, 60), range(3), stopping=lambda: True))
    assert time.monotonic() - start < 50


def with_process(state: int, batch: int) -> tuple[int, int]:
    time.sleep(0.05)
    return batch * state, os.getpid()


def test_in_a_context_workers_live_on_with_the_next_work(cluster: Cluster) -> None:
    with RayExecutor(2) as executor:
        first = list(executor.map_batches(with_process, two, range(40)))
        again = list(executor.map_batches(with_process, partial(int, 3), range(40)))
        assert [value for value, _ in again] == [3 * number for number in range(40)]
        assert {process for _, process in again} <= {process for _, process in first}
        for process in {process for _, process in first}:
            os.kill(process, signal.SIGKILL)
        last = list(executor.map_batches(with_process, two, range(40)))
        assert [value for value, _ in last] == [2 * number for number in range(40)]
        assert not {process for _, process in last} & {process for _, process in first}


def test_after_an_error_or_an_abandoned_call_others_take_up_the_work(cluster: Cluster) -> None:
    with RayExecutor(1) as executor:
        ((_, before),) = executor.map_batches(with_process, two, [1])
        with pytest.raises(InputError):
            list(executor.map_batches(refuses, two, range(5)))
        ((_, after),) = executor.map_batches(with_process, two, [1])
        assert after != before
        left = executor.map_batches(slow, partial(float, 60), range(100))
        left.close()  # type: ignore[attr-defined]
        assert [value for value, _ in executor.map_batches(with_process, two, [1])] == [2]


class _NotThere:
    """Cannot be unpickled by a worker."""

    def __reduce__(self) -> Any:
        return __import__, ("no_such_module",)


def needs(_: Any, batch: int) -> int:
    return batch


def test_a_worker_that_cannot_start_ends_with_its_node_and_cause(cluster: Cluster) -> None:
    with pytest.raises(WorkerDied, match=r"cannot start: node \d+\.\d+\.\d+\.\d+.*No module named 'no_such_module'"):
        list(RayExecutor().map_batches(needs, partial(same, _NotThere()), range(3)))  # type: ignore[arg-type]


def array(_: int, batch: int) -> Any:
    return np.full(batch, 7, dtype=np.int64)


def test_arrays_may_be_changed_as_if_they_came_from_a_local_worker(cluster: Cluster) -> None:
    for made in RayExecutor().map_batches(array, two, [100, 100_000]):
        made[0] = 1


def reversed_(_: int, batch: bytes) -> bytes:
    return batch[::-1]


def test_the_object_store_holds_only_what_is_under_way(cluster: Cluster) -> None:
    """Four times the size of each node's store goes through, both ways, in batches too large for a call, and none of it
    has to go to the disk."""
    batches = (bytes([number % 256]) * (2 << 20) for number in range(4 * STORE >> 21))
    results = [made[0] for made in RayExecutor().map_batches(reversed_, two, batches)]
    assert results == [number % 256 for number in range(4 * STORE >> 21)]
    assert "Spilled" not in memory_summary(cluster.address, stats_only=True)


def test_a_lost_node_costs_nothing_but_time(cluster: Cluster) -> None:
    node = add_node(cluster)
    results = RayExecutor().map_batches(slow, partial(float, 0.05), range(100))
    seen = [next(results) for _ in range(20)]
    cluster.remove_node(node, allow_graceful=False)
    assert seen + list(results) == list(range(100))


def test_the_nodes_have_what_this_machine_has(cluster: Cluster) -> None:
    assert len(check_nodes()) == 3
    here = software_here()
    other = Node("far (10.0.0.9)", {**here, "journeyman": "0.1"}, 1 << 40, 1 << 40, 1, 0)
    with pytest.raises(UsageError, match=rf"node far \(10.0.0.9\) has journeyman 0.1 instead of {here['journeyman']}"):
        refuse_other(other, here)
    with pytest.raises(UsageError, match="free disk space"):
        refuse_other(Node("far", here, 1000, 1 << 40, 1, 0), here)


def test_a_lost_head_is_one_error(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last test that uses the cluster."""
    monkeypatch.setattr("journeyman.cluster.head._LOST_AFTER_S", 2.0)
    results = RayExecutor().map_batches(slow, partial(float, 0.05), range(10_000))
    assert next(results) == 0
    cluster.head_node.kill_gcs_server(check_alive=False)
    with pytest.raises(WorkerDied, match=r"the head of the Ray cluster at \S+ no longer answers\. .*it resumes"):
        list(results)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", r"nothing answers at \S+:1\b"),
        ("ray://127.0.0.1:1", "nothing answers at 127.0.0.1:1"),
        ("http://127.0.0.1:1", "use auto, HOST:PORT or ray://HOST:PORT"),
        ("ray://", "use auto, HOST:PORT or ray://HOST:PORT"),
        ("nonsense", "Invalid address format: nonsense"),
    ],
)
def test_a_cluster_that_is_not_there_is_said_in_one_sentence(address: str, said: str) -> None:
    if ray.is_initialized():
        ray.shutdown()
    with pytest.raises(UsageError, match=rf"^cluster.address = '{address}': {said}"), connected(address):
        pass
