"""`journeyman ui`: a skin over ui/hosting.py."""

from __future__ import annotations

import tempfile
import webbrowser
from contextlib import suppress
from pathlib import Path

from journeyman.cli.say import say
from journeyman.ui.hosting import page

_OPENER = """<!doctype html><meta charset="utf-8"><title>journeyman</title>
<meta http-equiv="refresh" content="0; url={address}"><a href="{address}">journeyman</a>
"""


def show_page(folder: Path, port: int, *, browser: bool) -> None:
    """Shows the page until it is stopped by a signal.

    Raises:
        UsageError: there is no such folder, or the port is taken.
    """
    with page(folder, port) as hosting, tempfile.TemporaryDirectory(prefix="journeyman-ui-") as private:
        say(f"{hosting.address} (Ctrl-C stops)", err=True)
        if browser:
            _open(hosting.address, Path(private))
        hosting.run()


def _open(address: str, private: Path) -> None:
    """Opens the page by a file that only this user can read: other users can see the arguments of a browser."""
    file = private / "open.html"
    file.write_text(_OPENER.format(address=address), encoding="utf-8")
    with suppress(OSError, webbrowser.Error):
        webbrowser.open(file.as_uri())
