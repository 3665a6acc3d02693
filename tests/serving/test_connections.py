"""Limits of connections: idle ones are closed, and no number of them takes the port from others."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from faults import wait_until
from journeyman.api.hosting import open_listener
from journeyman.serving import writing
from journeyman.serving.server import BoundedServer

GET = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
HEAD = b"POST /x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n"
Address = tuple[str, int]


async def refuses(scope: Any, receive: Any, send: Any) -> None:
    """Answers without reading the request's body."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@contextmanager
def running(app: Any = refuses, **limits: Any) -> Iterator[tuple[BoundedServer, Address]]:
    server = BoundedServer(app, lambda: None, 2.0, **limits)
    listener = open_listener("127.0.0.1", 0)
    listener.listen()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield server, listener.getsockname()
    finally:
        server.should_exit = True
        thread.join()


def is_closed(client: socket.socket) -> bool:
    """Waits for the end of the connection, and fails after a minute without it."""
    client.settimeout(60)
    try:
        while client.recv(1 << 16):
            pass
    except (ConnectionResetError, BrokenPipeError):
        pass
    return True


@pytest.mark.parametrize("sent", [b"", HEAD], ids=["nothing", "half a head"])
def test_a_connection_without_a_complete_request_is_closed(sent: bytes) -> None:
    with running(request_s=0.2) as (_, address), socket.create_connection(address) as client:
        client.sendall(sent)
        assert is_closed(client)


@pytest.mark.parametrize("begins", [b"X", HEAD + b"\r\n"], ids=["headers", "the body of an answered request"])
def test_a_client_that_goes_on_sending_a_little_is_closed(begins: bytes) -> None:
    with running(request_s=0.3) as (_, address), socket.create_connection(address) as client:
        client.sendall(begins)
        ended = threading.Event()

        def trickle() -> None:
            while not ended.wait(0.05):
                try:
                    client.sendall(b"a")
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        assert is_closed(client)
        ended.set()
        thread.join()


def test_a_connection_that_is_used_stays_open() -> None:
    with running(request_s=2.0) as (_, address), socket.create_connection(address) as client:
        for _ in range(4):
            threading.Event().wait(0.6)
            client.sendall(GET)
            assert answered(client)


def test_an_answer_may_take_longer_than_a_request() -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await asyncio.sleep(0.5)
        await refuses(scope, receive, send)

    with running(slow, request_s=0.1) as (_, address), socket.create_connection(address) as client:
        client.sendall(GET)
        assert answered(client)


def answered(client: socket.socket) -> bool:
    client.settimeout(60)
    data = b""
    while not data.endswith(b"ok"):
        piece = client.recv(1000)
        assert piece, "the connection was closed"
        data += piece
    return True


def test_idle_connections_make_room_and_busy_ones_stay() -> None:
    go, begun = threading.Event(), threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/slow":
            begun.set()
            await asyncio.to_thread(go.wait)
        await refuses(scope, receive, send)

    with running(app, most=4) as (server, address), socket.create_connection(address) as busy:
        busy.sendall(GET.replace(b"/ ", b"/slow ", 1))
        assert begun.wait(60)
        idle = [socket.create_connection(address) for _ in range(20)]
        assert all(map(is_closed, idle[:17])), "the oldest ones"
        assert httpx.get(f"http://127.0.0.1:{address[1]}/").text == "ok"
        assert len(server.server_state.connections) <= 4
        go.set()
        assert answered(busy)
        for one in idle:
            one.close()


def test_a_connection_is_refused_if_all_others_are_busy() -> None:
    go, begun = threading.Event(), threading.Semaphore(0)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            begun.release()
            await asyncio.to_thread(go.wait)
        await refuses(scope, receive, send)

    with running(app, most=2) as (_, address):
        busy = [socket.create_connection(address) for _ in range(2)]
        for one in busy:
            one.sendall(GET)
            begun.acquire()
        with socket.create_connection(address) as further:
            assert is_closed(further)
        go.set()
        for one in busy:
            assert answered(one)
            one.close()


def test_a_client_that_reads_nothing_is_disconnected(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ended = threading.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
        finally:
            ended.set()

    monkeypatch.setattr(writing.PatientWriter.__init__, "__defaults__", (0.1,))
    with running(endless) as (server, address), socket.create_connection(address) as client:
        client.sendall(GET)
        assert ended.wait(60)
        wait_until(lambda: not server.server_state.connections)
    assert not caplog.records


_FEW_FILES = """
import resource, socket, sys
import test_connections
resource.setrlimit(resource.RLIMIT_NOFILE, (100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
with test_connections.running() as (_, address):
    print(address[1], flush=True)
    sys.stdin.readline()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of open files")
def test_the_limit_follows_that_of_open_files() -> None:
    """More idle connections than the process may have files: other clients are answered, and no log grows."""
    with subprocess.Popen(
        [sys.executable, "-c", _FEW_FILES], cwd=__file__.rpartition("/")[0], env=environment(), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as child:  # fmt: skip
        assert child.stdout and child.stdin and child.stderr
        port = int(child.stdout.readline())
        held = []
        for _ in range(300):
            held.append(socket.create_connection(("127.0.0.1", port)))
        for _ in range(5):
            assert httpx.get(f"http://127.0.0.1:{port}/", timeout=60).text == "ok"
        child.stdin.write("\n")
        child.stdin.flush()
        assert len(child.stderr.read()) < 1000
        for one in held:
            one.close()


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_what_cannot_be_accepted_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    server = BoundedServer(refuses, lambda: None)

    async def scene() -> None:
        for _ in range(1000):
            server._failed(asyncio.get_running_loop(), {"exception": OSError(errno.EMFILE, "Too many open files")})
        server._failed(asyncio.get_running_loop(), {"message": "another failure"})

    with caplog.at_level(logging.ERROR):
        asyncio.run(scene())
    assert [record.getMessage() for record in caplog.records] == [
        "connections cannot be accepted: Too many open files", "another failure",
    ]  # fmt: skip
