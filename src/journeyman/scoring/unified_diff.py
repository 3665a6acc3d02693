"""Reads patches as `git apply` reads them, without git: no program runs, no configuration is read.

Text between patches is skipped. Counts of hunks must be right. Binary patches, links and submodules are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

NO_FILE = "/dev/null"
_RANGE = re.compile(r"@@ -([0-9]{1,9})(?:,([0-9]{1,9}))? \+([0-9]{1,9})(?:,([0-9]{1,9}))? @@")
_MODE = re.compile(r"(?:old mode|new mode|deleted file mode|new file mode) ([0-7]{1,7})")
_WITH_MODE = re.compile(r"index [0-9a-f]+\.\.[0-9a-f]+ ([0-7]{1,7})")
_PLAIN_FILE = re.compile("0?100[0-7]{3}")
_LEAST_NO_NEWLINE = 11
"""Characters, without its end, of a line that says "\\ No newline at end of file" in any language: git's own bound."""


class PatchError(ValueError):
    """It is no patch, or it does not apply; the message says why."""


@dataclass(frozen=True)
class Hunk:
    """Lines with their ends: what stands there, and what then stands there.

    Attributes:
        old_start, new_start: line numbers from 1; 0 where there are no lines.
        trailing: lines of context at its end; without them it must match at the end of the file.
    """

    old_start: int
    new_start: int
    old: Sequence[str]
    new: Sequence[str]
    trailing: int


@dataclass
class FilePatch:
    """What happens to one file.

    Attributes:
        old, new: its names before and after; None where it is created or deleted.
        creates: None where only the files tell: a patch without git's header and without old lines.
        copies: the file of the old name stays.
    """

    old: str | None = None
    new: str | None = None
    creates: bool | None = False
    deletes: bool = False
    renames: bool = False
    copies: bool = False
    modes: bool = False
    hunks: list[Hunk] = field(default_factory=list)


def read_patches(text: str) -> list[FilePatch]:
    """Every file's patch, in order.

    Raises:
        PatchError: there is none, or one is malformed.
    """
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    patches, at, strip = [], 0, _Strip()
    while at < len(lines):
        line = lines[at]
        if line.startswith("@@ -") and _RANGE.match(line):
            raise PatchError(f"line {at + 1}: a hunk without a file's header")
        if line.startswith("diff --git "):
            patch, end = _git_header(lines, at)
            if end == at + 1:
                at = end
                continue
        elif line.startswith("--- ") and _follows(lines, at):
            patch, end = _plain_header(line, lines[at + 1], strip), at + 2
        else:
            at += 1
            continue
        at = _read_hunks(lines, end, patch)
        patches.append(patch)
    if not patches:
        raise PatchError("no valid patch in it")
    return patches


def _follows(lines: Sequence[str], at: int) -> bool:
    return at + 2 < len(lines) and lines[at + 1].startswith("+++ ") and lines[at + 2].startswith("@@ -")


class _Strip:
    """How many leading parts names lose: one, unless the first patch names files that have no folder."""

    def __init__(self) -> None:
        self.parts: int | None = None

    def __call__(self, *names: str) -> list[str]:
        named = [name for name in names if name != NO_FILE]
        if self.parts is None and named and all("/" not in name for name in named):
            self.parts = 0
        return [name if name == NO_FILE else _stripped(name, 1 if self.parts is None else self.parts) for name in names]


def _stripped(name: str, parts: int) -> str:
    head = name.split("/", parts)
    if len(head) <= parts or not head[-1]:
        raise PatchError(f"{name[:80]!r} names no file below a/ or b/")
    return head[-1]


def _plain_header(old_line: str, new_line: str, strip: _Strip) -> FilePatch:
    old, new = strip(_name(old_line[4:]), _name(new_line[4:]))
    if old == NO_FILE and new == NO_FILE:
        raise PatchError("a patch of /dev/null")
    if old == NO_FILE:
        return FilePatch(None, new, creates=True)
    if new == NO_FILE:
        return FilePatch(old, None, deletes=True)
    name = old if len(old) < len(new) and new.startswith(old) else new  # as git: x.orig is x
    return FilePatch(name, name, creates=None)


def _name(text: str) -> str:
    """A file's name as it stands after `---`: in quotes, or up to a tab, where a time follows."""
    if text.startswith('"'):
        return _unquoted(text)[0]
    name = text.partition("\t")[0].partition("\r")[0]
    return NO_FILE if name.startswith(NO_FILE + " ") else name


_ESCAPES = {"a": 7, "b": 8, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13, '"': 34, "\\": 92}


def _unquoted(text: str) -> tuple[str, str]:
    """A name in git's quotes, and what follows it."""
    made, at = bytearray(), 1
    while at < len(text):
        sign = text[at]
        if sign == '"':
            return made.decode("utf-8", "replace"), text[at + 1 :]
        if sign == "\\":
            octal = re.match(r"[0-3][0-7]{2}", text[at + 1 : at + 4])
            code = int(octal[0], 8) if octal else _ESCAPES.get(text[at + 1 : at + 2], -1)
            if code < 0:
                break
            made.append(code)
            at += 4 if octal else 2
        else:
            made += sign.encode("utf-8", "replace")
            at += 1
    raise PatchError(f"a file's name that is badly quoted: {text[:80]!r}")


