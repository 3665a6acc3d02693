"""`journeyman demo`: copies the shipped data and config file to a folder and runs the whole loop."""

from __future__ import annotations

import shlex
import time
from importlib.resources import files
from pathlib import Path

from journeyman.artifacts import write_atomic
from journeyman.cli.running import Invocation, print_results, run_stages
from journeyman.cli.say import say
from journeyman.config import CONFIG_NAME
from journeyman.errors import NoGo, NotDeployable, UsageError
from journeyman.runs import place_of

_FILES = ("interactions.jsonl", CONFIG_NAME)


def run_demo(folder: Path) -> None:
    """Runs the demo. Any verdict is a normal end: the demo is about reaching one."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file, not a folder", "Name another one: journeyman demo my-folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        if not (folder / name).exists():
            write_atomic(folder / name, files("journeyman.demo").joinpath(name).read_bytes())
    start = time.perf_counter()
    command = f"journeyman demo {shlex.quote(str(folder))}"
    try:
        run_stages(Invocation(folder, "export"), command=command)
    except NoGo:
        raise
    except NotDeployable as verdict:
        say(f"no bundle: {verdict.what}", err=True)
    print_results(folder, "export")
    if (folder / place_of("export").folder).is_dir():
        say(f"serve it: journeyman serve --dir {shlex.quote(str(folder))}")
    say(f"{time.perf_counter() - start:.0f} s in total. Settings to try: {folder}/journeyman.toml")
