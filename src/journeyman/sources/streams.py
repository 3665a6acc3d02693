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
from journeyman.sources.stream_parts import append, listed, part_at, place_of

_END_OF_LINE = re.compile(r"\r\n|\r|\n")
_LAST = ("response.completed", "response.incomplete", "response.failed")
_ADDED = ("content", "refusal", "reasoning_content", "reasoning", "thinking", "text", "arguments", "name")
_Newest = dict[tuple[int, int], dict[str, Any]]
"""The newest call at each index of each choice."""


@dataclass
class Joined:
    """A joined answer.

    Attributes:
        answer: in the form of an answer that is not streamed; None if no event of a known kind came.
        ended: whether its last event came, or every choice has its finish reason; else it was cut.
        closed: whether its last event came, after which nothing follows.
        errors: what error events said.
        other: events of unknown kinds, and data that are not JSON.
    """

    answer: dict[str, Any] | None = None
    ended: bool = False
    closed: bool = False
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
    calls: _Newest = {}
    for data in events:
        if data.strip() == "[DONE]":
            joined.closed = True
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
        elif isinstance(event.get("choices"), list) and _fits(joined.answer, "choices"):
            _chunk(joined, event, calls)
        elif not _message_event(joined, event, blocks):
            joined.other.append(event)
    _finish(joined, blocks)
    return joined


# --- chat completions and completions -------------------------------------------------------------


def _chunk(joined: Joined, event: Mapping[str, Any], newest: _Newest) -> None:
    if joined.answer is None:
        kind = str(event.get("object") or "chat.completion").removesuffix(".chunk")
        joined.answer = {**event, "object": kind, "choices": []}
    answer = joined.answer
    if event.get("usage"):
        answer["usage"] = event["usage"]
    for one in map(mapping, event["choices"]):
        choice = part_at(answer["choices"], one.get("index"), {"index": one.get("index", 0)})
        if isinstance(one.get("text"), str):
            choice["text"] = choice.get("text", "") + one["text"]
        if delta := mapping(one.get("delta")):
            message = choice.setdefault("message", {})
            _add(message, {name: value for name, value in delta.items() if name != "tool_calls"})
            told = delta.get("tool_calls")
            if told is not None and not isinstance(told, dict | list):
                joined.other.append(event)
            for place, call in enumerate([told] if isinstance(told, dict) else told if isinstance(told, list) else []):
                _add_call(listed(message, "tool_calls"), newest, place_of(one.get("index")), place, mapping(call))
        if one.get("finish_reason") is not None:
            choice["finish_reason"] = one["finish_reason"]


def _add_call(
    calls: list[Any], newest: _Newest, choice: int, place: int, told: Mapping[str, Any]
) -> None:  # fmt: skip
    """Adds a part of a tool call. The call has its index until the end of the stream, to be sorted by it."""
    at = choice, place_of(told.get("index", place))
    call = newest.get(at)
    if call is None or _is_another(call, told):
        call = newest[at] = {"index": at[1]}
        calls.append(call)
    _add(call, {name: value for name, value in told.items() if name != "index"})


def _is_another(call: Mapping[str, Any], told: Mapping[str, Any]) -> bool:
    """Whether this is the beginning of another call at the same index: some servers number all calls 0."""
    held, new = mapping(call.get("function")), mapping(told.get("function"))
    if not held.get("name") or not new.get("name"):
        return False
    if call.get("id") and told.get("id"):
        return bool(call["id"] != told["id"])
    return bool(new.get("arguments")) and isinstance(decoded(held.get("arguments")), dict)


def _add(message: dict[str, Any], delta: Mapping[str, Any]) -> None:
    for name, value in delta.items():
        held = message.get(name)
        if held is None:
            message[name] = value
        elif isinstance(value, dict) and isinstance(held, dict):
            _add(held, value)
        elif name in _ADDED and isinstance(value, str) and isinstance(held, str):
            message[name] = held + value if name != "name" or value != held else held
        elif isinstance(value, list) and isinstance(held, list):
            message[name] = [*held, *value]
        elif value is not None:
            message[name] = value


def _fits(answer: Mapping[str, Any] | None, name: str) -> bool:
    """Whether events of this kind can be added: an answer of another kind has no such list."""
    return answer is None or isinstance(answer.get(name), list)


