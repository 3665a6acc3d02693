"""A Ray cluster on this machine with real processes: a head without CPUs, and nodes that can be killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray
from ray.cluster_utils import Cluster

TESTS = Path(__file__).parents[1]
IMPORTED = (TESTS.parent / "src", TESTS, *(TESTS / name for name in ("helpers", "cluster", "curation", "stages")))
"""Folders from which workers import: functions travel by name, and a worker looks for the module itself."""
STORE = 80 << 20
"""Bytes of each node's object store; Ray takes no less than 75 MiB."""
_QUICK_TO_NOTICE = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 5000,
    "health_check_failure_threshold": 3,
}


@contextmanager
def ray_cluster(
    nodes: int = 2, cpus: int = 1, connect: bool = True, system: dict[str, Any] | None = None, **each: Any
) -> Iterator[Cluster]:
    """A running cluster to which this process is connected.

    Starting takes 6 s on a quiet machine and much more on a busy one, so share one per test module.

    Args:
        nodes: how many nodes besides the head.
        cpus: CPUs that each of these says it has.
        connect: False: the cluster only runs.
        system: Ray's own settings.
        each: further options of each node, such as `num_gpus` or `resources`.
    """
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*map(str, IMPORTED), *([before] if before else [])])
    head = {
        "num_cpus": 0,
        "include_dashboard": False,
        "object_store_memory": STORE,
        "_system_config": {**_QUICK_TO_NOTICE, **(system or {})},
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(nodes):
            add_node(cluster, cpus, **each)
        if connect:
            ray.init(cluster.address, log_to_driver=False, namespace="journeyman")
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def add_node(cluster: Cluster, cpus: int = 1, **options: Any) -> Any:
    """One more node; `cluster.remove_node(it, allow_graceful=False)` kills it."""
    return cluster.add_node(num_cpus=cpus, **{"object_store_memory": STORE, **options})
