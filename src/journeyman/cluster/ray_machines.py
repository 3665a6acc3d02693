"""The Machines of a Ray cluster that this process is connected to."""

from __future__ import annotations

from contextlib import AbstractContextManager

from journeyman.cluster.machines import ThisMachine
from journeyman.cluster.ray_engines import running_on_ray
from journeyman.cluster.ray_executor import RayExecutor
from journeyman.parallel import Executor
from journeyman.protocols import EngineSettings, EvaluatedEngine, Reporter


class RayMachines(ThisMachine):
    """Rows are processed and questions answered on the nodes; training is that of this machine."""

    executor: Executor = RayExecutor()

    def running_engine(
        self, settings: EngineSettings, *, reporter: Reporter
    ) -> AbstractContextManager[EvaluatedEngine]:
        return running_on_ray(settings, reporter)
