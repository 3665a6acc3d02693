"""An Executor whose workers are actors of a Ray cluster.

The parent reads batches and writes results, as with local processes, so nothing but the cluster has to be shared: rows
travel in the calls. A worker that is lost with its node costs the batches that it held, which other workers do again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from journeyman.cluster.ray_pool import Pool, Raised

_B = TypeVar("_B")
_R = TypeVar("_R")
_AHEAD = 4
"""Batches for each worker that may be read before the result of the first of them is taken."""


class RayExecutor:
    """An Executor on the cluster that this process is connected to.

    Workers live for one call, or as long as the context if it is used as one (`with RayExecutor() as executor`), for as
    long as calls end well: starting a process and its imports costs more than a second of processor time.

    Args:
        workers: how many; None: one for each CPU of the cluster, also of nodes that join later.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers
        self._keeps = False
        self._idle: Pool | None = None

    def __enter__(self) -> RayExecutor:
        self._keeps = True
        return self

    def __exit__(self, *_: object) -> None:
        self._keeps = False
        if self._idle is not None:
            self._idle.close()
            self._idle = None

    def map_batches(
        self,
        function: Callable[[Any, _B], _R],
        setup: Callable[[], Any],
        batches: Iterable[_B],
        *,
        named: Callable[[_B], str] = lambda batch: "",
        stopping: Callable[[], bool] = lambda: False,
    ) -> Iterator[_R]:
        pool, self._idle = self._idle or Pool(self._workers), None
        ended_well = False
        try:
            pool.begin(function, setup)
            yield from _in_order(pool, batches, named, stopping)
            ended_well = True
        finally:
            if ended_well and self._keeps and self._idle is None:
                self._idle = pool
            else:
                pool.close()


def _in_order(
    pool: Pool, batches: Iterable[_B], named: Callable[[_B], str], stopping: Callable[[], bool]
) -> Iterator[Any]:
    """The results in the order of the batches, of which a bounded number is read ahead."""
    unread = enumerate(batches)
    done: dict[int, Any] = {}
    taken, read, more = 0, 0, True
    while more or taken < read:
        while more and read - taken < _AHEAD * pool.size:
            one = next(unread, None)
            if one is None:
                more = False
            else:
                pool.add(one[0], one[1], named(one[1]))
                read += 1
        if taken in done:
            result = done.pop(taken)
            if isinstance(result, Raised):
                raise result.error
            yield result
            taken += 1
        elif taken < read:
            done.update(pool.results(stopping))
