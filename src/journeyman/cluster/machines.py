"""START HERE. Where the work of the stages is done: on this machine, or on the nodes of a Ray cluster.

A stage takes what it needs of this and does not know which one it is. Ray is imported only if a cluster is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

from journeyman.config import ClusterConfig
from journeyman.parallel import LOCAL, Executor
from journeyman.protocols import EngineSettings, EvaluatedEngine, Reporter

if TYPE_CHECKING:
    from journeyman.config import TrainConfig
    from journeyman.models.base import Base
    from journeyman.models.geometry import Factors
    from journeyman.sizing.memory import MemoryWay
    from journeyman.training.backends import Backend, Gpus


class Machines(Protocol):
    """One machine or several.

    Attributes:
        executor: processes batches of rows, in `ingest` and `curate`.
    """

    @property
    def executor(self) -> Executor: ...

    def running_engine(
        self, settings: EngineSettings, *, reporter: Reporter
    ) -> AbstractContextManager[EvaluatedEngine]:
        """A serving engine, stopped at the end: see engines.running_engine. On a cluster, each node has a replica.

        Args:
            reporter: hears what the user should know about nodes, and whether to stop before there is an engine.
        """

    def backend_of(
        self,
        base: Base,
        config: TrainConfig,
        memory: MemoryWay,
        factors: Factors | None,
        gpus: Gpus | None,
        *,
        reporter: Reporter,
    ) -> Backend:
        """What trains adapters. See training.backends.backend_of.

        Args:
            reporter: hears which nodes train.
        """


class ThisMachine:
    """The Machines of most people."""

    executor: Executor = LOCAL

    def running_engine(
        self, settings: EngineSettings, *, reporter: Reporter
    ) -> AbstractContextManager[EvaluatedEngine]:
        from journeyman.inference.engines import running_engine

        return running_engine(settings)

    def backend_of(
        self,
        base: Base,
        config: TrainConfig,
        memory: MemoryWay,
        factors: Factors | None,
        gpus: Gpus | None,
        *,
        reporter: Reporter,
    ) -> Backend:
        from journeyman.training.backends import backend_of

        return backend_of(base, config, memory, factors, gpus)


@contextmanager
def machines_of(config: ClusterConfig, say: Callable[[str], None]) -> Iterator[Machines]:
    """The machines that [cluster] asks for, connected in this context.

    Args:
        say: hears which nodes there are.

    Raises:
        UsageError: Ray is not installed, there is no such cluster, or its nodes differ from this machine.
    """
    if config.address is None:
        yield ThisMachine()
        return
    from journeyman.cluster.connecting import connected  # the only import of what imports Ray

    with connected(config.address, say) as machines:
        yield machines
