"""The Machines of a Ray cluster that this process is connected to."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from journeyman.cluster.ray_engines import running_on_ray
from journeyman.parallel import Executor
from journeyman.protocols import EngineSettings, EvaluatedEngine, Reporter

if TYPE_CHECKING:
    from journeyman.config import TrainConfig
    from journeyman.models.base import Base
    from journeyman.models.geometry import Factors
    from journeyman.sizing.memory import MemoryWay
    from journeyman.training.backends import Backend, Gpus


class RayMachines:
    """Rows are processed, adapters trained and questions answered on the nodes.

    Args:
        executor: a RayExecutor.
    """

    def __init__(self, executor: Executor) -> None:
        self.executor = executor

    def running_engine(
        self, settings: EngineSettings, *, reporter: Reporter
    ) -> AbstractContextManager[EvaluatedEngine]:
        return running_on_ray(settings, reporter)

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
        from journeyman.cluster.ray_training import backend_of  # imports torch

        return backend_of(base, config, memory, factors, gpus, reporter)
