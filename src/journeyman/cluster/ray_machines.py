"""The Machines of a Ray cluster that this process is connected to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from journeyman.cluster.machines import ThisMachine
from journeyman.cluster.ray_engines import running_on_ray
from journeyman.cluster.ray_executor import RayExecutor
from journeyman.parallel import Executor
from journeyman.protocols import EngineSettings, EvaluatedEngine


class RayMachines(ThisMachine):
    """Rows are processed and questions answered on the nodes; training is that of this machine.

    Args:
        told: hears what the user should know about nodes.
    """

    executor: Executor = RayExecutor()

    def __init__(self, told: Callable[[str], None] = lambda text: None) -> None:
        self._told = told

    def running_engine(
        self, settings: EngineSettings, stopping: Callable[[], bool] = lambda: False
    ) -> AbstractContextManager[EvaluatedEngine]:
        return running_on_ray(settings, self._told, stopping)
