"""A teacher's API that answers with scripted bytes, in a thread, and a recorder in front of it, in another."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from journeyman.api.recording import Recording, recording
from journeyman.gateway.ledger import MakerHere
from journeyman.gateway.row_files import lines_of, row_files

ABORT = None
Script = Iterable["bytes | float | None"]
"""What is written, seconds of silence, and ABORT, which closes the connection."""


@dataclass
class Seen:
    """A request that arrived."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.line.split(" ")[1]


@dataclass
class ScriptedUpstream:
    """Answers each request with what `answer` gives; `left` counts clients that went away during an answer."""

    answer: Callable[[Seen], Script]
    seen: list[Seen] = field(default_factory=list)
    left: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = dict(line.split(": ", 1) for line in head[1:] if line)
                lower = {name.lower(): value for name, value in headers.items()}
                body = await reader.readexactly(int(lower.get("content-length", 0)))
                request = Seen(head[0], headers, body)
                self.seen.append(request)
                for step in self.answer(request):
                    if step is ABORT:
                        writer.close()
                        return
                    if isinstance(step, float):
                        if await _went_away(reader, step):
                            self.left += 1
                            return
                        continue
                    writer.write(step)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def _went_away(reader: asyncio.StreamReader, pause_s: float) -> bool:
    try:
        async with asyncio.timeout(pause_s):
            return not await reader.read(1)
    except TimeoutError:
        return False


@contextmanager
def scripted(answer: Callable[[Seen], Script], context: ssl.SSLContext | None = None) -> Iterator[ScriptedUpstream]:
    upstream = ScriptedUpstream(answer)
    loop, ready = asyncio.new_event_loop(), threading.Event()

    async def main() -> None:
        server = await asyncio.start_server(upstream._serve, "127.0.0.1", 0, limit=1 << 26, ssl=context)
        upstream.port = server.sockets[0].getsockname()[1]
        ready.set()
        stopped = loop.create_future()
        loop.stopped = stopped  # type: ignore[attr-defined]
        await stopped
        server.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    ready.wait()
    try:
        yield upstream
    finally:
        loop.call_soon_threadsafe(loop.stopped.set_result, None)  # type: ignore[attr-defined]
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
            loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.close()


@contextmanager
def recorded(folder: Path, upstream: str, settings: str = "", **options: Any) -> Iterator[Recording]:
    """A recorder in a thread; when the block ends, all rows are written."""
    (folder / "journeyman.toml").write_text(f"[record]\nshutdown_s = 0.5\n{settings}\n")
    with recording(folder, upstream, 0, maker=MakerHere, **options) as recorder:
        thread = threading.Thread(target=recorder.run)
        thread.start()
        try:
            yield recorder
        finally:
            recorder.stop()
            thread.join()


def rows_in(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run folder, by number."""
    rows = [json.loads(line) for path in row_files(folder / "recorded") for line in lines_of(path)]
    return sorted(rows, key=lambda row: row["seq"])


def http(body: bytes, kind: str = "application/json", status: str = "200 OK", *headers: str) -> bytes:
    """An answer with its length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunks(*pieces: bytes, kind: str = "text/event-stream", end: bool = True) -> list[bytes]:
    """A streamed answer, in chunks."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\nX-Upstream: yes\r\n\r\n".encode()
    return [head, *(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces), *([b"0\r\n\r\n"] if end else [])]


def sse(*events: Any, named: bool = False) -> list[bytes]:
    """Server-sent events."""
    made = []
    for event in events:
        name = f"event: {event['type']}\n" if named and isinstance(event, dict) else ""
        data = event if isinstance(event, str) else json.dumps(event)
        made.append(f"{name}data: {data}\n\n".encode())
    return made
