"""`journeyman ui`: it prints the address, opens a browser without telling others the token, and ends on Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from journeyman.cli import ui
from journeyman.ui.hosting import Hosting
from page_runs import write_run


def test_a_process_answers_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    write_run(tmp_path / "run", until="ingest")
    command = [sys.executable, "-m", "journeyman", "ui", str(tmp_path), "--port", "0", "--no-open"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ) as child:
        try:
            assert child.stderr is not None and child.stdout is not None
            found = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/#token=(\S+) \(Ctrl-C stops\)\n", child.stderr.readline())
            assert found
            headers = {"authorization": f"Bearer {found[2]}"}
            with httpx.Client(base_url=found[1], headers=headers, timeout=20) as client:
                assert client.get("/api/runs").json()["runs"][0]["name"] == "run"
                with client.stream("GET", "/api/events") as stream:  # a page that is open
                    assert next(stream.iter_lines()) == "event: hello"
                    child.send_signal(signal.SIGINT)
                    assert child.wait(20) == 0
            assert child.stderr.read() == "" and child.stdout.read() == ""
        finally:
            child.kill()


def test_no_argument_of_a_browser_has_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, str]] = []

    def hear(address: str) -> bool:
        file = Path(address.removeprefix("file://"))
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        opened.append((address, file.read_text()))
        return True

    monkeypatch.setattr("webbrowser.open", hear)
    monkeypatch.setattr(Hosting, "run", lambda self: None)
    ui.show_page(tmp_path, 0, browser=True)
    ((address, text),) = opened
    token = re.search(r"#token=([\w-]+)", text)
    assert token and token[1] not in address
    assert not Path(address.removeprefix("file://")).exists()  # gone with the server


def test_no_browser_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(address: str) -> bool:
        raise OSError

    monkeypatch.setattr("webbrowser.open", fail)
    monkeypatch.setattr(Hosting, "run", lambda self: None)
    ui.show_page(tmp_path, 0, browser=True)
