"""A worker of a Ray cluster that processes batches of rows."""

from __future__ import annotations

import gc
import os
import platform
from collections.abc import Callable
from typing import Any

import ray

from journeyman.cluster.messages import PIECES, packed, unpacked
from journeyman.cluster.nodes import Software, refuse_other_software, software_here


class RowWorker:
    """The function of the work at hand, and the state that its `setup` made in this process."""

    def __init__(self) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        self._state: Any = None
        self._made = False

    def start(self, work: tuple[Callable[[Any, Any], Any], Callable[[], Any]], software: Software) -> None:
        """Answers once the process has started and knows its work; what it did before is over.

        Raises:
            UsageError: this node joined after the others were checked, and has other software.
        """
        name = f"{platform.node()} ({ray.util.get_node_ip_address()})"
        refuse_other_software(name, software_here(), software)
        self._function, self._setup = work
        if self._made:
            self._state, self._made = None, False
            gc.unfreeze()
            gc.collect()

    @ray.method(num_returns=PIECES)  # type: ignore[untyped-decorator]
    def call(self, *pieces: bytes) -> list[bytes]:
        """Takes a batch and returns the function's result, both packed."""
        if not self._made:  # here, where an error of the setup reaches the caller as it is
            self._state, self._made = self._setup(), True
            gc.freeze()  # as local workers do: see parallel
            gc.set_threshold(100_000)
        made = packed(self._function(self._state, unpacked(pieces)))
        return made + [b""] * (PIECES - len(made))
