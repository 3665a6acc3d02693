"""Whether the head of the cluster still answers.

Ray waits a minute for a lost head and then ends the process, without an exception that could be shown. So this process
looks for itself, and asks Ray for nothing while the head is away.
"""

from __future__ import annotations

import socket
import time

import ray
from ray.util.client import ray as client

from journeyman.errors import WorkerDied

_EVERY_S, _WITHIN_S = 1.0, 5.0
_LOST_AFTER_S = 15.0


class Head:
    """The head of the cluster that this process is connected to, over Ray's own port.

    Attributes:
        answered: whether it did when it was last asked.
    """

    def __init__(self) -> None:
        # A client (ray://) reaches its server only, and hears of a loss as a ConnectionError.
        self._address = None if client.is_connected() else ray.get_runtime_context().gcs_address
        self._asked = self._seen = time.monotonic()
        self.answered = True

    def wait(self) -> None:
        """Returns once it answers.

        Raises:
            WorkerDied: it has not answered for 15 s.
        """
        self._asked = 0.0
        self.check()
        while not self.answered:
            time.sleep(_EVERY_S)
            self.check()

    def check(self, *, at_once: bool = False) -> None:
        """Asks again, at most once a second, or at once before Ray itself is asked; raises as `wait` does."""
        now = time.monotonic()
        if self._address is None or (now - self._asked < _EVERY_S and not at_once):
            return
        self.answered = answers(self._address, _WITHIN_S)
        self._asked = time.monotonic()
        if self.answered:
            self._seen = self._asked
        elif self._asked - self._seen > _LOST_AFTER_S:
            raise WorkerDied(
                f"the head of the Ray cluster at {self._address} no longer answers",
                "Start the cluster again, then run it again: it resumes",
            )


def answers(address: str, within_s: float) -> bool:
    """Whether something listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), within_s):
            return True
    except OSError:
        return False
