"""Access control: the host names that the server answers to, the web pages that may use it, and its key.

A browser lets any page send requests to loopback addresses. A page whose own name resolves to this machine (DNS
rebinding) is recognized by `Host`, cross-origin requests by `Origin` or `Sec-Fetch-Site`, and requests without a
preflight (plain forms) by their content type. All of them are refused, and no response has a CORS header.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from journeyman.foreign import plain
from journeyman.serving.errors import RequestError, error_response
from journeyman.serving.keyring import Keys
from journeyman.serving.observing import record_of

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_OPEN_PATHS = ("/health", "/ready")


class Door:
    """ASGI middleware in front of the application.

    Args:
        hosts: names to answer to in addition to the loopback ones and to the address that was connected to, with or
            without a port.
        keys: clients must send one of them, as `Authorization: Bearer KEY` or `x-api-key: KEY`, if they are required.
            `/health` and `/ready` never need one.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] = (), keys: Keys | None = None) -> None:
        self._app = app
        self._hosts = names_of(hosts)
        self._keys = keys or Keys()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            if scope["type"] != "http":
                raise RequestError(403, "only HTTP is supported")
            self._check(scope, Headers(scope=scope))
        except RequestError as refused:
            headers = {"WWW-Authenticate": "Bearer"} if refused.status == 401 else None
            response = error_response(
                scope.get("path", ""), refused.status, refused.message, refused.param, headers=headers
            )
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope, headers: Headers) -> None:
        host = asked_host(headers, scope.get("server"), self._hosts, "journeyman serve --allow-host adds one")
        refuse_other_pages(host, headers)
        if self._keys.required and scope["path"] not in _OPEN_PATHS:
            record_of(scope).key = self._key(headers)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and kind != "application/json":
            raise RequestError(415, "the content type must be application/json", "content-type")

    def _key(self, headers: Headers) -> str:
        """The name of the key that was sent."""
        name = self._keys.match(sent_key(headers))
        if name is None:
            raise RequestError(401, "the key is missing or wrong: send Authorization: Bearer KEY", "authorization")
        return name


def names_of(hosts: Collection[str]) -> set[str]:
    """Every name to answer to, in lower case: these and the loopback ones."""
    return {host.lower() for host in hosts} | set(LOOPBACK)


def asked_host(headers: Headers, connected_to: Sequence[Any] | None, hosts: Collection[str], remedy: str) -> str:
    """The request's Host header, in lower case.

    Args:
        connected_to: address and port that the client connected to.
        hosts: as `names_of` gives them.
        remedy: tells the client how the server learns another name.

    Raises:
        RequestError: it is no name of this server.
    """
    named = headers.getlist("host")
    host = named[0].lower() if len(named) == 1 else ""
    name = name_of(host)
    # An address, unlike a name, cannot be made to lead here by others.
    own = connected_to is not None and _is_address(name) and name == connected_to[0]
    if not own and host not in hosts and name not in hosts:
        raise RequestError(403, f"host {plain(host, 80)!r} is not a name of this server; {remedy}", "host")
    return host


def refuse_other_pages(host: str, headers: Headers) -> None:
    """Refuses what a browser sends for a page of another origin.

    Raises:
        RequestError: it comes from one.
    """
    origins = headers.getlist("origin")
    if any(origin.lower() not in (f"http://{host}", f"https://{host}") for origin in origins):
        raise RequestError(403, f"pages of {plain(origins[0], 80)!r} may not use this server", "origin")
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise RequestError(403, "pages of other sites may not use this server", "sec-fetch-site")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def sent_key(headers: Headers) -> str:
    """The key in a request, where OpenAI's or Anthropic's clients put it; "" if there is none."""
    scheme, _, sent = headers.get("authorization", "").partition(" ")
    return sent.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")


def name_of(host: str) -> str:
    """The name or address in a Host header, without port and brackets; "" if the header is invalid."""
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name, port = host, "0"
    if not (port.isascii() and port.isdigit()):
        return ""
    if not name.startswith("["):
        return name if ":" not in name else ""
    try:
        return ipaddress.ip_address(name[1:-1]).compressed if name.endswith("]") else ""
    except ValueError:
        return ""
