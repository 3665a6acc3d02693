"""HTTP to the engine, to endpoints and to judges: one way to create a client, and one retry policy.

A retry must do no harm. Generating an answer twice changes nothing on a server, so a request that failed before its
answer was complete may be sent again. But after a read timeout, the server is still working on the request: a retry
would add to its load and be paid for twice.
"""

from __future__ import annotations

import random
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx

_T = TypeVar("_T")
_CONNECT_S = 30.0
_LOOK_EVERY_S = 0.25
_MOST_SAID = 1 << 16
"""Bytes that are read of an error's text."""
PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses of temporary failures: too many requests, a server that restarts."""
DROPPED = (
    httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ReadError, httpx.WriteError,
    httpx.WriteTimeout, httpx.CloseError, httpx.RemoteProtocolError,
)  # fmt: skip
"""Failures of the connection. A read timeout is not one of them: see above."""


class Refused(httpx.HTTPError):
    """A status other than 200, with the server's message.

    Attributes:
        retry_after_s: how long the server asks to wait; None if it does not say.
    """

    def __init__(self, response: httpx.Response, text: str) -> None:
        self.status = response.status_code
        self.retry_after_s = _retry_after_s(response.headers.get("retry-after", ""))
        asks = "" if self.retry_after_s is None else f" (it asks to wait {self.retry_after_s:.0f} s)"
        super().__init__(f"{self.status}{asks} {text}")


class BrokenAnswer(httpx.HTTPError):
    """An answer that is incomplete or not in the requested form."""


@dataclass(frozen=True)
class Retry:
    """When to retry, and after how long.

    Attributes:
        tries: total number of tries, including the first.
        first_wait_s: wait before the second try, doubled before each further one. The actual wait is a random time
            between half of it and all of it, so that many clients do not return at the same moment.
        most_wait_s: the longest wait. If a server asks for a longer one, the request is not retried.
        statuses: statuses that are retried.
        errors: errors that are retried.
        chance: returns a random number from 0 to 1.
    """

    tries: int = 5
    first_wait_s: float = 0.5
    most_wait_s: float = 60.0
    statuses: frozenset[int] = PASSING
    errors: tuple[type[httpx.HTTPError], ...] = (*DROPPED, BrokenAnswer)
    chance: Callable[[], float] = random.random

    def wait_s(self, tried: int, error: httpx.HTTPError) -> float | None:
        """Seconds to wait after `tried` tries, the last of which failed with `error`; None: do not retry."""
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
"""For an evaluation's endpoints: about 10 s in all, or as long as the endpoint asks to wait."""
ENGINE_DROPS = Retry(tries=4, first_wait_s=0.1, statuses=frozenset(), errors=DROPPED)
"""For the engine on loopback. Its server occasionally (once in a few thousand requests) drops a connection that it has
just accepted, before reading a request; its process keeps running."""


def with_retries(
    attempt: Callable[[], _T],
    retry: Retry,
    *,
    look: Callable[[], None] = lambda: None,
    again: Callable[[], bool] = lambda: True,
) -> _T:
    """Calls `attempt` until it succeeds, and returns its result.

    Args:
        look: called several times a second during waits; may raise to give up.
        again: called after each wait; says whether another try makes sense.

    Raises:
        httpx.HTTPError: the error of the last try.
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


def client(headers: Mapping[str, str], timeout_s: float) -> httpx.Client:
    """A client for services, which uses the environment's proxies, but none for this machine. The caller closes it."""
    return httpx.Client(headers=dict(headers), timeout=_timeout(timeout_s), mounts=_DIRECT)


def async_client(headers: Mapping[str, str], timeout_s: float) -> httpx.AsyncClient:
    """The same for coroutines, whose time can be limited as a whole: httpx's timeouts are for single reads."""
    return httpx.AsyncClient(headers=dict(headers), timeout=_timeout(timeout_s), mounts=dict.fromkeys(_DIRECT))


_DIRECT: dict[str, httpx.BaseTransport | None] = {f"all://{host}": None for host in ("localhost", "127.0.0.1", "[::1]")}
_ONE_SHOT = httpx.Limits(max_keepalive_connections=0)
"""One connection per request: the engine's server closes idle ones, and a request could hit one that is closing."""


def engine_client(address: str, headers: Mapping[str, str], timeout_s: float) -> httpx.Client:
    """A client for an engine, as serving.upstream asks it: without proxies, with the system's certificates. The
    caller closes it."""
    return httpx.Client(
        base_url=address, headers=dict(headers), timeout=_timeout(timeout_s), trust_env=False, limits=_ONE_SHOT,
        verify=ssl.create_default_context(),
    )  # fmt: skip


def posted(
    http: httpx.Client,
    url: str,
    body: Mapping[str, Any],
    read: Callable[[httpx.Response, float], _T],
    retry: Retry,
    look: Callable[[], None] = lambda: None,
) -> _T:
    """Posts JSON and returns what `read` makes of the open response with status 200.

    Args:
        read: called in each try with the response and the try's start time (perf_counter); raises BrokenAnswer if the
            answer is not complete.
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
    """Seconds from the header Retry-After, a number or a date (RFC 9110, section 10.2.3); None if it is neither."""
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
