"""Who answers a request. The recorder knows a plan only: a plan of its own sends every request to the upstream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp
from multidict import CIMultiDict

from journeyman.gateway.forwarding import Forwarder, Target


@dataclass(frozen=True)
class Asked:
    """A request.

    Attributes:
        number: of the exchange.
        path: with the query, as it was sent.
        headers: that are passed on.
        head: what the row says of it: path, headers, key and its hash.
        keys: the client's, which no row may have.
    """

    number: int
    method: str
    path: str
    headers: CIMultiDict[str]
    body: bytes
    head: Mapping[str, Any]
    keys: tuple[str, ...] = ()


@dataclass
class Answered:
    """An answer that has begun.

    Attributes:
        upstream: who gave it, as the row says.
        first: pieces that have been read already.
        complete: whether they are the whole answer.
    """

    upstream: str
    response: aiohttp.ClientResponse
    first: Sequence[bytes] = ()
    complete: bool = False

    async def pieces(self, forward: Forwarder) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises as Forwarder.pieces does."""
        for piece in self.first:
            yield piece
        if not self.complete:
            async for piece in forward.pieces(self.response):
                yield piece


class Plan(Protocol):
    """How one request is answered.

    Attributes:
        upstream: who is asked first.
        route: what the row says about the choice; empty: nothing.
        headers: that the client gets in addition to those of the answer.
    """

    @property
    def upstream(self) -> str: ...

    @property
    def route(self) -> Mapping[str, Any]: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    async def answer(self) -> Answered:
        """The answer, once its headers have arrived.

        Raises:
            Unanswered: there is none.
        """

    def passed(self, piece: bytes) -> None:
        """A piece of the answer was passed on."""

    def delivered(self, got: Answered) -> None:
        """The client has the whole answer."""


class Router(Protocol):
    """Makes the plan of each request."""

    async def plan(self, asked: Asked) -> Plan: ...

    @property
    def shadow(self) -> Mapping[str, int] | None:
        """What health and metrics say of requests that the student gets afterwards; None: there is no student."""


@dataclass
class UpstreamAlone:
    """The Plan without a student."""

    asked: Asked
    forward: Forwarder
    target: Target
    route: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def upstream(self) -> str:
        return self.target.name

    async def answer(self) -> Answered:
        asked = self.asked
        return Answered(
            self.target.name,
            await self.forward.send(self.target, asked.method, asked.path, asked.headers, asked.body),
        )

    def passed(self, piece: bytes) -> None:
        pass

    def delivered(self, got: Answered) -> None:
        pass


@dataclass
class ToUpstream:
    """The Router without a student."""

    forward: Forwarder
    target: Target

    async def plan(self, asked: Asked) -> Plan:
        return UpstreamAlone(asked, self.forward, self.target)

    @property
    def shadow(self) -> Mapping[str, int] | None:
        return None
