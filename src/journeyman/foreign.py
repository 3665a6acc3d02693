"""Text that comes from logs, models and requests, made safe for the place where it is shown: one function a medium.

plain          one line, for a terminal or a log file        named       a name from a log, told from every other name
plain_lines    several lines, for a page or a traceback      markdown    a piece of a line of Markdown
json_text      JSON for stdout                               shell_word  one word of a shell script
ollama_text    a value of an Ollama Modelfile                file_part   a name as a part of a file's name
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
"""They shape Persian words and emoji and move nothing: running text keeps them, a name does not."""
_LONGEST_NAME = 60
_NO_MARKDOWN = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;", **{sign: f"\\{sign}" for sign in "\\`*[]{}~#$"}}
_LONE_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")
_PLAIN_FILE = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")
_ENDS_IN_HASH = re.compile(r"-[0-9a-f]{16}$")
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}
"""Windows opens these as devices, whatever stands after a dot."""


def plain(text: str, limit: int | None = None) -> str:
    r"""One line that no terminal acts on: controls, direction marks and surrogates become escapes such as `\x1b`.

    Args:
        limit: characters of the text to keep; what is cut is marked by "…".
    """
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    return _escaped(text, "")


def plain_lines(text: str) -> str:
    r"""As plain, but line breaks, tabs and the joiners of words and emoji stay: for text that is shown as text."""
    return _escaped(text, f"\n\t{_JOINERS}")


def named(name: str) -> str:
    r"""A name from a log (a role, a teacher) as people read it: as it is where it is plain, else quoted and escaped.

    Two names never look alike by what is invisible in them; a name of more than 60 characters is cut and told apart
    by a hash.
    """
    shown = plain(name)
    if shown != name or name != name.strip() or not name or name[0] == '"':
        name_quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        shown = f'"{plain(name_quoted)}"'
    if len(shown) <= _LONGEST_NAME:
        return shown
    return f"{shown[: _LONGEST_NAME - 10]}… ({hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:6]})"


def markdown(text: str) -> str:
    """A piece of one line of Markdown that shows the text and nothing else: no HTML, link, image, table or heading."""
    text = "".join(_NO_MARKDOWN.get(sign, sign) for sign in plain(text).strip())
    text = _LONE_UNDERSCORE.sub(r"\\_", text)
    text = re.sub(r"^([-+=])|^(\d{1,9})([.)])(?=\s|$)", lambda found: f"{found[2] or ''}\\{found[1] or found[3]}", text)
    return re.sub(r"(www)\.", r"\1&#46;", text.replace("://", "&#58;//"), flags=re.IGNORECASE)


def json_text(value: Any) -> str:
    """JSON whose strings are the true ones when read; no sign in it that a terminal acts on, nor any beyond ASCII."""
    return json.dumps(value, indent=2).replace("\x7f", "\\u007f")


def shell_word(text: str) -> str:
    """One word of a POSIX shell.

    Raises:
        ValueError: it holds a control character, which no quotes make safe for whoever reads the script.
    """
    if plain(text) != text:
        raise ValueError(f"no word of a shell script: {plain(text)!r}")
    return shlex.quote(text)


def ollama_text(text: str) -> str:
    """A value of an Ollama Modelfile that Ollama reads back as this text.

    Ollama's parser (parser/parser.go in ollama/ollama) knows no escapes. A value that opens with three quotes ends at
    the first line break before which three quotes stand, spaces between them or not; and signs that Go's IsPrint
    refuses are dropped, but for tabs and line breaks.

    Raises:
        ValueError: no form of a Modelfile holds this text; the reason is a part of a sentence.
    """
    if any(sign not in "\t\n\r" and not sign.isprintable() for sign in text):
        raise ValueError("it holds signs that Ollama drops when it reads a Modelfile")
    if any(line.rstrip().endswith('"""') for line in re.split(r"[\n\r]", text)[:-1]):
        raise ValueError('a line of it ends in """, which ends a value in a Modelfile')
    return f'"""{text}"""'


def file_part(name: str) -> str:
    """A name from a log as a part of a file's name, on any system: no two names share one, whatever their case.

    A name of lower-case letters, digits, _ and - stays as it is. Others get _ for every other sign, and a hash.
    """
    if _PLAIN_FILE.fullmatch(name) and name not in _DEVICES and not _ENDS_IN_HASH.search(name):
        return name
    slug = re.sub(r"[^A-Za-z0-9_-]", "_", name).lstrip("-")[:40] or "_"
    return f"{slug}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def _escaped(text: str, kept: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(sign) if sign not in kept and _acts(sign) else sign for sign in text)


def _acts(sign: str) -> bool:
    return unicodedata.category(sign) in _ACTING or ord(sign) & 0xFFFE == 0xFFFE


def _escape(sign: str) -> str:
    return sign.encode("unicode_escape").decode("ascii")
