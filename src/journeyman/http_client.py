"""HTTP to the engine, to endpoints and to judges: one way to make a client, and one policy for asking again.

What is asked again must do no harm the second time. An answer that is made twice changes nothing on a server, so what
failed before it was complete may be sent again. A server that has the request and only takes too long (a read timeout)
is still at work on it: asking again would add to its load and be paid for twice.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx

_T = TypeVar("_T")
_CONNECT_S = 30.0
_LOOK_EVERY_S = 0.25
_MOST_SAID = 1 << 16
"""Bytes of an error's text that are read."""
PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses that may pass: too many requests, a server that restarts."""
DROPPED = (
    httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ReadError, httpx.WriteError,
    httpx.WriteTimeout, httpx.CloseError, httpx.RemoteProtocolError,
)  # fmt: skip
"""Failures of the connection. A read timeout is none of them: see above."""


class Refused(httpx.HTTPError):
    """A status other than 200, with what the server says of it.

    Attributes:
        retry_after_s: how long the server asks to wait; None where it does not say.
    """

    def __init__(self, response: httpx.Response, text: str) -> None:
        self.status = response.status_code
        self.retry_after_s = _retry_after_s(response.headers.get("retry-after", ""))
        asks = "" if self.retry_after_s is None else f" (it asks to wait {self.retry_after_s:.0f} s)"
        super().__init__(f"{self.status}{asks} {text}")


class BrokenAnswer(httpx.HTTPError):
    """An answer that began and has no end, or is not what was asked for."""


@dataclass(frozen=True)
class Retry:
    """When to ask again, and after how long.

    Attributes:
        tries: in all, the first one included.
        first_wait_s: before the second try; doubled before each further one. Between half of it and all of it, by
            chance, is waited, so that many clients do not come back at the same moment.
        most_wait_s: the longest wait. A server that asks for a longer one is not asked again.
        statuses: those that are worth another try.
        errors: failures that are worth another try.
        chance: a number from 0 to 1.
    """

    tries: int = 5
    first_wait_s: float = 0.5
    most_wait_s: float = 60.0
    statuses: frozenset[int] = PASSING
    errors: tuple[type[httpx.HTTPError], ...] = (*DROPPED, BrokenAnswer)
    chance: Callable[[], float] = random.random

    def wait_s(self, tried: int, error: httpx.HTTPError) -> float | None:
        """Seconds to wait after `tried` tries, the last of which failed with `error`; None: do not ask again."""
        asked_to_wait: float | None = None
        if isinstance(error, Refused):
            worth, asked_to_wait = error.status in self.statuses, error.retry_after_s
        else:
            worth = isinstance(error, self.errors)
        if not worth or tried >= self.tries:
            return None
        if asked_to_wait is not None:
            return asked_to_wait * (1 + self.chance() / 10) if asked_to_wait <= self.most_wait_s else None
        doubled: float = min(self.most_wait_s, self.first_wait_s * 2 ** (tried - 1))
        return doubled * (1 + self.chance()) / 2


PATIENT = Retry()
"""An endpoint that an evaluation asks: about 10 s in all, or as long as it asks to wait."""
ENGINE_DROPS = Retry(tries=4, first_wait_s=0.1, statuses=frozenset(), errors=DROPPED)
"""The engine on loopback. Now and then its server drops a connection that it has just taken, before it has read a
request (once in some thousands, its process unharmed)."""


def with_retries(
    attempt: Callable[[], _T],
    retry: Retry,
    *,
    look: Callable[[], None] = lambda: None,
    again: Callable[[], bool] = lambda: True,
) -> _T:
    """What `attempt` returns, at once or after other tries.

    Args:
        look: called several times a second while this waits; it raises to give up.
        again: whether another try makes sense at all, asked after each wait.

    Raises:
        httpx.HTTPError: as the last try did.
    """
    tried = 0
    while True:
        try:
            return attempt()
        except httpx.HTTPError as error:
            tried += 1
            wait = retry.wait_s(tried, error)
            if wait is None:
                raise
            _wait(wait, look)
            if not again():
                raise


async def with_retries_async(
    attempt: Callable[[], Awaitable[_T]], retry: Retry, *, again: Callable[[], bool] = lambda: True
) -> _T:
    """As with_retries does; cancelling the task ends a try as well as a wait."""
    tried = 0
    while True:
        try:
            return await attempt()
        except httpx.HTTPError as error:
            tried += 1
            wait = retry.wait_s(tried, error)
            if wait is None:
                raise
            await asyncio.sleep(wait)
            if not again():
                raise


def client(headers: Mapping[str, str], timeout_s: float) -> httpx.Client:
    """A client for services elsewhere; proxies of the environment are used. The caller closes it."""
    return httpx.Client(headers=dict(headers), timeout=_timeout(timeout_s))


_ONE_SHOT = httpx.Limits(max_keepalive_connections=0)
"""A connection a request: the engine's server closes idle ones, and a request may meet one that is just closing."""


def engine_client(address: str, headers: Mapping[str, str], timeout_s: float) -> httpx.Client:
    """A client for the engine on loopback: no proxies. The caller closes it."""
    made = dict(headers)
    return httpx.Client(base_url=address, headers=made, timeout=_timeout(timeout_s), trust_env=False, limits=_ONE_SHOT)


def async_engine_client() -> httpx.AsyncClient:
    """A client for the engine on loopback that waits as long as its own client does. The caller closes it."""
    return httpx.AsyncClient(timeout=None, trust_env=False, limits=_ONE_SHOT)


def posted(
    http: httpx.Client,
    url: str,
    body: Mapping[str, Any],
    read: Callable[[httpx.Response, float], _T],
    retry: Retry,
    look: Callable[[], None] = lambda: None,
) -> _T:
    """Posts JSON and returns what `read` makes of the response, which is open and has status 200.

    Args:
        read: gets the response and when its try began (perf_counter); called anew in
            each try, it raises BrokenAnswer where the answer is not complete.
        look: see with_retries.

    Raises:
        httpx.HTTPError: Refused, BrokenAnswer or a failure of the connection, after all tries.
    """

    def attempt() -> _T:
        start = time.perf_counter()
        with http.stream("POST", url, json=body) as response:
            if response.status_code != 200:
                raise Refused(response, next(response.iter_bytes(_MOST_SAID), b"").decode(errors="replace"))
            return read(response, start)

    return with_retries(attempt, retry, look=look)


def _timeout(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(seconds, connect=min(seconds, _CONNECT_S))


def _wait(seconds: float, look: Callable[[], None]) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        look()
        time.sleep(min(left, _LOOK_EVERY_S))
    look()


def _retry_after_s(value: str) -> float | None:
    """The header Retry-After, in seconds or as a date (RFC 9110, section 10.2.3); None where it is neither."""
    value = value.strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