def _git_header(lines: Sequence[str], at: int) -> tuple[FilePatch, int]:
    """The patch without its hunks, and the line after the header."""
    patch, both = FilePatch(), _name_of_both(lines[at][len("diff --git ") :])
    named: dict[str, str] = {}
    end = at + 1
    while end < len(lines) and not lines[end].startswith("@@ -") and _header_line(lines[end], patch, named):
        end += 1
    if end == at + 1:
        return patch, end
    patch.old = None if patch.creates else _file(named, "from", "---", both)
    patch.new = None if patch.deletes else _file(named, "to", "+++", both)
    for key, name in (("---", patch.old), ("+++", patch.new)):
        if key in named and (named[key] != NO_FILE if name is None else _below(named[key]) != name):
            raise PatchError(f"line {at + 1}: {key} names another file than the header")
    return patch, end


def _file(named: Mapping[str, str], moved: str, marked: str, both: str | None) -> str:
    name = named.get(moved) or (_below(named[marked]) if marked in named else both)
    if not name:
        raise PatchError("a header that names no file")
    return name


def _below(name: str) -> str:
    if name == NO_FILE:
        raise PatchError(f"{NO_FILE} in a header that neither creates nor deletes")
    return _stripped(name, 1)


def _header_line(line: str, patch: FilePatch, named: dict[str, str]) -> bool:
    """Takes in one line of a header; False where it is none."""
    if (mode := _MODE.match(line) or _WITH_MODE.match(line)) and not _PLAIN_FILE.fullmatch(mode[1]):
        raise PatchError(f"no plain file: mode {mode[1]}")
    if line.startswith(("--- ", "+++ ")):
        named[line[:3]] = _name(line[4:])
    elif line.startswith("new file mode "):
        patch.creates = True
    elif line.startswith("deleted file mode "):
        patch.deletes = True
    elif line.startswith(("old mode ", "new mode ")):
        patch.modes = True
    elif line.startswith(("rename from ", "rename to ", "copy from ", "copy to ")):
        kind, way, name = line.split(" ", 2)
        named[way] = _name(name)
        patch.renames, patch.copies = kind == "rename", kind == "copy"
    elif not line.startswith(("index ", "similarity index ", "dissimilarity index ")):
        return False
    return True


def _name_of_both(text: str) -> str | None:
    """The name in `a/NAME b/NAME`, where it is the same in both; it may hold blanks."""
    if text.startswith('"'):
        first, rest = _unquoted(text)
        second = _unquoted(rest.lstrip())[0] if rest.lstrip().startswith('"') else rest.lstrip()
        return _same(first, second)
    if text.endswith('"') and ' "' in text:
        first, _, rest = text.partition(' "')
        return _same(first, _unquoted('"' + rest)[0])
    middle = len(text) // 2
    if len(text) % 2 and text[middle] == " ":
        return _same(text[:middle], text[middle + 1 :])
    return None


def _same(first: str, second: str) -> str | None:
    one, other = first.partition("/")[2], second.partition("/")[2]
    return one if one and one == other else None


def _read_hunks(lines: Sequence[str], at: int, patch: FilePatch) -> int:
    """Takes in the hunks that follow a header; returns the line after them."""
    start = at
    while at < len(lines) and lines[at].startswith("@@ -"):
        hunk, at = _hunk(lines, at)
        patch.hunks.append(hunk)
    if at == start:
        if at < len(lines) and (lines[at] == "GIT binary patch" or lines[at].startswith("Binary files ")):
            raise PatchError("a binary patch")
        if not (patch.creates or patch.deletes or patch.renames or patch.copies or patch.modes):
            raise PatchError(f"line {at}: a header without a change")
    if patch.creates is None and (len(patch.hunks) > 1 or any(hunk.old for hunk in patch.hunks)):
        patch.creates = False
    if patch.creates and any(hunk.old for hunk in patch.hunks):
        raise PatchError(f"{str(patch.new)[:80]!r} is new, but its patch depends on old lines")
    if patch.deletes and any(hunk.new for hunk in patch.hunks):
        raise PatchError(f"{str(patch.old)[:80]!r} is deleted, but its patch leaves lines")
    return at


def _hunk(lines: Sequence[str], at: int) -> tuple[Hunk, int]:
    found, where = _RANGE.match(lines[at]), at + 1
    if found is None:
        raise PatchError(f"line {where}: a hunk's header that cannot be read")
    olds, news = (1 if found[group] is None else int(found[group]) for group in (2, 4))
    old: list[str] = []
    new: list[str] = []
    trailing, changes = 0, False
    at += 1
    while (len(old) < olds or len(new) < news) and at < len(lines):
        line = lines[at]
        kind, text = line[:1] or " ", line[1:] + "\n"
        if kind == "\\":
            if not line.startswith("\\ ") or len(line) < _LEAST_NO_NEWLINE:
                raise PatchError(f"line {at + 1}: not a line of a patch")
        elif kind not in " +-":
            raise PatchError(f"line {at + 1}: not a line of a patch, and the hunk of line {where} is not complete")
        else:
            last = _says_no_newline(lines, at + 1)
            text = text[:-1] if last else text
            if kind != "+" and (text or not last):
                old.append(text)
            if kind != "-" and (text or not last):
                new.append(text)
            trailing = trailing + 1 if kind == " " else 0
            changes = changes or kind != " "
        at += 1
    if len(old) != olds or len(new) != news:
        raise PatchError(f"line {where}: the hunk holds other numbers of lines than it says")
    if not changes:
        raise PatchError(f"line {where}: a hunk without a change")
    if _says_no_newline(lines, at):
        at += 1
    return Hunk(int(found[1]), int(found[3]), old, new, trailing), at


def _says_no_newline(lines: Sequence[str], at: int) -> bool:
    """As git: whatever the language, so only the beginning counts, and that enough text is left."""
    if at >= len(lines) or not lines[at].startswith("\\ "):
        return False
    return len("\n".join(lines[at : at + _LEAST_NO_NEWLINE + 2])) > _LEAST_NO_NEWLINE
