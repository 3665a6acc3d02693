"""What the student can be asked: a request's role, its conversation, and its body with the role as the model's name.

Large bodies are read in threads of their own, few at a time, so that other answers are not delayed.
"""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import zstandard

from journeyman.config import RecordConfig
from journeyman.gateway.bodies import decompressed, text_of
from journeyman.gateway.plans import Asked
from journeyman.gateway.roles import Facts, conversation_of, role_of
from journeyman.serving.app import COUNTED
from journeyman.sources.fields import mapping

PATHS = frozenset(path for path in COUNTED if not path.endswith("count_tokens"))
"""Paths at which the student answers."""
SMALL_BYTES = 256 << 10
"""Bodies up to this size are read in milliseconds."""
_LARGE_AT_A_TIME = 2
_RESPONSES = "/v1/responses"
_STORED = ("previous_response_id", "conversation", "background", "prompt")
_KEY = b'"model"'
_NAMED = re.compile(rb'[ \t\r\n]*:[ \t\r\n]*("(?:[^"\\]|\\.){0,1000}")')
_ESCAPED = b"\\u006"
"""Begins each escape of a letter of "model"."""


@dataclass(frozen=True)
class StudentRequest:
    """A request that the student can be asked.

    Attributes:
        body: decoded.
        data: the body as it was sent, without its content coding.
    """

    asked: Asked
    role: str
    conversation: str
    body: Mapping[str, Any]
    data: bytes

    @property
    def path(self) -> str:
        """Without the query."""
        return self.asked.path.partition("?")[0]

    @property
    def key(self) -> str:
        """Names the conversation among those of all roles; a request that names none is one of its own."""
        return f"{self.role}\0{self.conversation or f'exchange {self.asked.number}'}"

    @property
    def needs_state(self) -> bool:
        """Whether it refers to what the Responses API of the teacher stores, or lets it be stored for later turns."""
        body = self.body
        if self.path != _RESPONSES:
            return False
        items = body.get("input")
        refers = isinstance(items, list) and any(mapping(one).get("type") == "item_reference" for one in items)
        return refers or body.get("store") is not False or any(body.get(name) for name in _STORED)

    @property
    def begun(self) -> bool:
        """Whether it goes on with a conversation: something was answered before its last turn."""
        turns = self.body.get("messages", self.body.get("input"))
        if not isinstance(turns, list):
            return False
        *before, last = [mapping(one) for one in turns] or [{}]
        return _answers(last, result_only=True) or any(_answers(one) for one in before)


def _answers(turn: Mapping[str, Any], *, result_only: bool = False) -> bool:
    """Whether a turn is the assistant's or a result of its call. As the last turn, the assistant's is only begun."""
    kind = turn.get("type")
    if turn.get("role") in ("tool", "function") or (isinstance(kind, str) and kind.endswith("_call_output")):
        return True
    return not result_only and (
        turn.get("role") == "assistant" or kind == "reasoning" or (isinstance(kind, str) and kind.endswith("_call"))
    )


class RequestReader:
    """Reads requests as rows are read, so that both name the same role and conversation."""

    def __init__(self, record: RecordConfig) -> None:
        self._record = record
        self._threads = ThreadPoolExecutor(_LARGE_AT_A_TIME, "large requests")

    async def read(self, asked: Asked) -> StudentRequest | None:
        """What the student can be asked; None: something that it has no API for, or that is too large unpacked."""
        if asked.method != "POST" or asked.path.partition("?")[0] not in PATHS:
            return None
        if len(asked.body) <= SMALL_BYTES and not asked.head.get("coding"):
            return self._read(asked, yields=False)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, asked)

    async def named(self, request: StudentRequest) -> bytes:
        """The request's body with the role as the model's name.

        Raises:
            RecursionError: it is nested too deeply to be written again.
        """
        if len(request.data) <= SMALL_BYTES:
            return named(request.data, request.body, request.role)
        arguments = request.data, request.body, request.role
        return await asyncio.get_running_loop().run_in_executor(self._threads, named, *arguments)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _read(self, asked: Asked, yields: bool = True) -> StudentRequest | None:
        sent = mapping(asked.head.get("headers"))
        try:
            data = decompressed(asked.body, asked.head.get("coding", ""), self._record.max_body_mib << 20)
        except (ValueError, zlib.error, zstandard.ZstdError):
            return None
        body = mapping(text_of(data, sent.get("content-type", ""), yields=yields).value)
        if not body:
            return None
        facts = Facts(
            asked.path.partition("?")[0], sent, asked.head.get("key", ""), asked.head.get("key_hash", ""), body
        )
        return StudentRequest(asked, role_of(facts, self._record.roles), conversation_of(facts), body, data)


def named(data: bytes, body: Mapping[str, Any], role: str) -> bytes:
    """A body with the role as its model.

    Otherwise it stays as it was sent, if only one key in it is "model"; else it is written again. Without an escaped
    letter, each such key is these bytes with the quotes, and of all strings only a key is followed by a colon. So if
    there is one, and the object has a field of that name, it is that field.

    Args:
        data: UTF-8.
        body: what it says.
    """
    model, at = body.get("model"), data.find(_KEY)
    if model == role:
        return data
    alone = at > 0 and data.find(_KEY, at + 1) < 0 and data[at - 1 : at] != b"\\"
    if isinstance(model, str) and alone and _ESCAPED not in data:
        found = _NAMED.match(data, at + len(_KEY))
        if found is not None and json.loads(found[1]) == model:
            return data[: found.start(1)] + json.dumps(role).encode() + data[found.end(1) :]
    renamed = {**body, "model": role}
    if len(data) <= SMALL_BYTES:
        return json.dumps(renamed).encode()
    return "".join(json.JSONEncoder().iterencode(renamed)).encode()  # in Python: other threads get their turns
