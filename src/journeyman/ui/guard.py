"""Who may ask: only pages of this server, by its own names, with the token that the terminal showed.

The token protects what can be read as well as what changes something, because rows are private. It is sent in a header,
which no page of another origin can add to a request without being asked first, and which a URL in a history or a log
does not have.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from journeyman.serving.errors import RequestError
from journeyman.serving.origin import asked_host, refuse_other_pages, sent_key
from journeyman.ui.requests import answer

API = "/api/"
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware in front of the page's application.

    Args:
        hosts: the only values of the Host header that are answered, with the port.
        token: must be sent with every request for data, as `Authorization: Bearer TOKEN`.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], token: str) -> None:
        self._app, self._hosts, self._token = app, {host.lower() for host in hosts}, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            if scope["type"] != "http":
                raise RequestError(403, "only HTTP is supported")
            self._check(scope["method"], scope["path"], Headers(scope=scope))
        except RequestError as refused:
            error = {"code": "refused", "what": refused.message, "remedy": "", "exit_code": 1, "details": []}
            response = answer({"error": error}, refused.status)
            await response(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)

    def _check(self, method: str, path: str, headers: Headers) -> None:
        host = asked_host(headers, None, self._hosts, "use the address that the terminal shows")
        if method not in ("GET", "HEAD", "POST"):
            raise RequestError(405, "only GET and POST are supported")
        if not path.startswith(API):
            return
        refuse_other_pages(host, headers)
        if not hmac.compare_digest(sent_key(headers).encode(), self._token):
            raise RequestError(401, "the token is missing or wrong: open the address that the terminal shows")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if method == "POST" and kind != "application/json":
            raise RequestError(415, "the content type must be application/json")
