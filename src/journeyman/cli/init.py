"""`journeyman init`: a commented journeyman.toml."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from journeyman.artifacts import write_atomic
from journeyman.config import CONFIG_NAME
from journeyman.errors import UsageError


def write_config(folder: Path) -> Path:
    """Writes the toml; never over an existing one.

    Raises:
        UsageError: there is one already.
    """
    target = folder / CONFIG_NAME
    if target.exists():
        raise UsageError(f"{target}: exists already", "Edit it, or name another folder: journeyman init my-run")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(target, files("journeyman.cli").joinpath("init.toml").read_bytes())
    return target
