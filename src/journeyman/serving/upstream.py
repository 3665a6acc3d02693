"""HTTP from the port to the engine that answers: one request, and its answer whole or as it arrives.

aiohttp parses in C. On two cores, the engine computes on both, and each millisecond of the port is one that the engine
waits: reading a streamed answer of 64 tokens takes 6 ms of processor time, with httpx 14 (benchmarks/log.md).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

_CONNECT_S = 30.0


class Lost(Exception):
    """The connection to the engine failed, or ended before the answer was complete."""


class Late(Exception):
    """The answer is not complete in time."""


class UpstreamAnswer:
    """The engine's response, whose headers have arrived."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status

    async def body(self) -> bytes:
        """The whole body.

        Raises:
            Lost, Late: it did not arrive.
        """
        return b"".join([piece async for piece in self.pieces()])

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it arrives.

        Raises:
            Lost, Late: the rest did not arrive.
        """
        try:
            async for piece in self._response.content.iter_any():
                yield piece
        except TimeoutError as error:
            self.close()
            raise Late from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise Lost(str(error)) from error

    def close(self) -> None:
        """Closes the connection; the engine stops working on an answer that is not complete."""
        self._response.close()


class Upstream:
    """Use `upstream`, which closes it. It has no redirects, cookies and proxies; each request has its own connection:
    the engine's server closes idle ones, and a request could hit one that is closing."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def post(
        self,
        url: str,
        headers: Mapping[str, str],
        body: Mapping[str, Any],
        time_s: float | None = None,
        *,
        again: Callable[[], bool] = lambda: False,
    ) -> UpstreamAnswer:
        """Sends JSON.

        Args:
            time_s: from now to the last byte of the answer; None: the caller decides.
            again: whether to send it a second time after the connection was closed without an answer.

        Raises:
            Lost, Late: the headers of the answer did not arrive.
        """
        data = json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **headers}
        timeout = aiohttp.ClientTimeout(total=time_s, sock_connect=_CONNECT_S)
        tries = 2
        while True:
            tries -= 1
            try:
                response = await self._session.post(
                    url, data=data, headers=sent, timeout=timeout, allow_redirects=False
                )
                return UpstreamAnswer(response)
            except aiohttp.ServerDisconnectedError as error:
                if not (tries and again()):
                    raise Lost(str(error)) from error
            except aiohttp.ServerTimeoutError as error:  # also a ClientError; raised while connecting
                raise Lost(str(error)) from error
            except TimeoutError as error:
                raise Late from error
            except (aiohttp.ClientError, OSError) as error:
                raise Lost(str(error)) from error


@asynccontextmanager
async def upstream() -> AsyncIterator[Upstream]:
    """A client of the engine, open in this context."""
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    plain = {"Accept-Encoding": "identity"}
    async with aiohttp.ClientSession(
        connector=connector, headers=plain, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
    ) as session:
        yield Upstream(session)
