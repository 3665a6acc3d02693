"""The Machines of a Ray cluster that this process is connected to."""

from __future__ import annotations

from journeyman.cluster.machines import ThisMachine
from journeyman.cluster.ray_executor import RayExecutor
from journeyman.parallel import Executor


class RayMachines(ThisMachine):
    """Rows are processed on the nodes; engines and training are those of this machine."""

    executor: Executor = RayExecutor()
