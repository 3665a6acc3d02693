"""The page over run folders: served for a browser, or asked without one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from journeyman.ui.app import make_app
from journeyman.ui.context import Context
from journeyman.ui.hosting import Hosting, page

HOSTILE = "<img src=x onerror=\"document.title='HIT'\"></pre><script>document.title='HIT'</script>\u202e"
"""Text that changes the title if it is taken for HTML."""
TOO_WIDE = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


@contextmanager
def serving(folder: Path, port: int = 0) -> Iterator[Hosting]:
    """The page's server, in a thread."""
    with page(folder, port) as hosting:
        thread = threading.Thread(target=hosting.run)
        thread.start()
        try:
            yield hosting
        finally:
            hosting.stop()
            thread.join(10)


class RunPage:
    """What the page gets for the only run of a folder."""

    def __init__(self, folder: Path) -> None:
        guard, _ = make_app(Context.below(folder), ["127.0.0.1:1"], "t")
        self.client = TestClient(guard, base_url="http://127.0.0.1:1", headers={"authorization": "Bearer t"})
        self.run = self.client.get("/api/runs").json()["runs"][0]["id"]

    def get(self, part: str, status: int = 200, **parameters: Any) -> Any:
        answer = self.client.get(f"/api/runs/{self.run}/{part}", params=parameters)
        assert answer.status_code == status, answer.text
        return answer.json()
