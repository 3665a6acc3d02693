"""Joins the events of a streamed answer into the answer that the same request would have got without streaming.

Source: the event streams of chat completions, completions, Responses and Anthropic's Messages, and the format of
server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from journeyman.sources.fields import decoded, mapping

_END_OF_LINE = re.compile(r"\r\n|\r|\n")
_LAST = ("response.completed", "response.incomplete", "response.failed")
_ADDED = ("content", "refusal", "reasoning_content", "reasoning", "thinking", "text", "arguments", "name")
_MOST_PARTS = 10_000


@dataclass
class Joined:
    """A joined answer.

    Attributes:
        answer: in the form of an answer that is not streamed; None if no event of a known kind came.
        ended: whether its last event came, without which it was cut.
        errors: what error events said.
        other: events of unknown kinds, and data that are not JSON.
    """

    answer: dict[str, Any] | None = None
    ended: bool = False
    errors: list[Any] = field(default_factory=list)
    other: list[Any] = field(default_factory=list)


def events_of(text: str) -> tuple[list[str], str]:
    """The data of each event, and what follows the last complete event."""
    data, events, end = [], [], 0
    start = 0
    for line_end in _END_OF_LINE.finditer(text):
        line = text[start : line_end.start()]
        start = line_end.end()
        if line:
            name, _, value = line.partition(":")
            if name == "data":
                data.append(value.removeprefix(" "))
            continue
        end = start
        if data:
            events.append("\n".join(data))
            data = []
    rest = text[end:]
    return events, rest if rest.strip() else ""


def join(events: Iterable[str]) -> Joined:
    """Joins events, in order."""
    joined = Joined()
    blocks: dict[int, str] = {}
    for data in events:
        if data.strip() == "[DONE]":
            joined.ended = True
            continue
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict):
            joined.other.append(data)
        elif event.get("error") and event.get("type") in (None, "error"):
            joined.errors.append(event["error"])
        elif str(event.get("type", "")).startswith("response.") or event.get("type") == "error":
            _response_event(joined, event)
        elif isinstance(event.get("choices"), list):
            _chunk(joined, event)
        elif not _message_event(joined, event, blocks):
            joined.other.append(event)
    _finish(joined, blocks)
    return joined


# --- chat completions and completions -------------------------------------------------------------


def _chunk(joined: Joined, event: Mapping[str, Any]) -> None:
    if joined.answer is None:
        kind = str(event.get("object") or "chat.completion").removesuffix(".chunk")
        joined.answer = {**event, "object": kind, "choices": []}
    answer = joined.answer
    if event.get("usage"):
        answer["usage"] = event["usage"]
    for one in map(mapping, event["choices"]):
        choice = _at(answer["choices"], one.get("index"), {"index": one.get("index", 0)})
        if isinstance(one.get("text"), str):
            choice["text"] = choice.get("text", "") + one["text"]
        if delta := mapping(one.get("delta")):
            _add(choice.setdefault("message", {}), delta)
        if one.get("finish_reason") is not None:
            choice["finish_reason"] = one["finish_reason"]


def _add(message: dict[str, Any], delta: Mapping[str, Any]) -> None:
    for name, value in delta.items():
        if name == "tool_calls" and isinstance(value, list):
            calls = message.setdefault("tool_calls", [])
            for place, one in enumerate(map(mapping, value)):
                call = _at(calls, one.get("index", place), {})
                _add(call, {key: held for key, held in one.items() if key != "index"})
        elif isinstance(value, dict):
            inner = message.setdefault(name, {})
            if isinstance(inner, dict):
                _add(inner, value)
        elif name in _ADDED and isinstance(value, str) and isinstance(message.get(name), str):
            message[name] += value if name != "name" or value != message[name] else ""
        elif isinstance(value, list) and isinstance(message.get(name), list):
            message[name] = [*message[name], *value]
        elif value is not None or name not in message:
            message[name] = value


def _at(values: list[Any], index: Any, new: dict[str, Any]) -> dict[str, Any]:
    """The element at the index, which a stream may name before earlier ones."""
    place = index if isinstance(index, int) and 0 <= index < _MOST_PARTS else 0
    while len(values) <= place:
        values.append({**new} if len(values) == place else {})
    found: dict[str, Any] = values[place]
    return found


# --- Anthropic's Messages -------------------------------------------------------------------------


def _message_event(joined: Joined, event: Mapping[str, Any], blocks: dict[int, str]) -> bool:
    """Adds an event; false if it is of an unknown kind. `blocks` has the JSON of each block's input so far."""
    kind, index = event.get("type"), event.get("index")
    if kind == "ping":
        return True
    if kind == "message_start":
        message = mapping(event.get("message"))
        joined.answer = {**message, "content": list(message.get("content") or [])}
        return True
    if joined.answer is None or not isinstance(joined.answer.get("content"), list):
        return False
    content = joined.answer["content"]
    if kind == "content_block_start":
        _at(content, index, {}).update(mapping(event.get("content_block")))
    elif kind == "content_block_delta":
        _block_delta(_at(content, index, {}), mapping(event.get("delta")), blocks, index)
    elif kind == "message_delta":
        joined.answer |= mapping(event.get("delta"))
        joined.answer["usage"] = {**mapping(joined.answer.get("usage")), **mapping(event.get("usage"))}
    elif kind == "message_stop":
        joined.ended = True
    else:
        return kind == "content_block_stop"
    return True


