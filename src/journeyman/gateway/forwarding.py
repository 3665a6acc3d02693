"""Requests to the upstream: one try, no redirects, no cookies, no decompression; connections are kept alive."""

from __future__ import annotations

import io
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from journeyman.errors import UsageError
from journeyman.foreign import plain

_CONNECT_S, _KEEP_ALIVE_S = 30.0, 30.0
_AUTOMATIC = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
_IN_PIECES = 1 << 20
_LONGEST_FIELD = 1 << 16


class Unanswered(Exception):
    """The upstream gave no answer, or not the rest of it. `code` says why, in rows."""

    def __init__(self, code: str, what: str) -> None:
        self.code, self.what = code, what
        super().__init__(what)


@dataclass(frozen=True)
class Target:
    """An upstream: the base URL without a trailing slash or /v1, and its name in rows."""

    base: str
    name: str

    def url(self, path: str) -> URL:
        """The URL for a request's path and query, both as they were sent."""
        return URL(self.base + path, encoded=True)


def target_of(
    upstream: str,
    setting: str = "record.upstream (--upstream)",
    remedy: str = "For example: journeyman record --upstream https://api.openai.com",
) -> Target:
    """Reads the base URL of an upstream.

    Args:
        setting: that names it.
        remedy: how to set it right.

    Raises:
        UsageError: it is not a base URL.
    """
    try:
        parts = urlsplit(upstream)
        wrong = parts.scheme not in ("http", "https") or not parts.hostname or (parts.port or 1) < 1
    except ValueError:
        wrong = True
    if wrong or "@" in parts.netloc or parts.query or parts.fragment or not upstream.isascii():
        raise UsageError(f"{setting} {plain(upstream, 80)!r} is not a base URL", remedy)
    base = upstream.rstrip("/")
    return Target(base.removesuffix("/v1"), parts.netloc.lower())


class Forwarder:
    """Use `forwarder`, which closes it."""

    def __init__(self, session: aiohttp.ClientSession, silent_s: float) -> None:
        self._session = session
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=silent_s)

    async def send(
        self, target: Target, method: str, path: str, headers: CIMultiDict[str], body: bytes
    ) -> aiohttp.ClientResponse:
        """Sends a request; returns the answer, whose headers have arrived.

        Raises:
            Unanswered: there is none.
        """
        data = body if len(body) <= _IN_PIECES else io.BytesIO(body)
        try:
            return await self._session.request(
                method, target.url(path), headers=headers, data=data or None, allow_redirects=False,
                timeout=self._timeout,
            )  # fmt: skip
        except (aiohttp.ClientError, OSError) as error:
            raise _unanswered(error) from error

    @staticmethod
    async def pieces(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The body as it arrives, still compressed if it is.

        Raises:
            Unanswered: the rest did not come.
        """
        try:
            async for piece in response.content.iter_any():
                yield piece
        except (aiohttp.ClientError, OSError) as error:
            raise _unanswered(error) from error


def _unanswered(error: Exception) -> Unanswered:
    if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ConnectionTimeoutError):
        return Unanswered("upstream_silent", "the upstream sent nothing for too long")
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return Unanswered("upstream_certificate", f"the upstream's certificate is not valid: {error}")
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        told = (
            os.strerror(error.errno) if isinstance(error, OSError) and error.errno and error.errno > 0 else str(error)
        )
        return Unanswered("upstream_unreachable", f"the upstream cannot be reached: {told}")
    if isinstance(error, aiohttp.ClientResponseError):
        return Unanswered("upstream_invalid", f"the upstream's answer is not HTTP: {error.message}")
    return Unanswered("upstream_closed", "the upstream closed the connection before the answer was complete")


@asynccontextmanager
async def forwarder(silent_s: float) -> AsyncIterator[Forwarder]:
    """A client of upstreams, open in this context. It reads no proxy settings, certificates are verified."""
    connector = aiohttp.TCPConnector(
        limit=0, ssl=ssl.create_default_context(), keepalive_timeout=_KEEP_ALIVE_S, ttl_dns_cache=60
    )
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=False,
        skip_auto_headers=_AUTOMATIC, max_line_size=_LONGEST_FIELD, max_field_size=_LONGEST_FIELD,
    ) as session:  # fmt: skip
        yield Forwarder(session, silent_s)


def names(headers: Mapping[str, str], wanted: frozenset[str]) -> dict[str, str]:
    """These headers, by their names in lower case; of several with one name, the first."""
    found: dict[str, str] = {}
    for name, value in headers.items():
        if (lower := name.lower()) in wanted:
            found.setdefault(lower, value)
    return found
