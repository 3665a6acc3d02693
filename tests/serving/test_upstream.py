"""The port's connection to the engine: what breaks, what is late, and what is asked a second time."""

from __future__ import annotations

import asyncio

import pytest

from fake_http import Reply, fake_http
from journeyman.serving.upstream import Late, Lost, upstream


def ok(_: object) -> Reply:
    return Reply("fine")


async def asked(address: str, again: bool, time_s: float | None = None) -> int:
    async with upstream() as client:
        answer = await client.post(f"{address}/x", {}, {}, time_s, again=lambda: again)
        await answer.body()
        answer.close()
        return answer.status


def test_a_dropped_connection_is_tried_once_more_if_the_engine_runs() -> None:
    with fake_http(ok, [Reply(drop=True)]) as server:
        assert asyncio.run(asked(server.address, again=True)) == 200 and len(server.asked) == 2
    with fake_http(ok, [Reply(drop=True)] * 2) as server, pytest.raises(Lost):
        asyncio.run(asked(server.address, again=True))
    assert len(server.asked) == 2
    with fake_http(ok, [Reply(drop=True)]) as server, pytest.raises(Lost):
        asyncio.run(asked(server.address, again=False))
    assert len(server.asked) == 1


def test_nothing_is_reached_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with fake_http(ok) as server:
        assert asyncio.run(asked(server.address, again=False)) == 200


def test_a_server_that_is_not_there_is_lost() -> None:
    with pytest.raises(Lost):
        asyncio.run(asked("http://127.0.0.1:1", again=True))


def test_a_redirect_is_not_followed() -> None:
    with fake_http(lambda _: Reply("", 307, {"Location": "http://127.0.0.1:1/"})) as server:
        assert asyncio.run(asked(server.address, again=False)) == 307


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ONE = b"3\r\none\r\n"


def talked(
    said: bytes, ends: bool, time_s: float | None = None, enough: bool = False
) -> tuple[list[bytes], bool, object]:
    """The pieces of an answer, whether the server saw the client leave, and the error with which it ended.

    Args:
        said: the server's bytes, after which it closes the connection if it `ends`.
        enough: the client leaves after the first piece.
    """

    async def run() -> tuple[list[bytes], bool, object]:
        left = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(2)
            writer.write(said)
            if not ends and not await reader.read():
                left.set()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        pieces: list[bytes] = []
        failed: Exception | None = None
        async with server, upstream() as client:
            port = server.sockets[0].getsockname()[1]
            try:
                answer = await client.post(f"http://127.0.0.1:{port}/", {}, {}, time_s)
                async for piece in answer.pieces():
                    pieces.append(piece)
                    if enough:
                        break
                answer.close()
            except (Lost, Late) as error:
                failed = error
            if not ends:
                await asyncio.wait_for(left.wait(), 10)
        return pieces, left.is_set(), failed

    return asyncio.run(run())


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200", HEAD, HEAD + ONE, HEAD + b"5\r\non", b"nonsense\r\n\r\n"])
def test_an_answer_that_breaks_off_is_lost(said: bytes) -> None:
    pieces, _, failed = talked(said, ends=True)
    assert isinstance(failed, Lost) and pieces in ([], [b"one"], [b"on"])


@pytest.mark.parametrize("said", [b"", HEAD, HEAD + ONE])
def test_an_answer_that_takes_too_long_is_late_and_the_engine_stops(said: bytes) -> None:
    _, left, failed = talked(said, ends=False, time_s=0.2)
    assert isinstance(failed, Late) and left


def test_the_engine_notices_a_client_that_leaves() -> None:
    pieces, left, failed = talked(HEAD + ONE, ends=False, enough=True)
    assert pieces == [b"one"] and left and failed is None


def test_a_whole_answer_is_neither() -> None:
    assert talked(HEAD + ONE + b"0\r\n\r\n", ends=True) == ([b"one"], False, None)
