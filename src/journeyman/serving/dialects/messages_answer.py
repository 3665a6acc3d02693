"""Answers in the form of Anthropic's messages: content blocks, stop reasons and the events of a stream.

https://docs.anthropic.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from journeyman.serving.answers import STOPPED_BY
from journeyman.serving.dialects.dialect import data_event, new_id
from journeyman.serving.dialects.pieces import CALL, REASONING, TEXT, Piece, PieceWriter, Usage
from journeyman.serving.errors import error_body

_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def block_of(piece: Piece) -> dict[str, Any]:
    """A complete part of an answer as a content block."""
    if piece.kind == CALL:
        name = piece.call_id or new_id("toolu_")
        return {"type": "tool_use", "id": name, "name": piece.name, "input": input_of(piece.text)}
    if piece.kind == REASONING:
        return {"type": "thinking", "thinking": piece.text, "signature": ""}
    return {"type": "text", "text": piece.text}


def input_of(arguments: str) -> Any:
    """A call's arguments as a value. What is not JSON, because the answer reached its limit (`stop_reason` is then
    max_tokens: all others are complete), is an empty object, as in Anthropic's own answers."""
    try:
        return json.loads(arguments or "{}")
    except ValueError:
        return {}


def stop_of(finish_reason: Any, event: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that say why the answer ended."""
    word = event.get(STOPPED_BY)
    if word and finish_reason == "stop":
        return {"stop_reason": "stop_sequence", "stop_sequence": word}
    return {"stop_reason": _STOPS[finish_reason], "stop_sequence": None}


def usage_object(usage: Usage | None) -> dict[str, int]:
    """The token counts; `input_tokens` are those that were not in the cache."""
    if usage is None:
        return {"input_tokens": 0, "output_tokens": 0}
    return {
        "input_tokens": usage.prompt - usage.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.answer,
    }


class MessagesWriter(PieceWriter):
    """Writes the events of a streamed message.

    The counts of the prompt are known at the end, and stand in message_delta.
    """

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role
        self._started = False
        self._open: tuple[str, int] | None = None
        self._blocks = 0
        self._stopped: dict[str, Any] = {}

    def chunk(self, event: dict[str, Any]) -> Iterator[bytes]:
        yield from super().chunk(event)
        if STOPPED_BY in event:
            self._stopped = {STOPPED_BY: event[STOPPED_BY]}

    def end(self) -> Iterator[bytes]:
        yield from self.start()
        yield from self._close()
        delta = stop_of(self.finish, self._stopped)
        yield _event("message_delta", delta=delta, usage=usage_object(self.usage))
        yield _event("message_stop")

    def failed(self, message: str) -> Iterator[bytes]:
        yield data_event(error_body("/v1/messages", 500, message), "error")

    def start(self) -> Iterator[bytes]:
        if self._started:
            return
        self._started = True
        message: dict[str, Any] = {
            "id": new_id("msg_"), "type": "message", "role": "assistant", "model": self._role, "content": [],
            "stop_reason": None, "stop_sequence": None, "usage": usage_object(None),
        }  # fmt: skip
        yield _event("message_start", message=message)

    def piece(self, piece: Piece) -> Iterator[bytes]:
        if self._open != (piece.kind, piece.number):
            yield from self._close()
            if piece.kind == CALL:
                self.begin_call(piece.number)
            yield _event("content_block_start", index=self._blocks, content_block=_empty(piece))
            self._open = piece.kind, piece.number
        if piece.text:
            yield _event("content_block_delta", index=self._blocks, delta=_delta(piece))

    def _close(self) -> Iterator[bytes]:
        if self._open is not None:
            if self._open[0] == REASONING:
                signature = {"type": "signature_delta", "signature": ""}
                yield _event("content_block_delta", index=self._blocks, delta=signature)
            yield _event("content_block_stop", index=self._blocks)
            self._open, self._blocks = None, self._blocks + 1


def _empty(piece: Piece) -> dict[str, Any]:
    """The block with which a piece begins: its arguments or its text follow."""
    return block_of(Piece(piece.kind, "", piece.number, piece.call_id, piece.name))


def _delta(piece: Piece) -> dict[str, Any]:
    if piece.kind == CALL:
        return {"type": "input_json_delta", "partial_json": piece.text}
    if piece.kind == TEXT:
        return {"type": "text_delta", "text": piece.text}
    return {"type": "thinking_delta", "thinking": piece.text}


def _event(name: str, /, **fields: Any) -> bytes:
    return data_event({"type": name, **fields}, name)
