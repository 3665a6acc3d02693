"""Whose turn it is: twice as many requests as the engine has slots, and a queue of limited length in front of them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from journeyman.serving.errors import RequestError

_FOR_EACH_SLOT = 2
"""Requests that the engine has for each slot: one is answered and one waits, so that no slot is ever empty while there is
work. Answers of equal length end in several slots at once; with a single request waiting for all slots, 16 clients got
92 % of the tokens per second that the engine gives alone (benchmarks/log.md)."""
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

    Attributes:
        most: requests that are answered or may wait; further ones are refused.
        arriving, waiting, active: how many are being read and checked, wait for their turn, and have it.
    """

    def __init__(self, slots: int, most_waiting: int, wait_s: float) -> None:
        """See the class.

        Args:
            slots: requests that the engine answers concurrently.
            most_waiting: requests that may wait.
            wait_s: how long a request may wait.
        """
        self.at_a_time = _FOR_EACH_SLOT * slots
        self.most = self.at_a_time + most_waiting
        self.arriving = self.waiting = self.active = 0
        self._free = asyncio.Semaphore(self.at_a_time)
        self._slots, self._wait_s = slots, wait_s
        self._mean_s = 1.0

    @contextmanager
    def arrival(self) -> Iterator[None]:
        """Counts a request while it is read and checked, so that the memory for bodies has a limit.

        Raises:
            RequestError: 429 if it would find no place in the queue.
        """
        self._check_room(self.arriving + 1)
        self.arriving += 1
        try:
            yield
        finally:
            self.arriving -= 1

    def check_copies(self, copies: int) -> None:
        """Checks that one request may have this many turns.

        Raises:
            RequestError: 400 if there are never so many, 429 if there are not now.
        """
        if copies > self.most:
            queue = self.most - self.at_a_time
            raise RequestError(
                400, f"n is {copies}, and at most {self.most} answers have room: {self.at_a_time} at a time, and "
                f"{queue} that wait (serve.queue)", "n",
            )  # fmt: skip
        self._check_room(copies)

    def _check_room(self, further: int) -> None:
        if self.active + self.waiting + further > self.most:
            raise self._refusal(429, f"{self.active + self.waiting} requests are answered or wait, which is the most")

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Turn]:
        """Waits for a turn, which lasts until it is released or the context ends.

        Raises:
            RequestError: 429 if too many are waiting, 503 if it took too long.
        """
        self._check_room(1)
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
