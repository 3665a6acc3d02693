"""data.sources of a new config: what --from named, as it is written beside the config file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from journeyman.artifacts import expanded
from journeyman.config import CONFIG_NAME
from journeyman.sources.files import SUFFIXES, bare_name, is_log

_MOST_UP = 2


def source_paths(folder: Path, start: Path, entries: Sequence[str]) -> list[Path]:
    """The absolute files, folders and globs that the entries name, without what a run in `folder` writes itself.

    A folder that holds the run folder becomes globs and folders beside that, so that no run reads its own files.

    Args:
        start: where relative entries begin.
    """
    found: list[Path] = []
    for entry in entries:
        path = Path(os.path.normpath(start.absolute() / expanded(entry)))
        found += _beside(path, folder.resolve()) if path.is_dir() else [path]
    return list(dict.fromkeys(found))


def as_written(path: Path, folder: Path) -> str:
    """As data.sources in `folder` names it: relative where it is not far away, else absolute."""
    shown = Path(os.path.relpath(path, folder.resolve()))
    return str(shown if shown.parts.count("..") <= _MOST_UP else path)


def _beside(source: Path, run: Path) -> list[Path]:
    """A folder without the run folder in it: globs over the kinds of its log files, and its other folders."""
    named, source = source, source.resolve()
    if source != run and source not in run.parents:
        return [named]
    found: list[Path] = []
    for one in sorted(source.iterdir()):
        if one.is_dir() and not one.name.startswith("."):
            inside = one == run or one in run.parents
            if inside and one != run:
                found += _beside(one, run)
            elif not inside and not _is_run(one) and not _stage_of(one, run) and _holds_logs(one):
                found.append(one)
        elif one.is_file() and is_log(one):
            found.append(source / f"*{_ending(one.name)}")
    return list(dict.fromkeys(found))


def _is_run(folder: Path) -> bool:
    return (folder / CONFIG_NAME).is_file()


def _stage_of(folder: Path, run: Path) -> bool:
    """A stage's folder of the run itself: 01-interactions, superseded, …"""
    return folder.parent == run and (
        folder.name == "superseded" or (folder.name[:2].isdigit() and folder.name[2:3] == "-")
    )


def _holds_logs(folder: Path) -> bool:
    return any(one.is_file() and is_log(one) for one in folder.rglob("*"))


def _ending(name: str) -> str:
    """What the name ends in from the log's suffix on: .jsonl.gz of app.jsonl.gz."""
    bare = bare_name(name.lower())
    suffix = next(one for one in SUFFIXES if bare.endswith(one))
    return suffix + name[len(bare) :] if name.lower().startswith(bare) else suffix
