"""What the plan says of adapters that may be trained at the same time: its figures are those of one after another."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from journeyman.config import Config
from journeyman.models.geometry import Geometry
from journeyman.reasons import Reason, planning
from journeyman.sizing.memory import TrainingSize
from journeyman.training.joint_choice import Machine, choose_together
from journeyman.training.joint_training import job_size, memory_limit, shares_a_base
from journeyman.training.placement import Placement, Workload


def at_once_notes(work: Workload, config: Config, placed: Placement, steps: Sequence[int]) -> Sequence[Reason]:
    """A note if adapters of one recipe would be trained at the same time, with the memory that is free now.

    Args:
        steps: of each adapter.
    """
    geometry, train = work.sizes, config.train
    if len(steps) < 2 or placed.gpus or config.cluster.address is not None or not isinstance(geometry, Geometry):
        return []
    if not shares_a_base(geometry, [train]):
        return []
    chosen = placed.memory
    pack_tokens = max(chosen.pack_tokens, work.longest_row)
    jobs = [job_size(geometry, train, work.step_tokens, pack_tokens, chosen.group_tokens, one) for one in steps]
    size = TrainingSize(geometry, work.trainable, placed.dtype.itemsize, work.longest_row)
    machine = Machine(torch.get_num_threads(), placed.gflops, memory_limit([train]))
    made = choose_together(size, chosen.way, jobs, machine)
    return [planning.AdaptersAtOnce(len(steps), made.at_once, made.bytes / 1e9)] if made.at_once > 1 else []
