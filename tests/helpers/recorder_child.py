"""Recorders that are killed: this process has everything imported and forks one for each line `start`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from journeyman.api.recording import recording
from journeyman.gateway.ledger import MakerApart, MakerHere


def main(folder: str, upstream: str, port: str, maker: str) -> None:
    child = 0
    for line in sys.stdin:
        if line.strip() == "start":
            child = os.fork()
            if child == 0:
                make = MakerApart if maker == "apart" else MakerHere
                with recording(Path(folder), upstream, int(port), maker=make, assess=False) as recorder:
                    recorder.run()
                os._exit(0)
            print("started", flush=True)
        else:
            os.kill(child, signal.SIGKILL if line.strip() == "kill" else signal.SIGTERM)
            os.waitpid(child, 0)
            print("ended", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
