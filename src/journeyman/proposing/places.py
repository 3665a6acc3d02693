"""Converts the arguments of --from to data.sources of a new config."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from journeyman.artifacts import expanded
from journeyman.config import CONFIG_NAME
from journeyman.sources.files import SUFFIXES, bare_name, is_log
from journeyman.sources.nearby import is_run_folder_name


def source_paths(folder: Path, start: Path, entries: Sequence[str]) -> list[Path]:
    """The absolute files, folders and globs that the entries name, without what a run in `folder` writes.

    A folder that contains the run folder is replaced by globs and folders next to it, so that no run reads its own
    files.

    Args:
        start: the folder that relative entries refer to.
    """
    found: list[Path] = []
    for entry in entries:
        path = Path(os.path.normpath(start.absolute() / expanded(entry)))
        found += _beside(path, folder.resolve()) if path.is_dir() else [path]
    return list(dict.fromkeys(found))


def _beside(source: Path, run: Path) -> list[Path]:
    """A folder without the run folder in it: globs for its types of log files, and its other folders."""
    named, source = source, source.resolve()
    if source != run and source not in run.parents:
        return [named]
    found: list[Path] = []
    for one in sorted(source.iterdir()):
        if one.is_dir() and not one.name.startswith("."):
            inside = one == run or one in run.parents
            if inside and one != run:
                found += _beside(one, run)
            elif (
                not inside
                and not _is_run(one)
                and not (source == run and is_run_folder_name(one.name))
                and _holds_logs(one)
            ):
                found.append(one)
        elif one.is_file() and is_log(one):
            found.append(source / f"*{_ending(one.name)}")
    return list(dict.fromkeys(found))


def _is_run(folder: Path) -> bool:
    return (folder / CONFIG_NAME).is_file()


def _holds_logs(folder: Path) -> bool:
    return any(one.is_file() and is_log(one) for one in folder.rglob("*"))


def _ending(name: str) -> str:
    """The end of the name, from the log suffix on: .jsonl.gz of app.jsonl.gz."""
    bare = bare_name(name.lower())
    suffix = next(one for one in SUFFIXES if bare.endswith(one))
    return suffix + name[len(bare) :] if name.lower().startswith(bare) else suffix
