"""Makes text from logs, models and requests safe for the place where it is shown: one function per medium.

plain          one line, for a terminal or a log file        named       a name from a log, distinct from all others
plain_lines    several lines, for a page or a traceback      markdown    part of a line of Markdown
json_text      JSON for stdout                               shell_word  one word of a shell script
ollama_text    a value of an Ollama Modelfile                file_part   a name as a part of a file name
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import unicodedata
from typing import Any

_ACTING = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
"""Unicode categories that a terminal or an editor acts on: controls, direction marks, surrogates, line separators."""
_JOINERS = "\u200c\u200d"
"""Zero-width (non-)joiners, which Persian words and emoji need: kept in running text, escaped in names."""
_LONGEST_NAME = 60
_NO_MARKDOWN = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;", **{char: f"\\{char}" for char in "\\`*[]{}~#$"}}
_LONE_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")
_PLAIN_FILE = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")
_ENDS_IN_HASH = re.compile(r"-[0-9a-f]{16}$")
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}
"""Windows opens these as devices, with any extension."""


def plain(text: str, limit: int | None = None) -> str:
    r"""The text as one harmless line: controls, direction marks and surrogates become escapes such as `\x1b`.

    Args:
        limit: the most characters to keep; "…" marks a cut.
    """
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    return _escaped(text, "")


def plain_lines(text: str) -> str:
    r"""Like `plain`, but keeps line breaks, tabs and joiners: for text that is shown as text."""
    return _escaped(text, f"\n\t{_JOINERS}")


def named(name: str) -> str:
    r"""A name from a log (a role, a teacher) for display: unchanged if it is plain, otherwise quoted and escaped.

    Two names that differ in invisible characters look different; a name of more than 60 characters is shortened, with
    a hash to distinguish it.
    """
    shown = plain(name)
    if shown != name or name != name.strip() or not name or name[0] == '"':
        name_quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        shown = f'"{plain(name_quoted)}"'
    if len(shown) <= _LONGEST_NAME:
        return shown
    return f"{shown[: _LONGEST_NAME - 10]}… ({hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:6]})"


def markdown(text: str) -> str:
    """The text as part of a line of Markdown, without effect as HTML, link, image, table or heading."""
    text = "".join(_NO_MARKDOWN.get(char, char) for char in plain(text).strip())
    text = _LONE_UNDERSCORE.sub(r"\\_", text)
    text = re.sub(r"^([-+=])|^(\d{1,9})([.)])(?=\s|$)", lambda found: f"{found[2] or ''}\\{found[1] or found[3]}", text)
    return re.sub(r"(www)\.", r"\1&#46;", text.replace("://", "&#58;//"), flags=re.IGNORECASE)


def json_text(value: Any, indent: int | None = 2) -> str:
    """JSON in ASCII, with escapes for everything that a terminal acts on; parsing it gives the original strings."""
    return json.dumps(value, indent=indent).replace("\x7f", "\\u007f")


def shell_word(text: str) -> str:
    """One word of a POSIX shell.

    Raises:
        ValueError: it contains a control character, which quoting does not make safe for readers of the script.
    """
    if plain(text) != text:
        raise ValueError(f"not usable in a shell script: {plain(text)!r}")
    return shlex.quote(text)


def ollama_text(text: str) -> str:
    """A value of an Ollama Modelfile that Ollama reads back as this text.

    Ollama's parser (parser/parser.go in ollama/ollama) has no escapes. A value that opens with three quotes ends at
    the first line that ends with three quotes, optionally followed by spaces; and characters that Go's IsPrint
    refuses are dropped, except tabs and line breaks.

    Raises:
        ValueError: a Modelfile cannot express this text; the reason is part of a sentence.
    """
    if any(char not in "\t\n\r" and not char.isprintable() for char in text):
        raise ValueError("its prompt contains characters that Ollama drops when it reads a Modelfile")
    if any(line.rstrip().endswith('"""') for line in re.split(r"[\n\r]", text)[:-1]):
        raise ValueError('a line of its prompt ends in """, which ends a value in a Modelfile')
    return f'"""{text}"""'


def file_part(name: str) -> str:
    """A name from a log as part of a file name on any system; no two names give the same, even ignoring case.

    A name of lower-case letters, digits, _ and - stays as it is. In others, _ replaces all other characters, and a
    hash is added.
    """
    if _PLAIN_FILE.fullmatch(name) and name not in _DEVICES and not _ENDS_IN_HASH.search(name):
        return name
    slug = re.sub(r"[^A-Za-z0-9_-]", "_", name).lstrip("-")[:40] or "_"
    return f"{slug}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def _escaped(text: str, kept: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(char) if char not in kept and _acts(char) else char for char in text)


def _acts(char: str) -> bool:
    return unicodedata.category(char) in _ACTING or ord(char) & 0xFFFE == 0xFFFE


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
