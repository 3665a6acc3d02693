"""What lies near a place where data.sources found nothing: what was looked for, similar names, logs close by."""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from journeyman.errors import UsageError

_MOST_LOOKED_AT, _MOST_SHOWN = 2_000, 6
_SIMILAR = 0.5
IsLog = Callable[[Path], bool]


def nothing_found(asked: str, path: Path, why: str, is_log: IsLog, root: Path) -> UsageError:
    """The error for an entry of data.sources that names no log.

    Args:
        asked: the entry as it stands in the config.
        path: what it stands for.
        why: what was wrong with it, after the path.
        is_log: whether a file's name says that it is a log.
        root: where relative entries begin: the fix is written as seen from there.
    """
    place = Path(os.path.normpath(path.absolute()))
    logs = nearby_logs(place, is_log)
    shown = f" ({asked!r} in data.sources)" if asked != str(place) else ""
    what = f"data.sources: {place}{shown}: {why}"
    missing = next((one for one in reversed(place.parents) if not one.exists()), None)
    if missing is not None and not set("*?[") & set(str(missing)):
        what += f"; there is no folder {missing}"
    if not logs:
        return UsageError(what, "No log lies nearby; set data.sources in journeyman.toml to your log files")
    names = [f"  {_relative(one, root)}  ({_size(one)})" for one in logs]
    best = _relative(logs[0], root)
    return UsageError(what, f'Set data.sources = ["{best}"] in journeyman.toml', ["log files nearby:", *names])


def nearby_logs(place: Path, is_log: IsLog) -> list[Path]:
    """At most six log files: in the nearest folder that exists, one above it and one below, similar names first."""
    folder = next((one for one in (place, *place.parents) if one.is_dir()), Path("/"))
    wanted = {place.name, place.parent.name} if folder == place.parent.parent else {place.name}
    found = list(dict.fromkeys(itertools.islice(_around(folder, is_log), _MOST_LOOKED_AT)))
    order = sorted(found, key=lambda one: (-_alike(one, wanted), len(one.parts), str(one)))
    return order[:_MOST_SHOWN]


def _alike(path: Path, wanted: set[str]) -> float:
    """How much the file's name, or its folder's, resembles what was asked for; 0 where it hardly does."""
    ratio = max(
        difflib.SequenceMatcher(None, have.lower(), name.lower()).ratio()
        for name in wanted
        for have in (path.name, path.parent.name)
    )
    return round(ratio, 3) if ratio >= _SIMILAR else 0.0


def _around(folder: Path, is_log: IsLog) -> Iterator[Path]:
    children = _listed(folder)
    yield from (one for one in children if _is(one, is_log))
    for one in children:
        if one.is_dir() and not one.name.startswith("."):
            yield from (inner for inner in _listed(one) if _is(inner, is_log))
    if folder.parent != folder and folder.parent != Path("/"):
        yield from (one for one in _listed(folder.parent) if _is(one, is_log))


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(itertools.islice(folder.iterdir(), _MOST_LOOKED_AT))
    except OSError:
        return []


def _is(path: Path, is_log: IsLog) -> bool:
    try:
        return is_log(path) and path.is_file()
    except OSError:
        return False


def _relative(path: Path, root: Path) -> str:
    shown = Path(os.path.relpath(path, root.resolve()))
    return str(shown if shown.parts.count("..") <= 2 else path)


def _size(path: Path) -> str:
    size = path.stat().st_size
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"
