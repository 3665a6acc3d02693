"""Applies unified diffs to files in memory, as `git apply --recount` does, without git and its configuration.

Context must match exactly, at the stated line or at an offset; nothing is fuzzed. A hunk that begins at line 1 must
match the file's beginning, and one without context at its end must match the file's end. Files can be changed,
created, deleted, renamed and copied. Modes are ignored; links, submodules and binary patches are refused.
Source: git's documentation of git-apply and of its diff format.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from journeyman.foreign import plain
from journeyman.scoring.row_files import MOST_BYTES, BadFile, file_name, nested

_HUNK = re.compile(r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")
_QUOTED = re.compile(r'\\([abtnvfr"\\]|[0-3][0-7]{2})')
_ESCAPES = {"a": 7, "b": 8, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13, '"': 34, "\\": 92}
_NO_NEWLINE = "\\"
_HEADERS = (
    "new file mode ", "deleted file mode ", "old mode ", "new mode ", "rename from ", "rename to ", "copy from ",
    "copy to ", "--- ", "+++ ", "index ",
)  # fmt: skip


class PatchError(ValueError):
    """Why a diff does not apply; the message names file and hunk."""


@dataclass
class _Hunk:
    """Lines keep their ends: "a\\n", or "a" where the file ends without one."""

    start: int
    new_start: int
    old: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    trailing: int = 0


@dataclass
class _FilePatch:
    old: str | None
    new: str | None
    hunks: list[_Hunk] = field(default_factory=list)
    copies: bool = False


def apply_patch(files: Mapping[str, str], diff: str) -> dict[str, str]:
    """The files after the diff: path → content.

    Raises:
        PatchError: it holds no patch, or one does not apply.
    """
    after = dict(files)
    patches = _parsed(diff)
    if not patches:
        raise PatchError("no patch in the answer")
    for patch in patches:
        _apply(patch, after)
        if sum(map(len, after.values())) > 4 * MOST_BYTES:
            raise PatchError("the patched files grow too large")
    if inside := nested(after):
        raise PatchError(inside)
    return after


def _apply(patch: _FilePatch, files: dict[str, str]) -> None:
    name = patch.old or patch.new or ""
    if patch.old is not None and patch.old not in files:
        raise PatchError(f"{plain(patch.old, 80)}: no such file")
    if patch.new is not None and patch.new != patch.old and patch.new in files:
        raise PatchError(f"{plain(patch.new, 80)}: already exists")
    lines = _lines(files[patch.old]) if patch.old is not None else []
    done = [False] * len(lines)
    for number, hunk in enumerate(patch.hunks, start=1):
        place = _place(lines, done, hunk)
        if place is None:
            raise PatchError(f"{plain(name, 80)}: hunk {number} does not apply (line {hunk.start})")
        lines[place : place + len(hunk.old)] = hunk.new
        done[place : place + len(hunk.old)] = [True] * len(hunk.new)
    if patch.new is None and lines:
        raise PatchError(f"{plain(name, 80)}: is deleted, but something of it is left")
    if patch.old is not None and not patch.copies and patch.new != patch.old:
        del files[patch.old]
    if patch.new is not None:
        files[patch.new] = "".join(lines)


def _place(lines: Sequence[str], done: Sequence[bool], hunk: _Hunk) -> int | None:
    """Where the hunk's old lines stand: nearest to the stated place, earlier before later."""
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
    """Split at \\n alone: a carriage return belongs to its line."""
    lines = [line + "\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def _parsed(diff: str) -> list[_FilePatch]:
    lines = diff.split("\n")
    patches: list[_FilePatch] = []
    place = 0
    while place < len(lines):
        line = lines[place]
        if line.startswith("diff --git "):
            patch, place = _git_patch(lines, place)
            patches.append(patch)
        elif _is_traditional(lines, place):
            patch = _traditional(lines[place][4:], lines[place + 1][4:])
            place = _read_hunks(lines, place + 2, patch)
            patches.append(patch)
        elif line.startswith("@@ -"):
            raise PatchError(f"line {place + 1}: a hunk without a file")
        else:
            place += 1
    return patches


def _is_traditional(lines: Sequence[str], place: int) -> bool:
    return (
        lines[place].startswith("--- ")
        and place + 2 < len(lines)
        and lines[place + 1].startswith("+++ ")
        and lines[place + 2].startswith("@@ -")
    )


def _git_patch(lines: Sequence[str], place: int) -> tuple[_FilePatch, int]:
    """A patch with git's extended headers."""
    names = _names_of_header(lines[place])
    seen: dict[str, str] = {}
    place += 1
    while place < len(lines) and not lines[place].startswith(("diff --git ", "@@ -")):
        line = lines[place].rstrip("\r")
        if line.startswith(("GIT binary patch", "Binary files ")):
            raise PatchError("a binary patch")
        for key in _HEADERS:
            if line.startswith(key):
                seen[key.strip()] = line[len(key) :]
        place += 1
    modes = [seen.get(key, "") for key in ("new file mode", "deleted file mode", "new mode", "old mode")]
    modes.append(seen.get("index", "").rpartition(" ")[2])
    if any(mode.startswith(("120", "160")) for mode in modes):
        raise PatchError("a patch of a link or a submodule")
    patch = _from_headers(seen, names)
    place = _read_hunks(lines, place, patch)
    if not patch.hunks and not {"rename to", "copy to", "new file mode", "deleted file mode", "new mode"} & seen.keys():
        raise PatchError("a file header without a hunk")
    return patch, place


def _from_headers(seen: Mapping[str, str], names: tuple[str, str] | None) -> _FilePatch:
    def stated(header: str, fallback: int) -> str | None:
        if header in seen:
            return _name(seen[header], strip=True)
        if names is None:
            raise PatchError("a patch whose file names cannot be told")
        return _checked(names[fallback])

    if "rename to" in seen or "copy to" in seen:
        verb = "rename" if "rename to" in seen else "copy"
        if f"{verb} from" not in seen:
            raise PatchError(f"'{verb} to' without '{verb} from'")
        old, new = (_name(seen[f"{verb} {way}"], strip=False) for way in ("from", "to"))
        return _FilePatch(old, new, copies=verb == "copy")
    old = None if "new file mode" in seen else stated("---", 0)
    new = None if "deleted file mode" in seen else stated("+++", 1)
    if old is None and new is None:
        raise PatchError("a patch from nothing to nothing")
    return _FilePatch(old, new)


def _traditional(old: str, new: str) -> _FilePatch:
    before, after = _name(old, strip=True), _name(new, strip=True)
    if before is None and after is None:
        raise PatchError("a patch from nothing to nothing")
    return _FilePatch(before, after)


def _names_of_header(line: str) -> tuple[str, str] | None:
    """Both names of `diff --git a/x b/x`; None where a space in them makes it ambiguous."""
    rest = line[len("diff --git ") :].rstrip("\r")
    if rest.startswith('"'):
        return None
    half = len(rest) // 2
    left, right = rest[:half], rest[half + 1 :]
    if rest[half : half + 1] == " " and left.partition("/")[2] == right.partition("/")[2] and "/" in left:
        return left.partition("/")[2], right.partition("/")[2]
    return None


def _name(text: str, strip: bool) -> str | None:
    """A header's file name without its time stamp, its quotes and its first part; None for /dev/null."""
    text = text.rstrip("\r")
    if text.startswith('"'):
        end = re.match(r'"((?:[^"\\]|\\.)*)"', text)
        if end is None:
            raise PatchError("a file name whose quotes do not close")
        raw = _QUOTED.sub(lambda found: chr(_ESCAPES.get(found[1]) or int(found[1], 8)), end[1])
        try:
            text = raw.encode("latin-1").decode()
        except UnicodeError as error:
            raise PatchError("a file name that is not UTF-8") from error
    else:
        text = text.split("\t")[0].rstrip()
    if text == "/dev/null":
        return None
    # git strips one part of the path (-p1); a bare name has none to strip.
    return _checked(text.partition("/")[2] if strip and "/" in text else text)


def _checked(name: str) -> str:
    try:
        return file_name(name)
    except BadFile as error:
        raise PatchError(str(error)) from error


def _read_hunks(lines: Sequence[str], place: int, patch: _FilePatch) -> int:
    while place < len(lines) and (header := _HUNK.match(lines[place])):
        body = _body(lines, place + 1)
        counted = _by_counts(body, int(header[2] or 1), int(header[4] or 1))
        body = counted if counted is not None else _without_blank_end(body)
        patch.hunks.append(_hunk(int(header[1]), int(header[3]), body))
        place += 1 + len(body)
        while place < len(lines) and not lines[place].strip() and place + 1 < len(lines):
            place += 1
    return place


def _body(lines: Sequence[str], start: int) -> list[str]:
    """The lines that may belong to the hunk: up to what can only be something else."""
    end = start
    while end < len(lines) and (not lines[end] or lines[end][0] in " +-\\") and not _is_traditional(lines, end):
        end += 1
    return list(lines[start:end])


def _by_counts(body: Sequence[str], old: int, new: int) -> list[str] | None:
    """As many lines as the header says; None where they are not there, and the lines themselves must tell."""
    for place, line in enumerate(body):
        if old == new == 0:
            rest = 1 if line.startswith(_NO_NEWLINE) else 0
            left = body[place + rest :]
            # More changed lines after the count is used up: the header is wrong.
            return None if any(one[:1] in ("+", "-") for one in left) else list(body[: place + rest])
        sign = line[:1] or " "
        old -= sign in " -"
        new -= sign in " +"
        if old < 0 or new < 0:
            return None
    return list(body) if old == new == 0 else None


def _without_blank_end(body: list[str]) -> list[str]:
    while body and not body[-1]:
        body = body[:-1]
    return body


def _hunk(start: int, new_start: int, body: Sequence[str]) -> _Hunk:
    hunk = _Hunk(start, new_start)
    ends: list[list[str]] = []
    for line in body:
        if line.startswith(_NO_NEWLINE):
            for side in ends:
                side[-1] = side[-1].removesuffix("\n")
            continue
        sign, text = line[:1] or " ", line[1:] + "\n"
        ends = [side for side, signs in ((hunk.old, " -"), (hunk.new, " +")) if sign in signs]
        for side in ends:
            side.append(text)
        hunk.trailing = hunk.trailing + 1 if sign == " " else 0
    if not hunk.old and not hunk.new:
        raise PatchError("an empty hunk")
    return hunk
