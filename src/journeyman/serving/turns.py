"""Whose turn it is: as many requests as the engine has slots, and a queue of limited length in front of them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from journeyman.serving.errors import RequestError

_ONE_AHEAD = 1
"""One request more than the engine has slots, so that the engine never waits for the next one."""
_LONGEST_RETRY_S = 60


class Turn:
    """A request's turn."""

    def __init__(self, ended: Callable[[float], None]) -> None:
        self._ended: Callable[[float], None] | None = ended
        self._begun = time.monotonic()

    def release(self) -> None:
        """Ends the turn; a second call does nothing."""
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(time.monotonic() - self._begun)


class Turns:
    """Admits requests in order of arrival.

    Args:
        slots: requests that the engine answers concurrently.
        most_waiting: requests that may wait; further ones are refused.
        wait_s: how long a request may wait.
    """

    def __init__(self, slots: int, most_waiting: int, wait_s: float) -> None:
        self._free = asyncio.Semaphore(slots + _ONE_AHEAD)
        self._slots, self._most, self._wait_s = slots, most_waiting, wait_s
        self.waiting = self.active = 0
        self._mean_s = 1.0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Turn]:
        """Waits for a turn, which lasts until it is released or the context ends.

        Raises:
            RequestError: 429 if too many are waiting, 503 if it took too long.
        """
        if self._free.locked() and self.waiting >= self._most:
            raise self._refusal(429, f"{self.waiting} requests are waiting already, which is the most")
        self.waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await self._free.acquire()
        except TimeoutError as error:
            raise self._refusal(503, f"the request waited {self._wait_s:g} s for its turn in vain") from error
        finally:
            self.waiting -= 1
        self.active += 1
        turn = Turn(self._ended)
        try:
            yield turn
        finally:
            turn.release()

    def _ended(self, seconds: float) -> None:
        self.active -= 1
        self._free.release()
        self._mean_s += (seconds - self._mean_s) / 8

    def _refusal(self, status: int, message: str) -> RequestError:
        """The error, with the time until the queue will probably have ended."""
        wait = math.ceil(self._mean_s * (self.waiting + 1) / self._slots)
        return RequestError(status, message, headers={"retry-after": str(min(max(wait, 1), _LONGEST_RETRY_S))})
