"""Delivers an alert: to a URL, or to a program of the user."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

import httpx

from journeyman.foreign import plain
from journeyman.http_client import Refused, Retry, async_client, with_retries
from journeyman.keys import bearer

_RETRY = Retry(tries=3, first_wait_s=0.5, most_wait_s=5.0)
_MOST_SAID = 1 << 12


def to_webhook(url: str, key: str | None, timeout_s: float, message: str) -> str:
    """Posts a message; returns why it was not taken, or "". Any 2xx takes it; redirects are not followed.

    The URL may contain a secret, which servers repeat in their answers and httpx in its errors: no text of either is
    returned, only the status or the kind of error.

    Args:
        timeout_s: for all tries together, however slowly the server answers.
    """
    headers = {"Content-Type": "application/json", **bearer(key)}
    until = time.monotonic() + timeout_s

    def attempt() -> None:
        # In a thread of its own, since the caller's may have an event loop already.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, _post(url, headers, until - time.monotonic(), message)).result()

    try:
        with_retries(attempt, _RETRY, again=lambda: time.monotonic() < until)
    except Refused as error:
        return f"status {error.status}"
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        return type(error).__name__
    except TimeoutError:
        return _too_slow(timeout_s)
    return ""


async def _post(url: str, headers: Mapping[str, str], timeout_s: float, message: str) -> None:
    async with (
        asyncio.timeout(timeout_s),
        async_client(headers, timeout_s) as http,
        http.stream("POST", url, content=message.encode()) as response,
    ):
        if not response.is_success:
            raise Refused(response, "")


def to_command(command: Sequence[str], folder: Path, timeout_s: float, message: str) -> str:
    """Runs a program in a folder with the message on its standard input; returns why it failed, or "".

    A program that takes too long is killed, with those of its process group. Programs that it leaves running are not
    waited for: input and errors are files, since a pipe stays open as long as one of them has it.
    """
    with TemporaryFile() as given, TemporaryFile() as said:
        given.write(message.encode() + b"\n")
        given.seek(0)
        try:
            process = subprocess.Popen(
                command, stdin=given, stdout=subprocess.DEVNULL, stderr=said, cwd=folder, start_new_session=True
            )
        except (OSError, ValueError) as error:
            return plain(f"{command[0]}: {error}", 300)
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return _too_slow(timeout_s)
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if not code:
            return ""
        said.seek(max(0, said.seek(0, os.SEEK_END) - _MOST_SAID))
        text = said.read().decode(errors="replace").strip()
        return plain(f"exit code {code}" + (f": {text}" if text else ""), 300)


def _too_slow(timeout_s: float) -> str:
    return f"not finished within monitor.timeout_s ({timeout_s:g} s)"
