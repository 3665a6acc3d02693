"""The events of a streamed answer of the Responses API.

https://platform.openai.com/docs/api-reference/responses-streaming

Each output item is complete before the next one begins, and each event has the next sequence number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from journeyman.serving.dialects.dialect import data_event, new_id
from journeyman.serving.dialects.logprobs import with_alternatives
from journeyman.serving.dialects.pieces import CALL, REASONING, TEXT, Piece, PieceWriter
from journeyman.serving.dialects.responses_answer import Head, ended, item_of, logprobs_of, text_part


class ResponsesWriter(PieceWriter):
    """Writes the events."""

    def __init__(self, head: Head, alternatives: int = 0) -> None:
        super().__init__()
        self._head, self._alternatives = head, alternatives
        self._number = 0
        self._items: list[dict[str, Any]] = []
        self._open: Piece | None = None
        self._open_id = ""

    def chunk(self, event: dict[str, Any]) -> Iterator[bytes]:
        yield from super().chunk(with_alternatives(event, self._alternatives))

    def end(self) -> Iterator[bytes]:
        yield from self.start()
        yield from self._close(complete=self.finish != "length")
        response = ended(self._head, self._items, self.finish, self.usage)
        yield self._event(f"response.{response['status']}", response=response)

    def failed(self, message: str) -> Iterator[bytes]:
        yield from self.start()
        error = {"code": "server_error", "message": message}
        yield self._event("response.failed", response=self._head.response("failed", self._items, error=error))

    def start(self) -> Iterator[bytes]:
        if self._number == 0:
            yield self._event("response.created", response=self._head.response("in_progress"))
            yield self._event("response.in_progress", response=self._head.response("in_progress"))

    def piece(self, piece: Piece) -> Iterator[bytes]:
        if self._open is None or (self._open.kind, self._open.number) != (piece.kind, piece.number):
            yield from self._close()
            yield from self._begin(piece)
        assert self._open is not None
        self._open = replace(
            self._open, text=self._open.text + piece.text, logprobs=(*self._open.logprobs, *piece.logprobs)
        )
        if not piece.text:
            return
        if piece.kind == CALL:
            yield self._of_item("response.function_call_arguments.delta", delta=piece.text)
        elif piece.kind == TEXT:
            logprobs = logprobs_of(piece)
            yield self._of_item("response.output_text.delta", content_index=0, delta=piece.text, logprobs=logprobs)
        else:
            yield self._of_item("response.reasoning_text.delta", content_index=0, delta=piece.text)

    def _begin(self, piece: Piece) -> Iterator[bytes]:
        if piece.kind == CALL:
            self.begin_call(piece.number)
            piece = replace(piece, call_id=piece.call_id or new_id("call_"))
        self._open = replace(piece, text="", logprobs=())
        item = item_of(self._open, self._new_id, complete=True, status="in_progress")
        yield self._event("response.output_item.added", output_index=len(self._items), item=item)
        if piece.kind == TEXT:
            part = text_part(self._open)
            yield self._of_item("response.content_part.added", content_index=0, part=part)
        elif piece.kind == REASONING:
            part = {"type": "reasoning_text", "text": ""}
            yield self._of_item("response.content_part.added", content_index=0, part=part)

    def _close(self, *, complete: bool = True) -> Iterator[bytes]:
        if self._open is None:
            return
        piece, text = self._open, self._open.text
        item = item_of(piece, lambda prefix: self._open_id, complete=complete)
        if piece.kind == CALL:
            yield self._of_item("response.function_call_arguments.done", name=piece.name, arguments=text)
        elif piece.kind == TEXT:
            done = {"content_index": 0, "text": text, "logprobs": logprobs_of(piece)}
            yield self._of_item("response.output_text.done", **done)
            yield self._of_item("response.content_part.done", content_index=0, part=text_part(piece))
        else:
            yield self._of_item("response.reasoning_text.done", content_index=0, text=text)
            part = {"type": "reasoning_text", "text": text}
            yield self._of_item("response.content_part.done", content_index=0, part=part)
        yield self._event("response.output_item.done", output_index=len(self._items), item=item)
        self._items.append(item)
        self._open = None

    def _new_id(self, prefix: str) -> str:
        self._open_id = new_id(prefix)
        return self._open_id

    def _of_item(self, event: str, /, **fields: Any) -> bytes:
        return self._event(event, item_id=self._open_id, output_index=len(self._items), **fields)

    def _event(self, name: str, /, **fields: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        return data_event({"type": name, "sequence_number": number, **fields}, name)
