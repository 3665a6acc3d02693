"""On a real Ray cluster of several nodes on this machine: the same results in the same order, whatever dies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

import ray
from ray.cluster_utils import Cluster

from journeyman.cluster.connecting import connected
from journeyman.cluster.nodes import Node, Software, check_nodes, refuse_other, software_here
from journeyman.cluster.ray_executor import RayExecutor
from journeyman.errors import InputError, Interrupted, UsageError, WorkerDied
from ray_cluster import add_node, ray_cluster

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
    results = list(RayExecutor().map_batches(doubled, two, range(60)))
    assert [value for value, _ in results] == [2 * number for number in range(60)]
    assert len({node for _, node in results}) == 2


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
    with pytest.raises(WorkerDied, match=r"died 3 times at row 3"):
        list(RayExecutor().map_batches(dies, two, range(20), named=lambda batch: f"row {batch}"))


@pytest.mark.parametrize(("function", "setup"), [(refuses, two), (doubled, no_state)])
def test_an_error_arrives_as_it_was_raised(cluster: Cluster, function: Any, setup: Any) -> None:
    with pytest.raises(InputError, match=r"batch 0 is bad|no state") as told:
        list(RayExecutor().map_batches(function, setup, range(5)))
    assert told.value.remedy == "mend it"


def test_who_asks_to_stop_does_not_wait_for_a_slow_batch(cluster: Cluster) -> None:
    start = time.monotonic()
    with pytest.raises(Interrupted):
        list(RayExecutor().map_batches(slow, partial(float, 60), range(3), stopping=lambda: True))
    assert time.monotonic() - start < 50


def test_a_lost_node_costs_nothing_but_time(cluster: Cluster) -> None:
    node = add_node(cluster)
    results = RayExecutor().map_batches(slow, partial(float, 0.05), range(100))
    seen = [next(results) for _ in range(20)]
    cluster.remove_node(node, allow_graceful=False)
    assert seen + list(results) == list(range(100))


def test_the_nodes_have_what_this_machine_has(cluster: Cluster) -> None:
    assert len(check_nodes()) == 3
    here = software_here()
    other = Node("far (10.0.0.9)", Software(**{**vars(here), "journeyman": "0.1"}), 1 << 40, 1 << 40, 1, 0)
    with pytest.raises(UsageError, match=rf"node far \(10.0.0.9\) has journeyman 0.1 instead of {here.journeyman}"):
        refuse_other(other, here)
    with pytest.raises(UsageError, match="free disk space"):
        refuse_other(Node("far", here, 1000, 1 << 40, 1, 0), here)


def test_no_cluster_is_said_in_one_sentence() -> None:
    if ray.is_initialized():
        ray.shutdown()
    with pytest.raises(UsageError, match=r"cluster.address = '127.0.0.1:1'"), connected("127.0.0.1:1"):
        pass
