"""`journeyman demo`: copies the shipped data and config file to a folder and runs the whole loop."""

from __future__ import annotations

import json
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


def run_demo(folder: Path, base: str | None = None, chat_template: str | None = None) -> None:
    """Runs the demo. Any verdict is a normal end: the demo is about reaching one.

    Args:
        base: written to the config file as base.model, instead of the embedded model.
        chat_template: written as base.chat_template.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file, not a folder", "Name another one: journeyman demo my-folder")
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / CONFIG_NAME
    if config.exists() and (base or chat_template):
        raise UsageError(
            f"{config}: exists, so its [base] is used, not --base or --chat-template",
            f"Edit it, or name a new folder: journeyman demo {shlex.quote(str(folder))}-2 …",
        )
    for name in _FILES:
        if not (folder / name).exists():
            write_atomic(folder / name, files("journeyman.demo").joinpath(name).read_bytes())
    if base or chat_template:
        _choose_base(config, base, chat_template)
    start = time.perf_counter()
    command = f"journeyman demo {shlex.quote(str(folder))}"
    try:
        run_stages(Invocation(folder, "export"), command=command)
    except NoGo:
        raise
    except NotDeployable as verdict:
        say(f"no bundle: {verdict.what}", err=True)
    print_results(Invocation(folder, "export"))
    if (folder / place_of("export").folder).is_dir():
        say(f"serve it: journeyman serve --dir {shlex.quote(str(folder))}")
    say(f"{time.perf_counter() - start:.0f} s in total. Settings to try: {folder}/journeyman.toml")


def _choose_base(config: Path, base: str | None, chat_template: str | None) -> None:
    """Writes the base to the config file. A path is relative to the current folder, where it was typed."""
    chosen = []
    for key, value in (("model", base), ("chat_template", chat_template)):
        if value is not None:
            place = Path(value).expanduser()
            chosen.append(f"{key} = {json.dumps(str(place.resolve()) if place.exists() else value)}")
    text = config.read_text(encoding="utf-8")
    embedded = next(line for line in text.splitlines() if line.startswith("model = "))
    kept = [] if base is not None else [embedded]
    write_atomic(config, text.replace(embedded, "\n".join([*kept, *chosen])).encode())
