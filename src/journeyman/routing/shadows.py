"""Asks the student, for comparison, what the teacher has answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from journeyman.config import RouteConfig
from journeyman.gateway.forwarding import Forwarder, Unanswered
from journeyman.routing.requests import StudentRequest
from journeyman.routing.student import MOST_BYTES, NAME, Student
from journeyman.routing.undelivered import Given, Outcome, Undelivered

HELD_BYTES = 64 << 20
"""What requests and answers that wait may take."""


class Shadows:
    """Asks the student few requests at a time, when the client has its answer.

    Args:
        told: hears once that requests are left out.

    Attributes:
        left_out: requests that were not compared: too many waited, or the answer was too large.
    """

    def __init__(
        self, forward: Forwarder, student: Student, undelivered: Undelivered, config: RouteConfig,
        told: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._forward, self._student, self._undelivered, self._told = forward, student, undelivered, told
        self._whole_s, self._free = config.whole_s, asyncio.Semaphore(config.shadow_parallel)
        self._tasks: set[asyncio.Task[None]] = set()
        self._most, self._held = config.shadow_parallel + config.shadow_waiting, 0
        self.left_out = 0

    def ask(self, request: StudentRequest, route: Mapping[str, Any], reference: Given) -> None:
        """Asks it later; or not, if too much waits already."""
        # The body counts twice: it is held as bytes and decoded.
        size = len(request.asked.body) + len(request.data) + reference.size
        if len(self._tasks) >= self._most or self._held + size > HELD_BYTES:
            self.leave_out()
            return
        self._held += size
        task = asyncio.get_running_loop().create_task(self._asked(request, route, reference))
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._held -= size
            self._tasks.discard(task)

        task.add_done_callback(ended)

    def leave_out(self) -> None:
        """Counts a request that is not compared."""
        if not self.left_out:
            self._told(
                "warning: requests are not compared in shadow, as the student does not keep up (route.shadow_parallel, "
                "route.shadow_waiting) or an answer is too large; /journeyman/health counts them"
            )
        self.left_out += 1

    @property
    def counts(self) -> dict[str, int]:
        return {"waiting": len(self._tasks), "left_out": self.left_out}

    async def close(self) -> None:
        """Ends what is in progress; no client waits for it."""
        tasks: Sequence[asyncio.Task[None]] = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _asked(self, request: StudentRequest, route: Mapping[str, Any], reference: Given) -> None:
        async with self._free:
            began = time.monotonic()
            given = _Collected()
            outcome: Outcome = "complete"
            why = ""
            try:
                async with asyncio.timeout(self._whole_s):
                    await self._collect(request, given)
            except TimeoutError:
                outcome, why = "cut", "slow"
            except Unanswered as missing:
                outcome, why = ("cut" if given.pieces else "failed"), missing.code.replace("upstream", "student")
            took_ms = int((time.monotonic() - began) * 1000)
        made = Given(given.status, given.kind, given.coding, given.pieces)
        told = {**route, "arm": NAME}
        self._undelivered.record(request.asked, told, made, outcome, why, reference, took_ms)

    async def _collect(self, request: StudentRequest, given: _Collected) -> None:
        size = 0
        got = await self._student.send(request)
        try:
            given.status, given.kind = got.status, got.headers.get("Content-Type", "")
            given.coding = got.headers.get("Content-Encoding", "")
            async for piece in self._forward.pieces(got):
                given.pieces.append(piece)
                size += len(piece)
                if size > MOST_BYTES:
                    raise Unanswered("too_large", "the answer is too large")
        except BaseException:
            got.close()
            raise
        got.release()


@dataclass
class _Collected:
    """What has come of an answer so far."""

    status: int | None = None
    kind: str = ""
    coding: str = ""
    pieces: list[bytes] = field(default_factory=list)
