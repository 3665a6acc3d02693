"""The only way to the terminal. Whatever is printed here is plain: no text of a log, model or endpoint acts on it.

`say` prints one line, `say_lines` several; `result_console` and `progress_console` draw tables and bars.
tests/test_foreign.py walks the code for any other way out.
"""

from __future__ import annotations

import codecs
import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterable
from io import TextIOWrapper
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from journeyman.foreign import json_text, plain, plain_lines

_PIPED_WIDTH = 120
_BROKEN_PIPE = 141
"""The exit code of a program whose reader has gone: 128 and SIGPIPE, as of any other command of a pipeline."""
_SPELLED = {"–": "-", "−": "-", "…": "...", "≥": ">=", "≤": "<=", "→": "->", "×": "x", "·": "-", "⟦": "[", "⟧": "]"}


class PlainConsole(Console):
    """A console that reads no markup, draws no emoji for words and lets no foreign sign through.

    Rich's own colours and cursor movements pass. Texts are made plain before they are laid out, so that tables stand
    straight, and everything once more as it goes out.
    """

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, width=width, markup=False, highlight=False, emoji=False)

    def render_str(self, text: str, **style: Any) -> Text:
        style |= {"markup": False, "emoji": False, "highlight": False}
        return super().render_str(self.spelled(plain_lines(text)), **style)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=self.spelled(plain_lines(segment.text)))

    def spelled(self, text: str) -> str:
        """As the terminal's encoding can show it: `>=` for ≥ where it is ASCII, escapes for what it lacks."""
        try:
            text.encode(self.encoding)
        except UnicodeEncodeError:
            return text.encode(self.encoding, "journeyman.spelled").decode(self.encoding)
        return text

    def on_broken_pipe(self) -> None:
        """Nobody reads stdout any more: the end, without a word. Work goes on without a reader of its progress."""
        self.quiet = True
        _close(self.file)
        if not self.stderr:
            raise SystemExit(_BROKEN_PIPE)


def result_console() -> PlainConsole:
    """On stdout; where that is no terminal, as wide as COLUMNS says, or wide enough for the tables."""
    console = PlainConsole()
    return console if console.is_terminal or "COLUMNS" in os.environ else PlainConsole(width=_PIPED_WIDTH)


def progress_console() -> PlainConsole:
    """On stderr."""
    return PlainConsole(stderr=True)


def say(text: str, *, err: bool = False) -> None:
    """Prints one line, however many the text holds."""
    say_on(PlainConsole(stderr=err), text)


def say_on(console: PlainConsole, text: str) -> None:
    """As say, on a console that is there already."""
    console.print(plain(text), soft_wrap=True)


def say_lines(text: str, *, err: bool = False) -> None:
    """Prints a text of several lines that is known to have them: a traceback, what another process said."""
    for line in text.rstrip("\n").split("\n"):
        PlainConsole(stderr=err).print(plain_lines(line), soft_wrap=True)


def say_json(value: Any) -> None:
    """Prints JSON on stdout: the true strings for whoever reads it, in ASCII."""
    try:
        print(json_text(value), flush=True)
    except BrokenPipeError:
        _close(sys.stdout)
        raise SystemExit(_BROKEN_PIPE) from None


def prepare_streams() -> None:
    """No sign that the encoding lacks ends the work; what libraries log and failed threads say is plain as well."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="journeyman.spelled")
    if not any(isinstance(one, _PlainLog) for one in logging.getLogger().handlers):
        logging.getLogger().addHandler(_PlainLog())
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _thread_failed


class _PlainLog(logging.Handler):
    """What libraries log, uvicorn among them, may quote a request."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        say_lines(f"{record.levelname}: {self.format(record)}", err=True)


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    say_lines("".join(traceback.format_exception(failed.exc_type, failed.exc_value, failed.exc_traceback)), err=True)


def _close(stream: TextIO | Any) -> None:
    """What is still to be written, and whatever comes, goes nowhere: the interpreter's own last flush must not fail."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    spelled = (_SPELLED.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in signs)
    return "".join(spelled), error.end


codecs.register_error("journeyman.spelled", _spell)