def _block_delta(block: dict[str, Any], delta: Mapping[str, Any], blocks: dict[int, str], index: Any) -> None:
    if isinstance(part := delta.get("partial_json"), str):
        blocks[index] = blocks.get(index, "") + part
        return
    for name, value in delta.items():
        if name == "citation":
            block["citations"] = [*(block.get("citations") or []), value]
        elif name != "type" and isinstance(value, str):
            block[name] = (block.get(name) or "") + value


# --- Responses ------------------------------------------------------------------------------------


def _response_event(joined: Joined, event: Mapping[str, Any]) -> None:
    kind, whole = event.get("type"), event.get("response")
    if kind in _LAST and isinstance(whole, dict):
        joined.answer, joined.ended = whole, True
        return
    if kind == "error":
        joined.errors.append({key: value for key, value in event.items() if key != "type"})
        return
    if isinstance(whole, dict):
        joined.answer = joined.answer or {**whole, "output": list(whole.get("output") or [])}
        return
    if joined.answer is None:
        joined.answer = {"object": "response", "output": []}
    output = joined.answer["output"]
    item = _at(output, event.get("output_index"), {})
    if isinstance(told := event.get("item"), dict):
        item.clear()
        item.update(told)
    elif isinstance(delta := event.get("delta"), str):
        _item_delta(item, str(kind), delta, event)


def _item_delta(item: dict[str, Any], kind: str, delta: str, event: Mapping[str, Any]) -> None:
    if "arguments" in kind or "input" in kind:
        name = "arguments" if "arguments" in kind else "input"
        item[name] = (item.get(name) or "") + delta
        return
    summary = "summary" in kind
    parts = item.setdefault("summary" if summary else "content", [])
    type_ = "summary_text" if summary else "refusal" if "refusal" in kind else "output_text"
    part = _at(parts, event.get("summary_index" if summary else "content_index"), {})
    part.setdefault("type", type_)
    name = "refusal" if type_ == "refusal" else "text"
    part[name] = (part.get(name) or "") + delta


def _finish(joined: Joined, blocks: Mapping[int, str]) -> None:
    answer = joined.answer
    if answer is None:
        return
    if isinstance(answer.get("content"), list):
        for index, text in blocks.items():
            _at(answer["content"], index, {})["input"] = decoded(text) if text else {}
        joined.ended = joined.ended or answer.get("stop_reason") is not None
    choices = answer.get("choices")
    if isinstance(choices, list) and choices:
        joined.ended = joined.ended or all(one.get("finish_reason") is not None for one in choices)
    if joined.errors:
        joined.ended = False
