"""Parses unified diffs, in git's form or that of `diff -u`, into patches of single files.

Modes are ignored; links, submodules and binary patches are refused. Source: git's documentation of its diff format.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from journeyman.reasons import Reason
from journeyman.reasons.scoring import PatchNotRead
from journeyman.scoring.row_files import BadFile, file_name

_HUNK = re.compile(r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")
_QUOTED = re.compile(r'\\([abtnvfr"\\]|[0-3][0-7]{2})')
_ESCAPES = {"a": 7, "b": 8, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13, '"': 34, "\\": 92}
_NO_NEWLINE = "\\"
_HEADERS = (
    "new file mode ", "deleted file mode ", "old mode ", "new mode ", "rename from ", "rename to ", "copy from ",
    "copy to ", "--- ", "+++ ", "index ",
)  # fmt: skip


class PatchError(ValueError):
    """A diff that cannot be read or applied; text quoted from the answer is a single line."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.sentence())
        self.reason = reason


@dataclass
class Hunk:
    """One change of a file. Lines keep their line ends: "a\\n", or "a" if the file ends without one."""

    start: int
    new_start: int
    old: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    trailing: int = 0


@dataclass
class FilePatch:
    """The changes of one file: `old` is None if it is created, `new` is None if it is deleted."""

    old: str | None
    new: str | None
    hunks: list[Hunk] = field(default_factory=list)
    copies: bool = False


def parsed(diff: str) -> list[FilePatch]:
    """The patches in a text, in order; lines that belong to none are skipped.

    Raises:
        PatchError: a patch cannot be read or is of a kind that is refused.
    """
    lines = diff.split("\n")
    patches: list[FilePatch] = []
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
            raise PatchError(PatchNotRead(f"line {place + 1}: a hunk without a file"))
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


def _git_patch(lines: Sequence[str], place: int) -> tuple[FilePatch, int]:
    """A patch with git's extended headers."""
    names = _names_of_header(lines[place])
    seen: dict[str, str] = {}
    place += 1
    while place < len(lines) and not lines[place].startswith(("diff --git ", "@@ -")):
        line = lines[place].rstrip("\r")
        if line.startswith(("GIT binary patch", "Binary files ")):
            raise PatchError(PatchNotRead("a binary patch"))
        for key in _HEADERS:
            if line.startswith(key):
                seen[key.strip()] = line[len(key) :]
        place += 1
    modes = [seen.get(key, "") for key in ("new file mode", "deleted file mode", "new mode", "old mode")]
    modes.append(seen.get("index", "").rpartition(" ")[2])
    if any(mode.startswith(("120", "160")) for mode in modes):
        raise PatchError(PatchNotRead("a patch of a link or a submodule"))
    patch = _from_headers(seen, names)
    place = _read_hunks(lines, place, patch)
    if not patch.hunks and not {"rename to", "copy to", "new file mode", "deleted file mode", "new mode"} & seen.keys():
        raise PatchError(PatchNotRead("a file header without a hunk"))
    return patch, place


def _from_headers(seen: Mapping[str, str], names: tuple[str, str] | None) -> FilePatch:
    def stated(header: str, fallback: int) -> str | None:
        if header in seen:
            return _name(seen[header], strip=True)
        if names is None:
            raise PatchError(PatchNotRead("a patch with ambiguous file names"))
        return _checked(names[fallback])

    if "rename to" in seen or "copy to" in seen:
        verb = "rename" if "rename to" in seen else "copy"
        if f"{verb} from" not in seen:
            raise PatchError(PatchNotRead(f"'{verb} to' without '{verb} from'"))
        old, new = (_name(seen[f"{verb} {way}"], strip=False) for way in ("from", "to"))
        return FilePatch(old, new, copies=verb == "copy")
    old = None if "new file mode" in seen else stated("---", 0)
    new = None if "deleted file mode" in seen else stated("+++", 1)
    if old is None and new is None:
        raise PatchError(PatchNotRead("a patch from nothing to nothing"))
    return FilePatch(old, new)


def _traditional(old: str, new: str) -> FilePatch:
    before, after = _name(old, strip=True), _name(new, strip=True)
    if before is None and after is None:
        raise PatchError(PatchNotRead("a patch from nothing to nothing"))
    return FilePatch(before, after)


def _names_of_header(line: str) -> tuple[str, str] | None:
    """Both names of `diff --git a/x b/x`; None if spaces or quotes in them make the line ambiguous."""
    rest = line[len("diff --git ") :].rstrip("\r")
    if rest.startswith('"'):
        return None
    half = len(rest) // 2
    left, right = rest[:half], rest[half + 1 :]
    if rest[half : half + 1] == " " and left.partition("/")[2] == right.partition("/")[2] and "/" in left:
        return left.partition("/")[2], right.partition("/")[2]
    return None


def _name(text: str, strip: bool) -> str | None:
    """A header's file name without timestamp, quotes and first path component; None for /dev/null."""
    text = text.rstrip("\r")
    if text.startswith('"'):
        end = re.match(r'"((?:[^"\\]|\\.)*)"', text)
        if end is None:
            raise PatchError(PatchNotRead("a file name with an unclosed quote"))
        raw = _QUOTED.sub(lambda found: chr(_ESCAPES.get(found[1]) or int(found[1], 8)), end[1])
        try:
            text = raw.encode("latin-1").decode()
        except UnicodeError as error:
            raise PatchError(PatchNotRead("a file name that is not UTF-8")) from error
    else:
        text = text.split("\t")[0].rstrip()
    if text == "/dev/null":
        return None
    # git strips one component of the path (-p1); a bare name has none.
    return _checked(text.partition("/")[2] if strip and "/" in text else text)


def _checked(name: str) -> str:
    try:
        return file_name(name)
    except BadFile as error:
        raise PatchError(PatchNotRead(str(error))) from error


def _read_hunks(lines: Sequence[str], place: int, patch: FilePatch) -> int:
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
    """The lines that may belong to the hunk, up to the first one that cannot."""
    end = start
    while end < len(lines) and (not lines[end] or lines[end][0] in " +-\\") and not _is_traditional(lines, end):
        end += 1
    return list(lines[start:end])


def _by_counts(body: Sequence[str], old: int, new: int) -> list[str] | None:
    """As many lines as the header states; None if the counts do not fit, so that the lines themselves must decide."""
    for place, line in enumerate(body):
        if old == new == 0:
            rest = 1 if line.startswith(_NO_NEWLINE) else 0
            left = body[place + rest :]
            # Changed lines follow after the count is used up, so the header is wrong.
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


def _hunk(start: int, new_start: int, body: Sequence[str]) -> Hunk:
    hunk = Hunk(start, new_start)
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
        raise PatchError(PatchNotRead("an empty hunk"))
    return hunk
