"""The connection to a Ray cluster that somebody else started. Imported only if a cluster is asked for."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from journeyman.cluster.machines import Machines
from journeyman.errors import UsageError


@contextmanager
def connected(address: str, told: Callable[[str], None] = lambda text: None) -> Iterator[Machines]:
    """The machines of a cluster, whose nodes have been checked.

    Args:
        address: `auto` for the cluster that runs on this machine or that RAY_ADDRESS names, `HOST:PORT`, or
            `ray://HOST:PORT` for Ray's client server.
        told: hears how many nodes there are.

    Raises:
        UsageError: Ray is not installed, there is no such cluster, or a node differs from this machine.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError("cluster.address is set, and Ray is not installed", "pip install 'journeyman[ray]'")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    from journeyman.cluster.nodes import check_nodes, summary
    from journeyman.cluster.ray_machines import RayMachines

    kept = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, namespace="journeyman")
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise UsageError(
            f"cluster.address = {address!r}: {(str(error).splitlines() or ['no answer'])[0]}",
            "Start a cluster (ray start --head), or leave the option out to work on this machine",
        ) from error
    try:
        for one, handler in kept.items():  # Ray's own would end the process without saving anything
            signal.signal(one, handler)
        told(summary(check_nodes()))
        yield RayMachines()
    finally:
        ray.shutdown()
