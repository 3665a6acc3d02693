"""`journeyman init`: a commented journeyman.toml; with --from, one that fits the logs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from journeyman.artifacts import write_atomic
from journeyman.cli.say import say
from journeyman.config import CONFIG_NAME
from journeyman.errors import Interrupted, UsageError


def write_config(folder: Path) -> Path:
    """Writes the config file; never overwrites one.

    Raises:
        UsageError: there is one already.
    """
    target = _free(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(target, files("journeyman.cli").joinpath("init.toml").read_bytes())
    return target


def write_proposed(folder: Path, entries: Sequence[str]) -> None:
    """Samples the logs, prints a summary, and writes a config file that fits them; never overwrites one.

    Raises:
        UsageError: there is a config file already, or an entry names no log.
    """
    from journeyman.cli.survey import print_survey
    from journeyman.proposing.proposal import propose
    from journeyman.proposing.toml import config_text

    target = _free(folder)
    say(f"reading a sample of {', '.join(entries)} …", err=True)
    try:
        proposal = propose(folder, entries)
        text = config_text(proposal)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; {target} was not written", "Run the same command again") from None
    print_survey(proposal)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(target, text.encode())
    say(f"wrote {target}")
    where = "" if folder == Path() else f" --dir {shlex.quote(str(folder))}"
    if proposal.checks:
        say(f"next: review it, then: journeyman curate{where}")
    elif proposal.columns is not None:
        say(f"next: complete [data.columns] in {target}, then: journeyman ingest{where}")
    else:
        say(f"next: no row could be read. Set data.sources in {target} to other files, or convert these")


def _free(folder: Path) -> Path:
    target = folder / CONFIG_NAME
    if target.exists():
        raise UsageError(
            f"{target}: already exists and was not changed", "Edit it, or name another folder: journeyman init my-run"
        )
    return target
