"""The same exchange in the three dialects, streamed and not: a text, a tool call, tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from scripted_upstream import chunks, http, sse

SYSTEM, QUESTION, TEXT = "You are a planner. Plan.", "Where is K-17?", "I look it up."
ARGUMENTS = {"number": "K-17"}
_JSON = json.dumps(ARGUMENTS)
_TURNS = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
_CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": _JSON}}


@dataclass
class Dialect:
    """One API: path, request, answer, and the events of the same answer."""

    path: str
    request: dict[str, Any]
    answer: dict[str, Any]
    events: list[Any]
    named: bool = False

    def script(self, *, stream: bool) -> list[bytes]:
        if stream:
            return chunks(*sse(*self.events, named=self.named))
        return [http(json.dumps(self.answer).encode())]


def _chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion.chunk", "model": "gpt-x", "choices": [choice]}


_USAGE = {"prompt_tokens": 11, "completion_tokens": 7}
_MESSAGE = {"role": "assistant", "content": TEXT, "tool_calls": [_CALL]}
CHAT = Dialect(
    "/v1/chat/completions",
    {"model": "gpt-x", "messages": _TURNS},
    {"id": "x", "object": "chat.completion", "model": "gpt-x", "usage": _USAGE,
     "choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "tool_calls"}]},
    [_chunk({"role": "assistant", "content": ""}), _chunk({"content": "I look "}), _chunk({"content": "it up."}),
     _chunk({"tool_calls": [{"index": 0, **_CALL, "function": {"name": "find", "arguments": ""}}]}),
     _chunk({"tool_calls": [{"index": 0, "function": {"arguments": _JSON[:6]}}]}),
     _chunk({"tool_calls": [{"index": 0, "function": {"arguments": _JSON[6:]}}]}),
     _chunk({}, "tool_calls"), {**_chunk({}), "choices": [], "usage": _USAGE}, "[DONE]"],
)  # fmt: skip
_TOKENS = {"input_tokens": 11, "output_tokens": 7}
_TOOL = {"type": "tool_use", "id": "c1", "name": "find", "input": ARGUMENTS}
MESSAGES = Dialect(
    "/v1/messages",
    {"model": "claude-x", "max_tokens": 99, "system": SYSTEM, "messages": _TURNS[1:]},
    {"id": "m", "type": "message", "role": "assistant", "model": "claude-x", "stop_reason": "tool_use",
     "content": [{"type": "text", "text": TEXT}, _TOOL], "usage": _TOKENS},
    [{"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "model": "claude-x",
      "content": [], "stop_reason": None, "usage": {"input_tokens": 11, "output_tokens": 1}}},
     {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
     {"type": "ping"},
     {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "I look "}},
     {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "it up."}},
     {"type": "content_block_stop", "index": 0},
     {"type": "content_block_start", "index": 1, "content_block": {**_TOOL, "input": {}}},
     {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": _JSON[:6]}},
     {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": _JSON[6:]}},
     {"type": "content_block_stop", "index": 1},
     {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 7}},
     {"type": "message_stop"}],
    named=True,
)  # fmt: skip
_ITEMS = [
    {"type": "message", "id": "i1", "role": "assistant", "content": [{"type": "output_text", "text": TEXT}]},
    {"type": "function_call", "id": "i2", "call_id": "c1", "name": "find", "arguments": _JSON},
]
_RESPONSE = {
    "id": "r",
    "object": "response",
    "model": "gpt-x",
    "status": "completed",
    "output": _ITEMS,
    "usage": _TOKENS,
}
RESPONSES = Dialect(
    "/v1/responses",
    {"model": "gpt-x", "instructions": SYSTEM, "input": QUESTION},
    _RESPONSE,
    [{"type": "response.created", "response": {**_RESPONSE, "status": "in_progress", "output": [], "usage": None}},
     {"type": "response.output_item.added", "output_index": 0, "item": {**_ITEMS[0], "content": []}},
     {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "I look "},
     {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "it up."},
     {"type": "response.output_item.done", "output_index": 0, "item": _ITEMS[0]},
     {"type": "response.output_item.added", "output_index": 1, "item": {**_ITEMS[1], "arguments": ""}},
     {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": _JSON},
     {"type": "response.output_item.done", "output_index": 1, "item": _ITEMS[1]},
     {"type": "response.completed", "response": _RESPONSE}],
    named=True,
)  # fmt: skip
ALL = {"chat": CHAT, "messages": MESSAGES, "responses": RESPONSES}
