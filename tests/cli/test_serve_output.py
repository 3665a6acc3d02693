"""What `journeyman serve` prints about a running server may be lost; that must not end anything."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fake_engine import BUNDLE
from journeyman.cli import say as terminal
from journeyman.cli import serve


def test_a_full_disk_ends_nothing_that_runs_but_a_key_that_cannot_be_shown_ends_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, lost = list[str](), list[str]()

    def say(text: str, *, err: bool) -> None:
        if any(one in text for one in lost):
            raise OSError(errno.ENOSPC, "No space left on device")
        said.append(text)

    class Host:
        bundle, address = BUNDLE, "http://127.0.0.1:8011/v1"

        def __init__(self, told: Callable[[str], None]) -> None:
            self.told = told

        def run(self) -> None:
            self.told("the engine ended; restarting it")
            self.told("the end")

    @contextmanager
    def hosted(*arguments: Any, told: Callable[[str], None], **more: Any) -> Iterator[Host]:
        told("the key, which is not shown again")
        yield Host(told)

    monkeypatch.setattr(serve, "hosted", hosted)
    monkeypatch.setattr(serve, "say", say)
    for line in ("serving", "the engine ended"):
        said.clear()
        lost[:] = [line]
        serve.serve_bundle(tmp_path, 0)
        assert said[0] == "the key, which is not shown again" and said[-1] == "the end" and len(said) == 3
    lost[:] = ["the key"]
    with pytest.raises(OSError, match="No space left"):
        serve.serve_bundle(tmp_path, 0)


def test_a_full_disk_does_not_fail_a_library_that_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn logs from within the event loop."""

    def full(text: str, *, err: bool) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(terminal, "say_lines", full)
    logger = logging.Logger("a library")
    logger.addHandler(terminal._PlainLog())
    logger.warning("Invalid HTTP request received.")
