"""The port: each request is numbered, passed on and journaled; the answer is journaled piece by piece and passed on."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from starlette.datastructures import Headers

from journeyman.config import RecordConfig
from journeyman.foreign import json_text
from journeyman.gateway import headers as head
from journeyman.gateway.feedback import feedback_fault
from journeyman.gateway.forwarding import Forwarder, Unanswered, names
from journeyman.gateway.journal import ExchangeJournal
from journeyman.gateway.ledger import Ledger
from journeyman.gateway.page import Page
from journeyman.gateway.passing import PassedOn, passed_on
from journeyman.gateway.plans import Asked, Router
from journeyman.gateway.roles import FEEDBACK
from journeyman.serving.errors import RequestError, error_body
from journeyman.serving.keyring import Keys
from journeyman.serving.origin import asked_host, names_of, refuse_other_pages

OWN = "/journeyman/"
_HOST_REMEDY = "record.allow_hosts adds one"
_MOST_FEEDBACK = 256 << 10
_STATUS = {"upstream_silent": 504}


class _CutOff(ConnectionError):
    """Ends the connection to a client after what was sent, without the end of an answer."""


class Request(web.BaseRequest):
    """A request whose answer gets no headers that the upstream did not send."""

    async def _prepare_hook(self, resp: web.StreamResponse) -> None:
        if isinstance(resp, PassedOn):
            for name in ("Server", "Content-Type", "Date"):
                if name.lower() not in resp.names:
                    resp.headers.pop(name, None)


class Recorder:
    """Answers requests.

    Args:
        router: says who answers a request. The journal has the request before it is asked.
        hosts: names to answer to in addition to the loopback ones.
        keys: of the port; clients send one as Journeyman-Key, if they are required.
    """

    def __init__(
        self,
        ledger: Ledger,
        forward: Forwarder,
        router: Router,
        config: RecordConfig,
        page: Page,
        hosts: Collection[str] = (),
        keys: Keys | None = None,
    ) -> None:
        self._ledger, self._forward, self._router, self._config = ledger, forward, router, config
        self._page, self._hosts, self._keys = page, names_of(hosts), keys or Keys()
        self._written = head.written(config.roles)
        self.stopping = False
        self.open = 0

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.raw_path.startswith(OWN):
            return self._own(request)
        exchange = self._ledger.begin()
        self.open += 1
        outcome, why, keys = "failed", "recorder_error", self._keys_of(request)
        try:
            seen, refusal = self._noted(exchange, request, keys)
            if refusal is not None:
                raise refusal
            body = await self._body(request)
            exchange.add("body", body)
            if seen["path"] == FEEDBACK and request.method == "POST":
                response: web.StreamResponse = self._thanks(exchange, body)
            else:
                headers = head.for_upstream(request.raw_headers)
                asked = Asked(exchange.number, request.method, request.raw_path, headers, body, seen, keys)
                response = await passed_on(exchange, request, await self._router.plan(asked), self._forward)
            outcome, why = "complete", ""
        except RequestError as refused:
            outcome, why = "refused", str(refused.param or refused.status)
            response = _error(request, refused.status, refused.message, refused.param)
            response.force_close()
        except Unanswered as missing:
            outcome, why = "failed", missing.code
            if exchange.answered:
                raise _CutOff from missing
            response = _error(request, _STATUS.get(missing.code, 502), missing.what)
        except (asyncio.CancelledError, ConnectionError, HttpProcessingError, web.RequestPayloadError):
            outcome, why = ("cut", "recorder_stopped") if self.stopping else ("cancelled", "client_left")
            raise
        finally:
            self.open -= 1
            outcome = "cut" if outcome == "failed" and exchange.answered else outcome
            self._ledger.end(exchange, outcome, why, keys)
        return response

    @staticmethod
    def _keys_of(request: web.BaseRequest) -> tuple[str, ...]:
        return head.keys_in(request.headers, request.raw_path.partition("?")[2])

    def _noted(
        self, exchange: ExchangeJournal, request: web.BaseRequest, keys: tuple[str, ...]
    ) -> tuple[dict[str, Any], RequestError | None]:
        """Writes the beginning of the journal; returns that, and why the request is refused, if it is."""
        refused, key = None, ""
        try:
            key = self._admitted(request)
        except RequestError as error:
            refused = error
        seen = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "method": request.method,
            "path": request.raw_path.partition("?")[0],
            "headers": names(request.headers, self._written),
            "coding": request.headers.get("Content-Encoding", ""),
            "key": key,
            "key_hash": head.key_hash(request.headers),
            "keys": keys if self._ledger.in_memory else (),
        }
        exchange.note("head", seen)
        return seen, refused

    def _admitted(self, request: web.BaseRequest) -> str:
        """The name of the key that the client sent.

        Raises:
            RequestError: it may not use the port, or asks for what is not supported.
        """
        headers = Headers(raw=[(name.lower(), value) for name, value in request.raw_headers])
        self._refuse_others(request, headers)
        key = ""
        if self._keys.required:
            found = self._keys.match(request.headers.get(head.KEY_HEADER, ""))
            if found is None:
                raise RequestError(401, f"the port's key is missing or wrong: send {head.KEY_HEADER}: KEY", "key")
            key = found
        if not request.raw_path.startswith("/"):
            raise RequestError(400, "the request's target must be a path", "path")
        if "upgrade" in request.headers.get("Connection", "").lower():
            raise RequestError(501, "upgrades such as WebSocket are not passed on", "upgrade")
        if (request.content_length or 0) > self._most:
            raise self._too_large()
        return key

    def _refuse_others(self, request: web.BaseRequest, headers: Headers) -> None:
        transport = request.transport
        own = None if transport is None else transport.get_extra_info("sockname")
        refuse_other_pages(asked_host(headers, own, self._hosts, _HOST_REMEDY), headers)

    @property
    def _most(self) -> int:
        return self._config.max_body_mib << 20

    def _too_large(self) -> RequestError:
        return RequestError(
            413, f"the request is larger than record.max_body_mib ({self._config.max_body_mib})", "size"
        )

    async def _body(self, request: web.BaseRequest) -> bytes:
        """The whole body, as it was sent.

        Raises:
            RequestError: it is too large, or does not come.
        """
        if not request.body_exists:
            return b""
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        pieces, size = [], 0
        try:
            async with asyncio.timeout(self._config.body_s):
                async for piece in request.content.iter_any():
                    pieces.append(piece)
                    size += len(piece)
                    if size > self._most:
                        raise self._too_large()
        except TimeoutError as error:
            raise RequestError(408, "the request did not arrive within record.body_s", "body") from error
        return b"".join(pieces)

    @staticmethod
    def _thanks(exchange: ExchangeJournal, body: bytes) -> web.Response:
        """Accepts feedback, of which the row is what remains.

        Raises:
            RequestError: it does not say about what, or how it went.
        """
        if len(body) > _MOST_FEEDBACK:
            raise RequestError(413, f"feedback is at most {_MOST_FEEDBACK >> 10} KiB", "size")
        if fault := feedback_fault(body):
            raise RequestError(400, fault, "body")
        exchange.note("status", {"status": 200, "upstream": "journeyman"})
        exchange.answered = True
        return web.json_response({"status": "ok", "exchange": exchange.number})

    def _own(self, request: web.BaseRequest) -> web.Response:
        """The recorder's own pages, which are not passed on."""
        try:
            headers = Headers(raw=[(name.lower(), value) for name, value in request.raw_headers])
            self._refuse_others(request, headers)
        except RequestError as refused:
            return _error(request, refused.status, refused.message, refused.param)
        return self._page.answer(request.raw_path.partition("?")[0], self.open, self._router.shadow)


def _error(request: web.BaseRequest, status: int, message: str, param: str | None = None) -> web.Response:
    """An error of the recorder, in the form of the API that was asked; its `type` or `code` says journeyman's own."""
    body: Any = error_body(request.raw_path, status, message, param)
    headers = {"Journeyman-Error": "recorder"}
    return web.Response(
        status=status, text=json_text(body, indent=None), content_type="application/json", headers=headers
    )
