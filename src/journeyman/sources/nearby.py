"""The error for an entry of data.sources that matches nothing, with similar names and logs nearby."""

from __future__ import annotations

import difflib
import itertools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from journeyman import evidence
from journeyman.errors import UsageError
from journeyman.superseded import SUPERSEDED

_MOST_LOOKED_AT, _MOST_SHOWN, _MOST_UP = 2_000, 6, 2
_SIMILAR = 0.5
_WILD = set("*?[")
_STAGE_FOLDER, _OTHER_FOLDERS = re.compile(r"0\d-[a-z]+"), {SUPERSEDED, evidence.FOLDER}
_OUR_FILES = {"journeyman.log", ".stdin.jsonl"}
"""Files that a run writes next to its config file are not logs."""
IsLog = Callable[[Path], bool]


class NoLogFound(UsageError):
    """An entry of data.sources does not name a log.

    Attributes:
        place: the absolute path that was looked for.
        why: what is wrong with it.
        fix: a path to use instead, as seen from the root of relative entries; "" if no log is nearby.
        similar: whether the fix resembles the entry.
    """

    def __init__(self, asked: str, place: Path, why: str, fix: str, similar: bool, nearby: list[str]) -> None:
        self.place, self.why, self.fix, self.similar = place, why, fix, similar
        shown = f" ({asked!r} in data.sources)" if asked != str(place) else ""
        remedy = "Set data.sources in journeyman.toml to your log files"
        if fix:
            remedy = f'Set data.sources = ["{fix}"]' if similar else f'{remedy}, such as data.sources = ["{fix}"]'
        details = ["log files nearby:", *nearby] if nearby else ["no log files nearby"]
        super().__init__(f"data.sources: {place}{shown}: {why}", remedy, details)


def is_run_folder_name(name: str) -> bool:
    """Whether a run gives this name to a folder of its own: 01-interactions, evidence, superseded."""
    return bool(_STAGE_FOLDER.fullmatch(name)) or name in _OTHER_FOLDERS


def relative(path: Path, root: Path) -> str:
    """The path as written in data.sources of a run in `root`: relative if it is nearby, else absolute."""
    shown = Path(os.path.relpath(path, root.resolve()))
    return str(shown if shown.parts.count("..") <= _MOST_UP else path)


def nothing_found(asked: str, path: Path, why: str, is_log: IsLog, root: Path) -> NoLogFound:
    """The error for an entry of data.sources that does not name a log.

    Args:
        asked: the entry as written in the config file.
        path: the path that it refers to.
        why: what is wrong with it, to be shown after the path.
        is_log: whether a file's name is that of a log.
        root: the folder that relative entries refer to; the fix is relative to it as well.
    """
    place = Path(os.path.normpath(path.absolute()))
    logs = nearby_logs(place, is_log)
    shown = [f"  {relative(one, root)}  ({size_text(one.stat().st_size)})" for one in logs]
    missing = next((one for one in reversed(place.parents) if not one.exists()), None)
    if missing is not None and not _WILD & set(str(missing)):
        why += f"; there is no folder {missing}"
    if (misspelt := _respelled(place, is_log)) is not None:
        return NoLogFound(asked, place, why, relative(misspelt, root), True, shown)
    if not logs:
        return NoLogFound(asked, place, why, "", False, [])
    return NoLogFound(asked, place, why, relative(logs[0], root), _alike(logs[0], {place.name}) > 0, shown)


def _respelled(place: Path, is_log: IsLog) -> Path | None:
    """The path with its first missing part replaced by a similar name, if a log is then found."""
    for depth, part in enumerate(place.parts[1:], start=1):
        outer, here = Path(*place.parts[:depth]), Path(*place.parts[: depth + 1])
        if here.exists():
            continue
        if _WILD & set(part):
            return None
        asks_file = depth == len(place.parts) - 1 and is_log(Path(part))
        names = [one.name for one in _listed(outer) if (_is(one, is_log) if asks_file else _is_folder(one))]
        for name in difflib.get_close_matches(part, names, n=3, cutoff=0.7):
            new = Path(outer, name, *place.parts[depth + 1 :])
            if _is(new, is_log) or (new.is_dir() and any(_is(one, is_log) for one in _listed(new))):
                return new
            if _WILD & set(new.name) and any(_is(one, is_log) for one in new.parent.glob(new.name)):
                return new
        return None
    return None


def nearby_logs(place: Path, is_log: IsLog) -> list[Path]:
    """At most six log files in the nearest existing folder, one level above and one below, similar names first."""
    folder = next((one for one in (place, *place.parents) if one.is_dir()), Path("/"))
    wanted = {place.name, place.parent.name} if folder == place.parent.parent else {place.name}
    found = list(dict.fromkeys(itertools.islice(_around(folder, is_log), _MOST_LOOKED_AT)))

    def rank(one: Path) -> tuple[bool, float, bool, int, str]:
        return not one.stat().st_size, -_alike(one, wanted), folder not in one.parents, len(one.parts), str(one)

    return sorted(found, key=rank)[:_MOST_SHOWN]


def _alike(path: Path, wanted: set[str]) -> float:
    """How much the name of the file or its folder resembles the wanted names; 0 if hardly."""
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
        if _is_folder(one):
            yield from (inner for inner in _listed(one) if _is(inner, is_log))
    if folder.parent != folder and folder.parent != Path("/"):
        yield from (one for one in _listed(folder.parent) if _is(one, is_log))


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(itertools.islice(folder.iterdir(), _MOST_LOOKED_AT))
    except OSError:
        return []


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".") and not is_run_folder_name(path.name)


def _is(path: Path, is_log: IsLog) -> bool:
    try:
        return is_log(path) and path.name not in _OUR_FILES and path.is_file()
    except OSError:
        return False


def size_text(size: int) -> str:
    """A size in bytes, kB, MB or GB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"
