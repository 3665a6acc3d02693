"""Joining streams: what servers send that the usual clients read, and no loss of an answer to an odd event."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dialects import CHAT, MESSAGES, RESPONSES
from journeyman.sources.streams import Joined, join


def joined(*events: Any) -> Joined:
    return join(one if isinstance(one, str) else json.dumps(one) for one in events)


def chat(*deltas: dict[str, Any]) -> dict[str, Any]:
    """The message that these deltas make."""
    found = joined(*({"choices": [{"index": 0, "delta": delta}]} for delta in deltas), "[DONE]")
    assert found.ended
    assert found.answer is not None
    message: dict[str, Any] = found.answer["choices"][0]["message"]
    return message


def call(index: int | None, name: str | None, arguments: str, id_: str | None = None) -> dict[str, Any]:
    function = {"arguments": arguments} | ({"name": name} if name else {})
    told = {"index": index} if index is not None else {}
    return {"tool_calls": [{**told, **({"id": id_} if id_ is not None else {}), "function": function}]}


def named(message: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["function"]["name"], one["function"]["arguments"]) for one in message["tool_calls"]]


def test_a_null_before_a_value_is_no_value() -> None:
    message = chat(
        {"tool_calls": None, "function_call": None, "content": None, "reasoning_details": None},
        {"function_call": {"name": "f", "arguments": "{"}, "reasoning_details": [{"text": "a"}]},
        call(0, "find", '{"a"', "c1"),
        {"tool_calls": None, "function_call": {"arguments": "}"}, "content": "Yes"},
        call(0, None, ": 1}"),
    )
    assert named(message) == [("find", '{"a": 1}')]
    assert message["function_call"] == {"name": "f", "arguments": "{}"}
    assert message["content"] == "Yes"
    assert message["reasoning_details"] == [{"text": "a"}]


def test_a_null_in_an_item_of_responses_is_no_value() -> None:
    item = {"type": "reasoning", "content": None, "summary": None}
    found = joined(
        {"type": "response.created", "response": {"object": "response", "output": None}},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.reasoning_text.delta", "output_index": 0, "content_index": 0, "delta": "I "},
        {"type": "response.reasoning_text.delta", "output_index": 0, "content_index": 0, "delta": "think"},
        {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": "Thought"},
    )
    assert found.answer is not None
    assert found.answer["output"] == [{
        "type": "reasoning",
        "content": [{"type": "reasoning_text", "text": "I think"}],
        "summary": [{"type": "summary_text", "text": "Thought"}],
    }]  # fmt: skip


@pytest.mark.parametrize("index", [0, None])
@pytest.mark.parametrize("ids", [("c1", "c2"), ("", ""), (None, None)])
def test_calls_that_share_an_index_stay_apart(index: int | None, ids: tuple[str | None, str | None]) -> None:
    message = chat(call(index, "read", '{"p": 1}', ids[0]), call(index, "write", '{"q": 2}', ids[1]))
    assert named(message) == [("read", '{"p": 1}'), ("write", '{"q": 2}')]


def test_later_parts_belong_to_the_newest_call_at_their_index() -> None:
    message = chat(
        call(1, "third", "{", "c3"), call(0, "read", '{"p":', "c1"), call(0, None, "1}"),
        call(0, "read", '{"p":', "c2"), call(0, None, "2}"), call(1, None, "}"),
    )  # fmt: skip
    assert named(message) == [("read", '{"p":1}'), ("read", '{"p":2}'), ("third", "{}")]
    assert [one.get("id") for one in message["tool_calls"]] == ["c1", "c2", "c3"]
    assert not any("index" in one for one in message["tool_calls"])


def test_a_name_or_an_id_that_is_repeated_begins_no_call() -> None:
    same = chat(call(0, "find", '{"a":', "c1"), call(0, "find", "1}", "c1"), call(0, "find", "", "c1"))
    without = chat(call(0, "find", '{"a":'), call(0, "find", "1}"), call(0, "find", ""))
    for message in (same, without, chat(call(0, "find", "{", "c1"), call(0, None, "}", "c2"))):
        assert len(message["tool_calls"]) == 1
    assert named(same) == named(without) == [("find", '{"a":1}')]


@pytest.mark.parametrize("last", [{"output": []}, {"output": None}, {}])
def test_a_last_event_without_items_keeps_those_that_came(last: dict[str, Any]) -> None:
    ended = {"type": "response.completed", "response": {"object": "response", "status": "completed", **last}}
    *begun, whole = RESPONSES.events
    found, usual = joined(*begun, ended), joined(*begun, whole)
    assert found.ended
    assert found.answer is not None and usual.answer is not None
    assert found.answer["status"] == "completed"
    text = json.dumps(found.answer["output"])
    assert all(part in text for part in ("I look it up.", "find", "K-17"))
    assert usual.answer == whole["response"]


ODD = [
    {"choices": [{"delta": {"tool_calls": "x"}}, 3, None]}, {"choices": [{"index": [], "delta": {"content": {}}}]},
    {"type": "message_start", "message": {"content": 3, "choices": [1]}},
    {"type": "content_block_start", "index": [], "content_block": {"type": "text", "text": 3, "citations": 1}},
    {"type": "content_block_delta", "index": {}, "delta": {"partial_json": "{"}},
    {"type": "content_block_delta", "index": 0, "delta": {"text": "a", "citation": {}}},
    {"type": "response.created", "response": {"output": "text"}},
    {"type": "response.output_item.added", "item": {"content": "text", "arguments": 3, "summary": [1]}},
    {"type": "response.output_text.delta", "delta": "a"},
    {"type": "response.reasoning_summary_text.delta", "delta": "a"},
    {"type": "response.function_call_arguments.delta", "delta": "a"},
    {"type": "response.completed", "response": {"output": 3}},
]  # fmt: skip


@pytest.mark.parametrize("second", range(len(ODD)))
@pytest.mark.parametrize("first", range(len(ODD)))
def test_odd_events_lose_nothing_else(first: int, second: int) -> None:
    """Also events of another API in the middle of an answer: none of them raises."""
    for dialect in (CHAT, MESSAGES, RESPONSES):
        for at in (0, 2, len(dialect.events)):
            found = joined(*dialect.events[:at], ODD[first], ODD[second], *dialect.events[at:])
            assert found.answer is not None
