"""Whose turn it is: twice as many requests as the engine has slots, and a queue of limited length in front of them.

The engine computes the tokens of several slots in one batch only if they have the same adapter. So a request for a role
that is being answered may overtake those for other roles, a limited number of times.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from journeyman.serving.errors import RequestError

_FOR_EACH_SLOT = 2
"""Requests that the engine has for each slot: one is answered and one waits, so that no slot is empty while there is
work. Answers of equal length end in several slots at once."""
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


@dataclass(eq=False)
class Places:
    """Places that are reserved for the answers to one request.

    Attributes:
        left: those of answers that neither wait for their turn nor have had it.
    """

    left: int


@dataclass(eq=False)
class _Waiting:
    """A request in the queue.

    Attributes:
        admitted: done once it has its turn.
        overtaken: how many that came later had their turn before it.
    """

    role: str
    admitted: asyncio.Future[None]
    overtaken: int = 0


class Turns:
    """Admits requests in order of arrival, but for those that may overtake.

    Attributes:
        most: requests that are answered or may wait; further ones are refused.
        arriving, waiting, active: how many are being read and checked, wait for their turn, and have it.
        reserved: places of further answers to these requests, which do not wait yet.
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
        self.arriving = 0
        self._queue: list[_Waiting] = []
        self._places = set[Places]()
        self._roles = Counter[str]()
        """How many requests of each role have their turn."""
        self._slots, self._wait_s = slots, wait_s
        self._mean_s = 1.0

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def active(self) -> int:
        return self._roles.total()

    @property
    def reserved(self) -> int:
        return sum(places.left for places in self._places)

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

    @contextmanager
    def places(self, copies: int) -> Iterator[Places]:
        """Reserves a place for each answer to a request, or none, so that an answer that has begun is not refused the
        further ones. They last until the answers take them with `turn`, or the context ends.

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
        places = Places(copies)
        self._places.add(places)
        try:
            yield places
        finally:
            self._places.remove(places)

    def _check_room(self, further: int) -> None:
        waiting = self.waiting + self.reserved
        if self.active + waiting + further > self.most:
            raise self._refusal(
                429, f"{self.active} requests are answered, {waiting} wait and {self.arriving} are being read; at most "
                f"{self.most} have room",
            )  # fmt: skip

    @asynccontextmanager
    async def turn(self, role: str, places: Places | None = None) -> AsyncIterator[Turn]:
        """Waits for a turn, which lasts until it is released or the context ends.

        Args:
            role: of the request; each has its own adapter.
            places: those of the request, of which one is taken; None: there has to be another one.

        Raises:
            RequestError: 429 if too many are waiting, 503 if it took too long.
        """
        if places is None:
            self._check_room(1)
        else:
            assert places.left > 0, "one place for each answer"
            places.left -= 1
        await self._admitted(role)
        turn = Turn(lambda seconds: self._ended(role, seconds))
        try:
            yield turn
        finally:
            turn.release()

    async def _admitted(self, role: str) -> None:
        one = _Waiting(role, asyncio.get_running_loop().create_future())
        self._queue.append(one)
        self._admit()
        try:
            async with asyncio.timeout(self._wait_s):
                await one.admitted
        except BaseException as error:
            if one in self._queue:
                self._queue.remove(one)
            if not one.admitted.cancelled():  # it had its turn in the same moment
                self._leave(role)
            if isinstance(error, TimeoutError):
                raise self._refusal(503, f"the request waited {self._wait_s:g} s for its turn in vain") from error
            raise

    def _admit(self) -> None:
        self._queue = [one for one in self._queue if not one.admitted.cancelled()]
        while self._queue and self.active < self.at_a_time:
            one = self._next()
            for other in self._queue[: self._queue.index(one)]:
                other.overtaken += 1
            self._queue.remove(one)
            self._roles[one.role] += 1
            one.admitted.set_result(None)

    def _next(self) -> _Waiting:
        """The oldest request of the role that has the most turns, unless the oldest of all has been overtaken by as
        many as have a turn at a time."""
        oldest = self._queue[0]
        if oldest.overtaken >= self.at_a_time:
            return oldest
        return max(self._queue, key=lambda one: self._roles[one.role])  # the first of several

    def _ended(self, role: str, seconds: float) -> None:
        self._mean_s += (seconds - self._mean_s) / 8
        self._leave(role)

    def _leave(self, role: str) -> None:
        self._roles[role] -= 1
        self._admit()

    def _refusal(self, status: int, message: str) -> RequestError:
        """The error, with the time until the queue will probably have ended."""
        wait = math.ceil(self._mean_s * (self.waiting + 1) / self._slots)
        return RequestError(status, message, headers={"retry-after": str(min(max(wait, 1), _LONGEST_RETRY_S))})