# --- Anthropic's Messages -------------------------------------------------------------------------


def _message_event(joined: Joined, event: Mapping[str, Any], blocks: dict[int, str]) -> bool:
    """Adds an event; false if it is of an unknown kind. `blocks` has the JSON of each block's input so far."""
    kind, index = event.get("type"), event.get("index")
    if kind == "ping":
        return True
    if kind == "message_start":
        message = mapping(event.get("message"))
        joined.answer = {**message, "content": [*listed({**message}, "content")]}
        return True
    if joined.answer is None or not isinstance(joined.answer.get("content"), list):
        return False
    content = joined.answer["content"]
    if kind == "content_block_start":
        part_at(content, index, {}).update(mapping(event.get("content_block")))
    elif kind == "content_block_delta":
        _block_delta(part_at(content, index, {}), mapping(event.get("delta")), blocks, place_of(index))
    elif kind == "message_delta":
        joined.answer |= mapping(event.get("delta"))
        joined.answer["usage"] = {**mapping(joined.answer.get("usage")), **mapping(event.get("usage"))}
    elif kind == "message_stop":
        joined.closed = True
    else:
        return kind == "content_block_stop"
    return True


def _block_delta(block: dict[str, Any], delta: Mapping[str, Any], blocks: dict[int, str], index: int) -> None:
    if isinstance(part := delta.get("partial_json"), str):
        blocks[index] = blocks.get(index, "") + part
        return
    for name, value in delta.items():
        if name == "citation":
            listed(block, "citations").append(value)
        elif name != "type" and isinstance(value, str):
            append(block, name, value)


# --- Responses ------------------------------------------------------------------------------------


def _response_event(joined: Joined, event: Mapping[str, Any]) -> None:
    kind, whole = event.get("type"), event.get("response")
    if kind in _LAST and isinstance(whole, dict):
        came = joined.answer.get("output") if joined.answer else None  # the last event may have an empty list
        joined.answer = {**whole, "output": came} if came and not whole.get("output") else whole
        joined.closed = True
        return
    if kind == "error":
        joined.errors.append({key: value for key, value in event.items() if key != "type"})
        return
    if isinstance(whole, dict):
        joined.answer = joined.answer or {**whole, "output": [*listed({**whole}, "output")]}
        return
    if joined.answer is None:
        joined.answer = {"object": "response", "output": []}
    item = part_at(listed(joined.answer, "output"), event.get("output_index"), {})
    if isinstance(told := event.get("item"), dict):
        item.clear()
        item.update(told)
    elif isinstance(delta := event.get("delta"), str):
        _item_delta(item, str(kind), delta, event)


def _item_delta(item: dict[str, Any], kind: str, delta: str, event: Mapping[str, Any]) -> None:
    if "arguments" in kind or "input" in kind:
        name = "arguments" if "arguments" in kind else "input"
        append(item, name, delta)
        return
    summary = "summary" in kind
    parts = listed(item, "summary" if summary else "content")
    named = ("refusal", "reasoning_text")
    type_ = "summary_text" if summary else next((one for one in named if one in kind), "output_text")
    part = part_at(parts, event.get("summary_index" if summary else "content_index"), {})
    part.setdefault("type", type_)
    name = "refusal" if type_ == "refusal" else "text"
    append(part, name, delta)


def _finish(joined: Joined, blocks: Mapping[int, str]) -> None:
    answer, joined.ended = joined.answer, joined.closed
    if answer is None:
        return
    if isinstance(answer.get("content"), list):
        for index, text in blocks.items():
            part_at(answer["content"], index, {})["input"] = decoded(text) if text else {}
        joined.ended = joined.ended or answer.get("stop_reason") is not None
    choices = answer.get("choices")
    if isinstance(choices, list) and choices:
        joined.ended = joined.ended or all(mapping(one).get("finish_reason") is not None for one in choices)
        for message in (mapping(mapping(one).get("message")) for one in choices):
            if isinstance(calls := message.get("tool_calls"), list):
                calls.sort(key=lambda call: place_of(mapping(call).pop("index", 0)))
    if joined.errors:
        joined.ended = joined.closed = False
