"""A headless Chromium, driven through its debugging pipe (https://chromedevtools.github.io/devtools-protocol/)."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_READ, _WRITE = 3, 4


def chromium() -> str | None:
    """The program; None if this machine has none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """A page of a browser.

    Attributes:
        complaints: errors on the console, exceptions that nothing caught, and what the content policy refused.
    """

    def __init__(self, to: int, answers: int) -> None:
        self._to, self._from = to, answers
        self._number, self._rest, self._session = 0, b"", ""
        self.complaints: list[str] = []
        target = self.send("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self.send("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What a command returns."""
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._number, "method": method, "params": dict(parameters or {}), **session}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next(30.0)
            if found is None:
                raise TimeoutError(f"{method}: no answer of Chromium")
            if found.get("id") == self._number:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']}")
                return dict(found["result"])

    def _next(self, patience_s: float) -> dict[str, Any] | None:
        """The next message; events are looked at on the way."""
        ends = time.monotonic() + patience_s
        while b"\0" not in self._rest:
            left = ends - time.monotonic()
            if left <= 0 or not select.select([self._from], [], [], left)[0]:
                return None
            data = os.read(self._from, 1 << 20)
            if not data:
                raise RuntimeError("Chromium ended")
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        self._hear(found.get("method", ""), found.get("params", {}))
        return found

    def _hear(self, event: str, given: Mapping[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            details = given["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif event == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning", "assert"):
            self.complaints.append(" ".join(str(one.get("value", one.get("description"))) for one in given["args"]))
        elif event == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{given['entry']['text']} {given['entry'].get('url', '')}".strip())

    def open(self, address: str) -> None:
        self.send("Page.navigate", {"url": address})

    def value(self, expression: str) -> Any:
        """A value of the page's; promises are waited for."""
        parameters = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        found = self.send("Runtime.evaluate", parameters)
        if "exceptionDetails" in found:
            raise AssertionError(found["exceptionDetails"].get("exception", {}).get("description"))
        return found["result"].get("value")

    def wait(self, expression: str, patience_s: float = 20.0) -> None:
        """Returns as soon as an expression is true."""
        ends = time.monotonic() + patience_s
        while time.monotonic() < ends:
            with suppress(AssertionError):
                if self.value(f"Boolean({expression})"):
                    return
            self._next(0.05)
        shown = self.value("document.body.innerText")[:600]
        raise AssertionError(f"not so after {patience_s:g} s: {expression}\n{shown}\n{self.complaints}")

    def size(self, width: int, height: int, scale: float = 1.0) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", metrics)

    def scheme(self, name: str) -> None:
        """light or dark."""
        features = [
            {"name": "prefers-color-scheme", "value": name},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.send("Emulation.setEmulatedMedia", {"features": features})

    def press(self, key: str, text: str = "") -> None:
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowDown": 40, "ArrowUp": 38, "End": 35, "Home": 36, " ": 32}
        common = {"key": key, "code": key, "windowsVirtualKeyCode": codes.get(key, 0)}
        self.send("Input.dispatchKeyEvent", {"type": "keyDown", **common, **({"text": text} if text else {})})
        self.send("Input.dispatchKeyEvent", {"type": "keyUp", **common})

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Takes a screenshot; `whole`: of the page to its end."""
        parameters: dict[str, Any] = {"format": "png", "captureBeyondViewport": whole}
        if whole:
            size = self.send("Page.getLayoutMetrics")["cssContentSize"]
            parameters["clip"] = {
                "x": 0,
                "y": 0,
                "width": size["width"],
                "height": min(size["height"], 4000),
                "scale": 1,
            }
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", parameters)["data"]))


@contextmanager
def tab() -> Iterator[Tab]:
    """A page in a browser of its own, which is ended after."""
    program = chromium()
    assert program is not None
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        read_in, write_in = os.pipe()
        read_out, write_out = os.pipe()

        def pipes() -> None:
            os.dup2(read_in, 10)
            os.dup2(write_out, 11)
            os.dup2(10, _READ)
            os.dup2(11, _WRITE)

        child = subprocess.Popen(
            [
                program, "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-first-run",
                "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
                "--disable-component-update", "--disable-sync", "--no-proxy-server", "--hide-scrollbars",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            close_fds=False, preexec_fn=pipes, start_new_session=True,
        )  # fmt: skip
        os.close(read_in)
        os.close(write_out)
        try:
            yield Tab(write_in, read_out)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            os.close(write_in)
            os.close(read_out)
