"""One function over many batches, on every core, results in order, a bounded number in flight.

Workers are fresh processes (spawned: the parent may hold threads, and forking those can hang). They ignore
Ctrl-C, which is the parent's to handle, and end with the parent even where that is killed.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from journeyman.errors import Interrupted, WorkerDied

_B = TypeVar("_B")
_R = TypeVar("_R")
_IN_FLIGHT = 3
_MOST_WORKERS = 8
_state: Any = None


def mapped(
    function: Callable[[Any, _B], _R],
    setup: Callable[[], Any],
    batches: Iterable[_B],
    *,
    parallel: bool,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[_R]:
    """`function(state, batch)` for each batch, in order.

    Args:
        function: a module-level function.
        setup: picklable; makes each worker's `state` once.
        parallel: False runs everything in this process: for work that is over before a worker has started.
        stopping: whether the person asked to stop: a signal to all processes at once ends the workers as well.

    Raises:
        WorkerDied: a worker was killed, or ran out of memory.
        Interrupted: the workers ended, and it was asked to stop.
    """
    workers = min(_MOST_WORKERS, len(os.sched_getaffinity(0))) if parallel else 1
    if workers < 2:
        state = setup()
        for batch in batches:
            yield function(state, batch)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(setup, os.getpid())) as pool:
        waiting: deque[Future[_R]] = deque()
        try:
            for batch in batches:
                waiting.append(pool.submit(_call, function, batch))
                if len(waiting) >= workers * _IN_FLIGHT:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            if stopping():
                raise Interrupted("stopped, the workers too", "Run it again to go on") from error
            raise WorkerDied("a worker process died", "Free some memory and run it again: it goes on") from error
        finally:
            for future in waiting:
                future.cancel()


def _start(setup: Callable[[], Any], parent: int) -> None:
    global _state
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _state = setup()
    # What the setup made stays; looking through it for garbage again and again costs a tenth of the time.
    gc.freeze()
    gc.set_threshold(100_000)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _call(function: Callable[[Any, _B], _R], batch: _B) -> _R:
    return function(_state, batch)
