"""Applies patches to files in memory, as `git apply` would: context must match in full, at an offset or not.

Stricter in one thing: a line that the patch says to have no end matches only the file's last one. git takes it for the
beginning of any line, and joins the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from journeyman.foreign import plain
from journeyman.scoring.row_files import MOST_BYTES, BadFile, file_name, nested
from journeyman.scoring.unified_diff import FilePatch, Hunk, PatchError, read_patches


def patched(files: Mapping[str, str], diff: str) -> dict[str, str]:
    """The files (path → text) after the patch.

    Raises:
        PatchError: it is malformed, or does not apply to every file that it names.
    """
    left = dict(files)
    for patch in read_patches(diff):
        for name in (patch.old, patch.new):
            if name is not None:
                _allowed(name)
        _apply(patch, left)
        if sum(map(len, left.values())) > 4 * MOST_BYTES:
            raise PatchError("the patched files grow too large")
    if inside := nested(left):
        raise PatchError(inside)
    return left


def _allowed(name: str) -> None:
    try:
        file_name(name)
    except BadFile as error:
        raise PatchError(str(error)) from error


def _apply(patch: FilePatch, files: dict[str, str]) -> None:
    old, new = patch.old, patch.new
    shown = plain(new or old or "", 80)
    if patch.creates is None and old not in files:
        old, patch.creates = None, True
    if old is not None and old not in files:
        raise PatchError(f"{shown}: no such file")
    if new is not None and new != old and new in files:
        raise PatchError(f"{shown}: already exists")
    text = _with_hunks(files[old] if old is not None else "", patch.hunks, shown)
    if patch.deletes and text:
        raise PatchError(f"{shown}: is deleted, but something of it is left")
    if old is not None and not patch.copies:
        del files[old]
    if new is not None:
        files[new] = text


def _with_hunks(text: str, hunks: Sequence[Hunk], name: str) -> str:
    lines, patched_lines = _lines(text), [False] * text.count("\n") + [False]
    del patched_lines[len(lines) :]
    for number, hunk in enumerate(hunks, start=1):
        place = _place(hunk, lines, patched_lines)
        if place is None:
            raise PatchError(f"{name}: hunk {number} (line {hunk.old_start}) does not apply")
        end = place + len(hunk.old)
        lines[place:end] = hunk.new
        patched_lines[place:end] = [True] * len(hunk.new)
    return "".join(lines)


def _lines(text: str) -> list[str]:
    """Lines with their ends; only a line feed ends one."""
    parts = text.split("\n")
    return [part + "\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def _place(hunk: Hunk, lines: Sequence[str], taken: Sequence[bool]) -> int | None:
    """Where its old lines stand, nearest to where it says. A hunk that starts at line 1, or has no context at its end,
    must match at that end of the file; lines that another hunk has made or seen do not count."""
    last = len(lines) - len(hunk.old)
    at_start, at_end = hunk.old_start <= 1, hunk.trailing == 0
    if last < 0:
        return None
    if at_start or at_end:
        places = [0] if at_start else [last]
        if at_start and at_end and last:
            return None
    else:
        said = min(max(hunk.new_start - 1, 0), len(lines))
        places = sorted(range(last + 1), key=lambda place: (abs(place - said), place < said))
    old = list(hunk.old)
    for place in places:
        end = place + len(old)
        if list(lines[place:end]) == old and not any(taken[place:end]):
            return place
    return None
