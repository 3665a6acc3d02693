"""Applies unified diffs to files in memory like `git apply --recount`, but without git and its configuration.

Context must match exactly, at the stated line or at an offset; there is no fuzzy matching. A hunk that starts at line 1
must match the beginning of the file, and one without trailing context must match its end. Files can be changed,
created, deleted, renamed and copied.
Source: git's documentation of git-apply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from journeyman.foreign import plain
from journeyman.reasons.scoring import (
    FileExists,
    FileMissing,
    FileNotEmptied,
    HunkDoesNotApply,
    NoPatch,
    PatchNotRead,
)
from journeyman.scoring.patch_parsing import FilePatch, Hunk, PatchError, parsed
from journeyman.scoring.row_files import MOST_BYTES, nested


def apply_patch(files: Mapping[str, str], diff: str) -> dict[str, str]:
    """The files after the diff is applied: path → content.

    Raises:
        PatchError: the diff contains no patch, or one that does not apply.
    """
    after = dict(files)
    patches = parsed(diff)
    if not patches:
        raise PatchError(NoPatch())
    for patch in patches:
        _apply(patch, after)
        if sum(map(len, after.values())) > 4 * MOST_BYTES:
            raise PatchError(PatchNotRead("the patched files grow too large"))
    if inside := nested(after):
        raise PatchError(PatchNotRead(inside))
    return after


def _apply(patch: FilePatch, files: dict[str, str]) -> None:
    name = patch.old or patch.new or ""
    if patch.old is not None and patch.old not in files:
        raise PatchError(FileMissing(plain(patch.old, 80)))
    if patch.new is not None and patch.new != patch.old and patch.new in files:
        raise PatchError(FileExists(plain(patch.new, 80)))
    lines = _lines(files[patch.old]) if patch.old is not None else []
    done = [False] * len(lines)
    for number, hunk in enumerate(patch.hunks, start=1):
        place = _place(lines, done, hunk)
        if place is None:
            raise PatchError(HunkDoesNotApply(plain(name, 80), number, hunk.start))
        lines[place : place + len(hunk.old)] = hunk.new
        done[place : place + len(hunk.old)] = [True] * len(hunk.new)
    if patch.new is None and lines:
        raise PatchError(FileNotEmptied(plain(name, 80)))
    if patch.old is not None and not patch.copies and patch.new != patch.old:
        del files[patch.old]
    if patch.new is not None:
        files[patch.new] = "".join(lines)


def _place(lines: Sequence[str], done: Sequence[bool], hunk: Hunk) -> int | None:
    """Where the hunk's old lines are: the match nearest to the stated line, the earlier one of two equally near."""
    last = len(lines) - len(hunk.old)
    if last < 0:
        return None
    at_start, at_end = hunk.start <= 1, hunk.trailing == 0
    if at_start or at_end:
        fixed = {0} if at_start else {last}
        candidates = sorted(fixed & ({last} if at_end else fixed))
    else:
        wanted = min(max(hunk.new_start - 1, 0), last)
        candidates = sorted(range(last + 1), key=lambda place: (abs(place - wanted), place > wanted))
    first = hunk.old[0] if hunk.old else None
    for place in candidates:
        if first is not None and lines[place] != first:
            continue
        end = place + len(hunk.old)
        if lines[place:end] == hunk.old and not any(done[place:end]):
            return place
    return None


def _lines(text: str) -> list[str]:
    """Splits at \\n only: a carriage return belongs to its line."""
    lines = [line + "\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]
