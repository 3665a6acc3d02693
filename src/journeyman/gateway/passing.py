"""Passes an answer on: each piece is in the journal before the client gets it."""

from __future__ import annotations

from aiohttp import web

from journeyman.gateway import headers as head
from journeyman.gateway.forwarding import Forwarder, names
from journeyman.gateway.journal import ExchangeJournal
from journeyman.gateway.plans import Plan

_WRITTEN = frozenset(("content-type", "content-encoding", "retry-after", "request-id", "x-request-id"))


class PassedOn(web.StreamResponse):
    """An answer of the upstream.

    Attributes:
        names: of its headers, in lower case.
    """

    names: frozenset[str] = frozenset()


async def passed_on(
    exchange: ExchangeJournal, request: web.BaseRequest, plan: Plan, forward: Forwarder
) -> web.StreamResponse:
    """Asks as the plan says, and passes the answer on.

    However it ends, the journal says what became of the plan's route; if it ends before the first byte of an answer,
    that includes how long the client had waited, in milliseconds.

    Raises:
        Unanswered: there is no answer, or not the rest of it.
    """
    began, begun = exchange.ms, False
    exchange.note("status", {"upstream": plan.upstream, **({"route": plan.route} if plan.route else {})})
    try:
        answered = await plan.answer()
        got = answered.response
        try:
            passed = head.for_client(got.raw_headers)
            exchange.note("status", {
                "status": got.status, "headers": names(got.headers, _WRITTEN),
                "coding": got.headers.get("Content-Encoding", ""), "upstream": answered.upstream,
                **({"route": plan.route} if plan.route else {}),
            })  # fmt: skip
            passed.extend(plan.headers)
            response = PassedOn(status=got.status, reason=got.reason, headers=passed)
            response.names = frozenset(name.lower() for name in passed)
            exchange.answered = True
            await response.prepare(request)
            async for piece in answered.pieces(forward):
                exchange.add("piece", piece)
                begun = True
                plan.passed(piece)
                await response.write(piece)
            await response.write_eof()
        except BaseException:
            got.close()  # the upstream stops working on an answer that nobody reads
            raise
    except BaseException:
        if plan.route:
            waited = {} if begun else {"waited_ms": exchange.ms - began}
            exchange.note("status", {"route": {**plan.route, **waited}})
        raise
    got.release()
    plan.delivered(answered)
    return response
