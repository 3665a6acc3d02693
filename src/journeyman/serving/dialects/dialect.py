"""What a dialect is: how a request is read into the form that all share, and how an answer is written.

The shared form of a request is `Asked`: validated turns, tools and options as the engine's chat completions take them.
The shared form of an answer is the engine's chat completion, whole or in chunks, with the role as its model and the
redacted values restored. A dialect sees nothing else, so the same question gets the same text in each of them.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from starlette.responses import JSONResponse

from journeyman.serving.requests import Asked


class EventWriter(Protocol):
    """Writes one streamed answer; each piece of bytes is a whole server-sent event or several."""

    def chunk(self, event: dict[str, Any]) -> Iterator[bytes]:
        """The events for a chunk of the engine's answer."""

    def end(self) -> Iterator[bytes]:
        """The events after the last chunk of a complete answer."""

    def failed(self, message: str) -> Iterator[bytes]:
        """The events that end an answer that broke off: an error, never what ends a complete answer."""


class Dialect(Protocol):
    """One API.

    Attributes:
        name: in metrics and logs.
        path: where it is served.
    """

    name: str
    path: str

    def read(self, body: Any, roles: Sequence[str], context: int) -> Asked:
        """Validates a request's JSON.

        Args:
            context: the engine's limit for the tokens of prompt and answer.

        Raises:
            RequestError: 404 for a role that is not served, else 400; it names the field.
        """

    def whole(self, answer: dict[str, Any], asked: Asked) -> dict[str, Any]:
        """The body of the response for a complete answer."""

    def writer(self, asked: Asked) -> EventWriter:
        """Writes a streamed answer to this request."""


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def new_id(prefix: str) -> str:
    """A new identifier, such as msg_5f0c…"""
    return prefix + secrets.token_hex(12)


def data_event(document: dict[str, Any], name: str = "") -> bytes:
    """A server-sent event with JSON; `name` is its type, where the dialect's clients expect one."""
    begin = f"event: {name}\ndata: ".encode() if name else b"data: "
    return begin + json_bytes(document) + b"\n\n"


def json_bytes(document: Any) -> bytes:
    """JSON with non-ASCII text as it is, unless it contains lone surrogates, which a model may write as an escape and
    which cannot be encoded as UTF-8: then it is escaped."""
    try:
        return _ENCODER.encode(document).encode()
    except UnicodeEncodeError:
        return json.dumps(document, separators=(",", ":")).encode()


class JsonAnswer(JSONResponse):
    """A response with an answer of the engine."""

    def render(self, content: Any) -> bytes:
        return json_bytes(content)
