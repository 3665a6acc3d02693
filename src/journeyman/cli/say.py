"""The only code that writes to the terminal. It makes all text plain, so that no text of a log, model or endpoint can
control the terminal.

`say` prints one line, `say_lines` several; `result_console` and `progress_console` draw tables and bars.
tests/test_foreign.py searches the code for any other output.
"""

from __future__ import annotations

import codecs
import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterable
from contextlib import suppress
from io import TextIOWrapper
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from journeyman.foreign import json_text, plain, plain_lines

_PIPED_WIDTH = 120
_BROKEN_PIPE = 141
"""The exit code when the reader of a pipeline has gone: 128 + SIGPIPE, as for any other command."""
_SPELLED = {"–": "-", "−": "-", "…": "...", "≥": ">=", "≤": "<=", "→": "->", "×": "x", "·": "-", "⟦": "[", "⟧": "]"}


class PlainConsole(Console):
    """A console that interprets no markup or emoji codes and lets no control characters through.

    Rich's own colors and cursor movements pass. Texts are made plain before layout, so that tables stay aligned, and
    everything once more before it is written.
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
        """The text in characters that the terminal's encoding has: `>=` for ≥ in ASCII, escapes for others."""
        try:
            text.encode(self.encoding)
        except UnicodeEncodeError:
            return text.encode(self.encoding, "journeyman.spelled").decode(self.encoding)
        return text

    def on_broken_pipe(self) -> None:
        """If nobody reads stdout any more, exits silently; if nobody reads the progress on stderr, work continues."""
        self.quiet = True
        _close(self.file)
        if not self.stderr:
            raise SystemExit(_BROKEN_PIPE)


def result_console() -> PlainConsole:
    """A console on stdout; if that is not a terminal, as wide as COLUMNS, or wide enough for the tables."""
    console = PlainConsole()
    return console if console.is_terminal or "COLUMNS" in os.environ else PlainConsole(width=_PIPED_WIDTH)


def progress_console() -> PlainConsole:
    """A console on stderr."""
    return PlainConsole(stderr=True)


def say(text: str, *, err: bool = False) -> None:
    """Prints the text as one line, even if it contains line breaks."""
    say_on(PlainConsole(stderr=err), text)


def say_on(console: PlainConsole, text: str) -> None:
    """Like `say`, on an existing console."""
    console.print(plain(text), soft_wrap=True)


def say_lines(text: str, *, err: bool = False) -> None:
    """Prints a text that is meant to have several lines: a traceback, another process's output."""
    for line in text.rstrip("\n").split("\n"):
        PlainConsole(stderr=err).print(plain_lines(line), soft_wrap=True)


def say_json(value: Any) -> None:
    """Prints JSON on stdout, in ASCII: strings are escaped, not altered."""
    try:
        print(json_text(value), flush=True)
    except BrokenPipeError:
        _close(sys.stdout)
        raise SystemExit(_BROKEN_PIPE) from None


def prepare_streams() -> None:
    """Makes characters that the encoding lacks harmless, and library logs and errors of threads plain as well."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="journeyman.spelled")
    if not any(isinstance(one, _PlainLog) for one in logging.getLogger().handlers):
        logging.getLogger().addHandler(_PlainLog())
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _thread_failed


class _PlainLog(logging.Handler):
    """Makes log lines of libraries plain: uvicorn, for one, may quote a request."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # a full disk, for one, must not end what a library is doing
            say_lines(f"{record.levelname}: {self.format(record)}", err=True)


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    say_lines("".join(traceback.format_exception(failed.exc_type, failed.exc_value, failed.exc_traceback)), err=True)


def _close(stream: TextIO | Any) -> None:
    """Sends pending and later output nowhere, so that the interpreter's final flush does not fail."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    spelled = (_SPELLED.get(char) or char.encode("ascii", "backslashreplace").decode() for char in missing)
    return "".join(spelled), error.end


codecs.register_error("journeyman.spelled", _spell)
