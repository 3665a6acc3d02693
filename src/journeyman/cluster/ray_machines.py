"""The Machines of a Ray cluster that this process is connected to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from journeyman.cluster.machines import ThisMachine
from journeyman.cluster.ray_executor import RayExecutor
from journeyman.parallel import Executor

if TYPE_CHECKING:
    from journeyman.config import TrainConfig
    from journeyman.models.base import Base
    from journeyman.models.geometry import Factors
    from journeyman.protocols import Reporter
    from journeyman.sizing.memory import MemoryWay
    from journeyman.training.backends import Backend, Gpus


class RayMachines(ThisMachine):
    """Rows are processed and adapters trained on the nodes; engines are those of this machine."""

    executor: Executor = RayExecutor()

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
