"""Tells open pages which data have changed: server-sent events with ids of runs and names of resources, no data.

A page asks for the data itself, so an event costs little, several become one while a page does not read, and after a
reconnect nothing is missing: the first event makes the page ask for everything again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Hashable, Mapping
from contextlib import suppress

LIST = "runs"
"""The id under which a change of the list of runs is told."""
_BEAT_S = 15.0
LOOK_S, _REST = 1.0, 10
"""The least pause between two looks, and how many times as long as the last look it is."""

_log = logging.getLogger(__name__)

Signatures = Mapping[tuple[str, str], Hashable]
"""(id of a run, resource) → something that is equal as long as its data are the same."""


def message(event: str, data: object) -> bytes:
    """One event in the format of server-sent events."""
    return f"event: {event}\ndata: {json.dumps(data)}\n\n".encode()


class Hub:
    """Looks for changes while somebody listens.

    Args:
        signatures: called in a thread.
    """

    def __init__(self, signatures: Callable[[], Signatures]) -> None:
        self._signatures = signatures
        self._known: Signatures = {}
        self._pages: set[_Page] = set()
        self._looking = asyncio.Lock()
        self._closed = False

    async def watch(self) -> None:
        """Looks once a second until it is cancelled; less often if a look takes long."""
        took = 0.0
        while True:
            await asyncio.sleep(max(LOOK_S, _REST * took))
            if self._pages:
                began = time.monotonic()
                await self._look()
                took = time.monotonic() - began

    async def _look(self) -> None:
        async with self._looking:
            try:
                now = await asyncio.to_thread(self._signatures)
            except Exception:  # without the next look, open pages would never be told of a change again
                _log.exception("the run folders could not be looked at")
                return
            changed = {key for key in {*self._known, *now} if self._known.get(key) != now.get(key)}
            self._known = now
            for page in self._pages:
                page.tell(changed)

    def close(self) -> None:
        """Ends all streams."""
        self._closed = True
        for page in self._pages:
            page.ready.set()

    async def stream(self) -> AsyncIterator[bytes]:
        """The events of one page: `hello`, on which it asks for all data, then `changed`."""
        await self._look()  # before the page asks, so that no change after that is missed
        page = _Page()
        self._pages.add(page)
        try:
            yield message("hello", {})
            while not self._closed:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_BEAT_S):
                        await page.ready.wait()
                if self._closed:
                    return
                changed = page.taken()
                yield message("changed", changed) if changed else b": still here\n\n"
        finally:
            self._pages.discard(page)


class _Page:
    """What a page has not been told yet."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self._changed: dict[str, set[str]] = {}

    def tell(self, changed: set[tuple[str, str]]) -> None:
        for run, resource in changed:
            self._changed.setdefault(run, set()).add(resource)
        if changed:
            self.ready.set()

    def taken(self) -> dict[str, list[str]]:
        """Id of a run → the resources of it that have changed."""
        self.ready.clear()
        taken, self._changed = self._changed, {}
        return {run: sorted(resources) for run, resources in taken.items()}
