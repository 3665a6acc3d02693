"""The inside of the sandbox. It is run by its path with `python -I` and imports nothing from journeyman.

    python -I -S -B JAIL SCRATCH MEMORY_BYTES CPU_S REPORT WALLS

REPORT is the number of the pipe on which it reports what happened. WALLS is `bubblewrap` if bubblewrap has built them,
`own` if they are to be built here, `none` if the code may run without any.

One interpreter is started. Before any foreign code is loaded, it forks twice: into the answer's process, and the
judge's, which alone reads the job from standard input and alone has a pipe to the outside. The first of the three waits
for the judge; when it exits, every other process ends.
"""

import os
import resource
import select
import signal
import sys

import walls
from seccomp import MACHINES, forbid

MOST_HANDLES = 64
FILE_BYTES = 1 << 20


def main():
    scratch, memory_bytes, cpu_s, report, kind = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
    if kind == "own":
        walls.build(scratch, report)
    elif kind == "bubblewrap":
        walls.known_machine()
        walls.close_files(scratch)
    os.chdir(scratch)
    to_answer, to_judge = os.pipe(), os.pipe()
    limits = (memory_bytes, cpu_s)
    answering = os.fork()
    if not answering:
        become(limits, (to_answer[0], to_judge[1]), {0: os.devnull})
        import answering

        answering.main(to_answer[0], to_judge[1])
    judging = os.fork()
    if not judging:
        become(limits, (0, to_judge[0], to_answer[1], report), {})
        import judging

        judging.main(to_judge[0], to_answer[1], report)
    for handle in (*to_answer, *to_judge):
        os.close(handle)
    if kind != "none":
        watch(judging, answering, scratch)
    ended = os.waitpid(judging, 0)[1]
    os.kill(answering, signal.SIGKILL)  # no effect if it has already ended: the status is then its own
    os.write(report, b'\n{"judge": %d, "answer": %d}\n' % (ended, os.waitpid(answering, 0)[1]))
    os._exit(0)


def watch(judging, answering, scratch):
    """Waits until the judge has ended. bubblewrap limits the scratch folder's bytes; its files are limited here."""
    handle = os.pidfd_open(judging)
    while not select.select([handle], [], [], 0.05)[0]:
        room = os.statvfs(scratch)
        if room.f_files - room.f_ffree > walls.SCRATCH_FILES + 64:
            os.kill(answering, signal.SIGKILL)
            os.kill(judging, signal.SIGKILL)
            break


def become(limits, handles, instead):
    """Confines both processes: no other handles, no terminal output, limits, no way to fork or to reach the network."""
    memory_bytes, cpu_s = limits
    nothing = os.open(os.devnull, os.O_RDWR)
    for handle in {0, 1, 2} - set(handles):
        os.dup2(nothing, handle)
    kept = sorted({0, 1, 2, *handles})
    for low, high in zip(kept, [*kept[1:], 1 << 16], strict=True):
        os.closerange(low + 1, high)
    for what, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, MOST_HANDLES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux" and os.uname().machine in MACHINES:  # walls.build and main refuse other machines
        walls.drop_capabilities()
        forbid()


if __name__ == "__main__":
    main()
