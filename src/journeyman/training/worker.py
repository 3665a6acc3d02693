"""The process of a rank from 1 on: `python -m journeyman.training.worker`, with the variables of `torchrun`.

It ends when rank 0 closes the engines, and at once when rank 0 ends in any other way. `torchrun` starts the same
program for all ranks, so as rank 0 it is `journeyman` with the arguments that follow:

    torchrun --standalone --nproc-per-node 4 -m journeyman.training.worker run
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import traceback
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


def main(load: Callable[[str, Ranks], MakeEngine] | None = None) -> None:
    """Computes for rank 0 until that closes; ends the process with an exit code if that fails.

    Args:
        load: makes the engines of this rank from the job that rank 0 assigns; None: as replica.Replica does.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # rank 0 handles them, and then ends this process
        signal.signal(number, signal.SIG_IGN)
    if parent := os.environ.get(PARENT):
        die_with_parent(True)
        exit_when_input_closes()
        if os.getppid() != int(parent):  # it ended before the kernel was told
            return
    from journeyman.training.meeting import disconnect, join
    from journeyman.training.mirror import follow  # torch takes seconds to load, in which rank 0 may end
    from journeyman.training.ranks import LostContact
    from journeyman.training.replica import load_replica

    try:
        joined = join()
        if joined is not None:
            ranks, job = joined
            follow(ranks, (load or load_replica)(job, ranks))
    except LostContact as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(LOST_CONTACT)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # at a usual end, threads of torch.distributed that still wait would abort the process
    disconnect()


def _journeyman() -> None:
    """What rank 0 does if `torchrun` started it: the command that follows."""
    try:
        runpy.run_module("journeyman", run_name="__main__", alter_sys=True)
    finally:
        from journeyman.training.meeting import call_off

        call_off()


if __name__ == "__main__":
    if os.environ.get("RANK") == "0":
        _journeyman()
    else:
        main()
