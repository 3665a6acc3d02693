"""The connection to a Ray cluster that somebody else started. Imported only if a cluster is asked for."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from journeyman.cluster.machines import Machines
from journeyman.errors import UsageError, WorkerDied
from journeyman.foreign import plain

_WITHIN_S = 5.0
_MOST_SAID = 500


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
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # else a call after the end would start a cluster on this machine
    import ray
    import ray._private.worker
    from ray.exceptions import AuthenticationError

    from journeyman.cluster.last_words import said_if_killed
    from journeyman.cluster.nodes import check_nodes, summary
    from journeyman.cluster.ray_executor import RayExecutor
    from journeyman.cluster.ray_machines import RayMachines

    # Ray prints every lost worker to stdout, which belongs to the command, and has no switch for it.
    ray._private.worker.print_to_stdstream = lambda *data, **options: None
    with _own_signals():
        try:
            ray.init(_that_answers(address), log_to_driver=False, logging_level=logging.ERROR, namespace="journeyman")
        except (ConnectionError, RuntimeError, ValueError, TimeoutError, AuthenticationError) as error:
            raise UsageError(
                f"cluster.address = {address!r}: {plain(' '.join(str(error).split()) or 'no answer', _MOST_SAID)}",
                "Start a cluster (ray start --head), or leave the option out to work on this machine",
            ) from error
    try:
        told(summary(check_nodes()))
        with said_if_killed(), RayExecutor() as executor:
            yield RayMachines(executor)
    except ConnectionError as error:
        if not address.startswith("ray://"):
            raise
        raise WorkerDied(
            f"the head of the Ray cluster at {address} no longer answers",
            "Start the cluster again, then run it again: it resumes",
        ) from error
    finally:
        with _own_signals():
            ray.shutdown()


def _that_answers(address: str) -> str:
    """The address, once something there has taken a connection: Ray waits for minutes. `auto` stays as it is unless
    RAY_ADDRESS names the cluster, because only then does Ray look for a token in its usual place.

    Raises:
        ConnectionError: nothing does, or `auto` finds no cluster.
        ValueError: it is not an address.
    """
    from ray._private.services import canonicalize_bootstrap_address

    from journeyman.cluster.head import answers

    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or address
    scheme, _, place = address.rpartition("://")
    if scheme not in ("", "ray"):
        raise ValueError("use auto, HOST:PORT or ray://HOST:PORT")
    found = place if scheme else canonicalize_bootstrap_address(address)
    if not found or not found.rpartition(":")[2].isdecimal():
        raise ValueError("use auto, HOST:PORT or ray://HOST:PORT")
    if not answers(found, _WITHIN_S):
        raise ConnectionError(f"nothing answers at {found}")
    return address if address == "auto" else f"ray://{found}" if scheme else found


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keeps this process's handlers: Ray's would end it without saving anything."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for one, handler in kept.items():
            if handler is not None:
                signal.signal(one, handler)
