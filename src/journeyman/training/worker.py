"""The process of a rank from 1 on: `python -m journeyman.training.worker`, with the variables of `torchrun`.

It ends when rank 0 closes the engines, and at once when rank 0 ends in any other way. `torchrun` starts the same
program for all ranks, so as rank 0 it becomes `journeyman` with its arguments:

    torchrun --standalone --nproc-per-node 4 -m journeyman.training.worker run
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from journeyman.child_process import die_with_parent, exit_when_input_closes

if TYPE_CHECKING:
    from journeyman.training.mirror import MakeEngine
    from journeyman.training.ranks import Ranks

LOST_CONTACT = 75
"""The exit code of a worker that is not itself the reason why it ends (EX_TEMPFAIL)."""
PARENT = "JOURNEYMAN_PARENT"
"""The variable with the process id of rank 0, if that started this process."""


def main(load: Callable[[str, Ranks], MakeEngine] | None = None) -> int:
    """Computes for rank 0 until that closes; returns the exit code.

    Args:
        load: makes the engines of this rank from the job that rank 0 assigns; None: as replica.Replica does.
    """
    if parent := os.environ.get(PARENT):
        die_with_parent(True)
        exit_when_input_closes()
        if os.getppid() != int(parent):  # it ended before the kernel was told
            return 0
    from journeyman.training.meeting import disconnect, join
    from journeyman.training.mirror import follow  # torch takes seconds to load, in which rank 0 may end
    from journeyman.training.ranks import LostContact
    from journeyman.training.replica import load_replica

    try:
        ranks, job = join()
        follow(ranks, (load or load_replica)(job, ranks))
    except LostContact as error:
        print(error, file=sys.stderr)
        return LOST_CONTACT
    disconnect()
    return 0


if __name__ == "__main__":
    if os.environ.get("RANK") == "0":
        os.execv(sys.executable, [sys.executable, "-m", "journeyman", *sys.argv[1:]])
    sys.exit(main())
