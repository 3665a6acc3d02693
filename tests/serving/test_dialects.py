"""Completions, responses and messages: the same question and the same answer in the form of each API."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from conftest import write_tiny_gguf
from fake_engine import BUNDLE, ROLE, FakeEngine, fake_engine
from journeyman.inference.engines import running_engine
from journeyman.models.gguf_file import GgufFile
from journeyman.protocols import EngineSettings
from journeyman.serving.app import make_app
from journeyman.serving.keyring import Keys
from journeyman.serving.origin import Door
from test_control_tokens import ATTACK, WITH_TOOLS

SELF = "http://127.0.0.1:8011"
SCHEMA = {"type": "object", "properties": {"at": {"type": "string"}}}
CHAT, COMPLETIONS, RESPONSES, MESSAGES = "chat/completions", "completions", "responses", "messages"
ASK: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 8},
    COMPLETIONS: {"prompt": "hi", "max_tokens": 8},
    RESPONSES: {"input": "hi", "max_output_tokens": 8},
    MESSAGES: {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 8},
}
TOOLS: dict[str, list[dict[str, Any]]] = {
    CHAT: [{"type": "function", "function": {"name": "look", "description": "d", "parameters": SCHEMA}}],
    RESPONSES: [{"type": "function", "name": "look", "description": "d", "parameters": SCHEMA}],
    MESSAGES: [{"name": "look", "description": "d", "input_schema": SCHEMA}],
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("base") / "base.gguf", template=WITH_TOOLS)


@pytest.fixture
def engine(base: Path) -> Iterator[FakeEngine]:
    with fake_engine(base) as made:
        yield made


@pytest.fixture
def client(engine: Any) -> Iterator[TestClient]:
    with TestClient(Door(make_app(BUNDLE, engine)), base_url=SELF) as made:
        yield made


def ask(client: TestClient, api: str, **changes: Any) -> Any:
    return client.post(f"/v1/{api}", json={"model": ROLE, **ASK[api], **changes})


def events_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The events of a stream as (type, data)."""
    events = []
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        data = json.loads(lines["data"]) if lines["data"] != "[DONE]" else {}
        events.append((lines.get("event", ""), data))
    return events


def said(api: str, body: dict[str, Any]) -> str:
    """The text of a whole answer."""
    match api:
        case "chat/completions":
            return str(body["choices"][0]["message"]["content"])
        case "completions":
            return str(body["choices"][0]["text"])
        case "responses":
            items = [one for one in body["output"] if one["type"] == "message"]
            return "".join(part["text"] for one in items for part in one["content"])
        case _:
            return "".join(one["text"] for one in body["content"] if one["type"] == "text")


def streamed(api: str, text: str) -> str:
    """The text of a streamed answer."""
    data = [one for _, one in events_of(text)]
    match api:
        case "chat/completions":
            return "".join(c["delta"].get("content") or "" for one in data for c in one.get("choices", []))
        case "completions":
            return "".join(c["text"] for one in data for c in one.get("choices", []))
        case "responses":
            return "".join(one["delta"] for one in data if one["type"] == "response.output_text.delta")
        case _:
            return "".join(one["delta"].get("text", "") for one in data if one["type"] == "content_block_delta")


# --- the same question -------------------------------------------------------------------------------


@pytest.mark.parametrize("api", ASK)
def test_every_api_asks_the_engine_the_same(client: TestClient, engine: FakeEngine, api: str) -> None:
    assert ask(client, api).status_code == 200
    asked = engine.asked[-1]
    turns = [{"role": "system", "content": "You are a coder."}, {"role": "user", "content": "hi"}]
    assert asked == {"messages": turns, "max_tokens": 8, "temperature": 0.0, "lora": []}


@pytest.mark.parametrize("api", [CHAT, RESPONSES, MESSAGES])
def test_a_conversation_with_tools_is_the_same_in_every_api(client: TestClient, engine: FakeEngine, api: str) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "a"}'}}
    result = {"role": "tool", "content": "seen", "tool_call_id": "c1"}
    turns: dict[str, dict[str, Any]] = {
        CHAT: {"messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "go"}]},
            {"role": "assistant", "content": "I look.", "tool_calls": [call]}, result,
            {"role": "user", "content": "well?"},
        ]},
        RESPONSES: {"instructions": "Be brief.", "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "go"}]},
            {"type": "reasoning", "id": "r", "summary": []},
            {"type": "message", "id": "m", "status": "completed", "role": "assistant", "content": [
                {"type": "output_text", "text": "I look.", "annotations": [], "logprobs": []}]},
            {"type": "function_call", "id": "f", "call_id": "c1", "name": "look", "arguments": '{"at": "a"}',
             "status": "completed"},
            {"type": "function_call_output", "call_id": "c1", "output": "seen"},
            {"type": "message", "role": "user", "content": "well?"},
        ]},
        MESSAGES: {"system": [{"type": "text", "text": "Be brief.", "cache_control": {}}], "messages": [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": "a"}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "seen"}]},
                {"type": "text", "text": "well?"}]},
        ]},
    }  # fmt: skip
    answer = ask(client, api, tools=TOOLS[api], **turns[api])
    assert answer.status_code == 200, answer.text
    asked = engine.asked[-1]
    assert asked["messages"] == [
        {"role": "system", "content": "You are a coder."}, {"role": "user", "content": "go"},
        {"role": "assistant", "content": "I look.", "tool_calls": [call]}, result, {"role": "user", "content": "well?"},
    ]  # fmt: skip
    assert asked["tools"] == TOOLS[CHAT]
    ignored = {
        CHAT: "messages[0]", RESPONSES: "input.reasoning, instructions",
        MESSAGES: "system.cache_control, messages.content.thinking, system",
    }  # fmt: skip
    assert answer.headers["journeyman-ignored"] == ignored[api]


@pytest.mark.parametrize("api", [CHAT, RESPONSES, MESSAGES])
@pytest.mark.parametrize(
    ("mode", "names"), [("auto", None), ("none", None), ("required", None), ("required", ["look"])]
)
def test_tool_choices(client: TestClient, engine: FakeEngine, api: str, mode: str, names: list[str] | None) -> None:
    other = json.loads(json.dumps(TOOLS[api]).replace("look", "go"))
    name = names[0] if names else ""
    forms: dict[str, Any] = {
        CHAT: {"type": "function", "function": {"name": name}}, RESPONSES: {"type": "function", "name": name},
        MESSAGES: {"type": "tool", "name": name},
    }  # fmt: skip
    plain = {"type": {"required": "any"}.get(mode, mode)} if api == MESSAGES else mode
    engine.says = ['{"name": "look", "arguments": {}}'] if mode == "required" else ["ok"]
    answer = ask(client, api, tools=[*TOOLS[api], *other], tool_choice=forms[api] if names else plain)
    assert answer.status_code == 200, answer.text
    asked = engine.asked[-1]
    assert asked["tool_choice"] == ("none" if mode == "required" else mode)
    assert [one["function"]["name"] for one in asked["tools"]] == (names or ["look", "go"])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("api", [CHAT, RESPONSES, MESSAGES])
def test_a_required_call_arrives_as_a_call(client: TestClient, engine: FakeEngine, api: str, stream: bool) -> None:
    engine.says = list('{"name": "look", "arguments": {"at": "<EMAIL_1>", "b": {"c": "}"}} }')
    asked = json.loads(json.dumps(ASK[api]).replace("hi", "mail amy@corp.io"))
    choice = {"type": "any"} if api == MESSAGES else "required"
    answer = ask(client, api, **asked, tools=TOOLS[api], tool_choice=choice, stream=stream)
    arguments = {"at": "amy@corp.io", "b": {"c": "}"}}
    if not stream:
        body = answer.json()
        if api == CHAT:
            (call,) = body["choices"][0]["message"]["tool_calls"]
            assert body["choices"][0]["finish_reason"] == "tool_calls" and call["id"]
            assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("look", arguments)
        elif api == RESPONSES:
            (item,) = body["output"]
            assert (item["type"], item["name"], json.loads(item["arguments"])) == ("function_call", "look", arguments)
        else:
            (block,) = body["content"]
            assert (block["name"], block["input"], body["stop_reason"]) == ("look", arguments, "tool_use")
        return
    events = [data for _, data in events_of(answer.text)]
    if api == CHAT:
        calls = [one for data in events for c in data.get("choices", []) for one in c["delta"].get("tool_calls", [])]
        assert [one["function"]["name"] for one in calls if "name" in one["function"]] == ["look"]
        text = "".join(one["function"]["arguments"] for one in calls)
        assert len(calls) > 5, "in pieces"
    elif api == RESPONSES:
        text = "".join(one["delta"] for one in events if one["type"] == "response.function_call_arguments.delta")
    else:
        text = "".join(one["delta"]["partial_json"] for one in events if one["type"] == "content_block_delta")
    assert json.loads(text) == arguments


@pytest.mark.parametrize("api", [CHAT, RESPONSES, MESSAGES])
def test_json_of_a_schema(client: TestClient, engine: FakeEngine, api: str) -> None:
    form = {"type": "json_schema", "name": "a", "schema": SCHEMA, "strict": True}
    fields: dict[str, Any] = {
        CHAT: {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}},
        RESPONSES: {"text": {"format": form}},
        MESSAGES: {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    }
    assert ask(client, api, **fields[api]).status_code == 200
    assert engine.asked[-1]["response_format"] == {"type": "json_schema", "json_schema": {"schema": SCHEMA}}


# --- the answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", ASK)
@pytest.mark.parametrize("stream", [False, True])
def test_values_are_hidden_from_the_engine_and_restored(
    client: TestClient, engine: FakeEngine, api: str, stream: bool
) -> None:
    body = json.loads(json.dumps(ASK[api]).replace("hi", "mail amy@corp.io"))
    engine.says = ["Wrote to <EM", "AIL_1", ">, not to <EMAIL_2>", ". <EMA"]
    answer = ask(client, api, **body, stream=stream)
    assert engine.asked[-1]["messages"][-1]["content"] == "mail <EMAIL_1>"
    text = streamed(api, answer.text) if stream else said(api, answer.json())
    assert text == "Wrote to amy@corp.io, not to <EMAIL_2>. <EMA"
    assert "someone" not in answer.text, "no path of this machine"


def test_a_completion(client: TestClient, engine: FakeEngine) -> None:
    body = ask(client, COMPLETIONS, prompt=["hi"], logprobs=2).json()
    assert body["object"] == "text_completion" and body["model"] == ROLE and body["usage"]["completion_tokens"] == 3
    assert body["choices"] == [{"index": 0, "text": "ok", "logprobs": None, "finish_reason": "stop"}]
    assert engine.asked[-1]["logprobs"] is True and engine.asked[-1]["top_logprobs"] == 2
    for options in ({}, {"stream_options": {"include_usage": True}}):
        events = events_of(ask(client, COMPLETIONS, stream=True, **options).text)
        assert events[-1] == ("", {}), "[DONE]"
        assert any("usage" in data for _, data in events) == bool(options)


@pytest.mark.parametrize("api", [CHAT, COMPLETIONS])
def test_several_answers_are_choices_with_seeds_of_their_own(client: TestClient, engine: FakeEngine, api: str) -> None:
    engine.says = ["a", "b"]
    body = ask(client, api, n=3, seed=5).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert body["usage"]["prompt_tokens"] == 7 and body["usage"]["completion_tokens"] == 9
    assert body["usage"]["total_tokens"] == 16
    assert sorted(one["seed"] for one in engine.asked) == [5, 6, 7] and "n" not in engine.asked[0]
    answer = ask(client, api, n=3, stream=True, stream_options={"include_usage": True})
    events = [data for _, data in events_of(answer.text)]
    said: dict[int, str] = {}
    for choice in (one for data in events for one in data.get("choices", [])):
        said[choice["index"]] = said.get(choice["index"], "") + (choice.get("text") or choice["delta"]["content"])
    assert said == {0: "ab", 1: "ab", 2: "ab"}
    assert [data["usage"]["total_tokens"] for data in events if "usage" in data] == [16]
    assert client.app._app.state.answering.turns.active == 0  # type: ignore[attr-defined]
    engine.cut = True
    broken = ask(client, api, n=2, stream=True)
    assert "error" in broken.text and "[DONE]" not in broken.text


def test_usage_ends_a_chat_stream_only_if_it_was_asked_for(client: TestClient) -> None:
    for options in ({}, {"stream_options": {"include_usage": True}}):
        events = [data for _, data in events_of(ask(client, CHAT, stream=True, **options).text)]
        assert [data["usage"]["total_tokens"] for data in events if "usage" in data] == [10] * bool(options)
        assert not options or events[-2]["choices"] == []


def test_a_response(client: TestClient, engine: FakeEngine) -> None:
    engine.thinks, engine.says, engine.finish = "hm", ["I look."], "tool_calls"
    engine.calls = [("c1", "look", ['{"at"', ': "a"}']), ("", "look", ["{}"])]
    body = ask(client, RESPONSES, tools=TOOLS[RESPONSES], instructions="Be brief.", metadata={"a": "b"}).json()
    assert body["object"] == "response" and body["status"] == "completed" and body["model"] == ROLE
    assert body["instructions"] == "Be brief." and body["metadata"] == {"a": "b"} and body["store"] is False
    reasoning, message, first, second = body["output"]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "hm"}]
    assert message["content"][0]["text"] == "I look." and message["role"] == "assistant"
    assert (first["call_id"], first["name"], first["arguments"]) == ("c1", "look", '{"at": "a"}')
    assert second["call_id"], "one is made if the engine gives none"
    assert body["usage"] == {
        "input_tokens": 7, "input_tokens_details": {"cached_tokens": 2}, "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 10,
    }  # fmt: skip
    engine.calls, engine.finish = [], "length"
    body = ask(client, RESPONSES).json()
    assert body["status"] == "incomplete" and body["incomplete_details"] == {"reason": "max_output_tokens"}
    assert body["output"][-1]["status"] == "incomplete"


def test_the_events_of_a_response(client: TestClient, engine: FakeEngine) -> None:
    engine.thinks, engine.says, engine.finish = "hm", ["I ", "look."], "tool_calls"
    engine.calls = [("c1", "look", ['{"at"', ': "a"}']), ("c2", "look", ["{}"])]
    events = events_of(ask(client, RESPONSES, tools=TOOLS[RESPONSES], stream=True).text)
    assert all(name == data["type"] for name, data in events)
    assert [data["sequence_number"] for _, data in events] == list(range(len(events)))
    call = ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"]
    assert [name.removeprefix("response.") for name, _ in events] == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.done", "content_part.done",
        "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta", "output_text.done",
        "content_part.done", "output_item.done",
        *call[:2], *call[1:], *call,
        "completed",
    ]  # fmt: skip
    done = [data for name, data in events if name == "response.output_item.done"]
    assert [data["output_index"] for data in done] == [0, 1, 2, 3]
    final = events[-1][1]["response"]
    assert final["output"] == [data["item"] for data in done] and final["usage"]["total_tokens"] == 10
    for name, data in events:
        if "item_id" in data:
            assert data["item_id"] == final["output"][data["output_index"]]["id"], name
    arguments = [d["arguments"] for n, d in events if n == "response.function_call_arguments.done"]
    assert arguments == ['{"at": "a"}', "{}"]
    whole = ask(client, RESPONSES, tools=TOOLS[RESPONSES]).json()

    def without_ids(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{key: value for key, value in one.items() if key != "id"} for one in items]

    assert without_ids(whole["output"]) == without_ids(final["output"])


def test_a_message(client: TestClient, engine: FakeEngine) -> None:
    engine.thinks, engine.says, engine.finish = "hm", ["I look."], "tool_calls"
    engine.calls = [("c1", "look", ['{"at"', ': "a"}']), ("", "look", ["{}"])]
    body = ask(client, MESSAGES, tools=TOOLS[MESSAGES]).json()
    assert (body["type"], body["role"], body["model"], body["stop_reason"]) == (
        "message",
        "assistant",
        ROLE,
        "tool_use",
    )
    thought, text, first, second = body["content"]
    assert thought["thinking"] == "hm" and text == {"type": "text", "text": "I look."}
    assert first == {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": "a"}} and second["id"]
    assert body["usage"] == {
        "input_tokens": 5, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 2, "output_tokens": 3,
    }  # fmt: skip


def test_the_events_of_a_message(client: TestClient, engine: FakeEngine) -> None:
    engine.thinks, engine.says, engine.finish = "hm", ["I ", "look."], "tool_calls"
    engine.calls = [("c1", "look", ['{"at"', ': "a"}']), ("c2", "look", ["{}"])]
    events = events_of(ask(client, MESSAGES, tools=TOOLS[MESSAGES], stream=True).text)
    assert all(name == data["type"] for name, data in events)
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    assert [name for name, _ in events] == [
        "message_start", *block[:2], *block[1:], *block[:2], *block[1:], *block[:2], *block[1:], *block,
        "message_delta", "message_stop",
    ]  # fmt: skip
    starts = [data["content_block"] for name, data in events if name == "content_block_start"]
    assert [one["type"] for one in starts] == ["thinking", "text", "tool_use", "tool_use"]
    assert starts[2] == {"type": "tool_use", "id": "c1", "name": "look", "input": {}}
    assert [data["index"] for name, data in events if name == "content_block_stop"] == [0, 1, 2, 3]
    pieces = [data["delta"].get("partial_json") for name, data in events if name == "content_block_delta"]
    assert [one for one in pieces if one] == ['{"at"', ': "a"}', "{}"]
    assert events[-2][1]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert events[-2][1]["usage"]["input_tokens"] == 5 and events[-2][1]["usage"]["output_tokens"] == 3


@pytest.mark.parametrize("stream", [False, True])
def test_a_message_says_which_text_stopped_it(client: TestClient, engine: FakeEngine, stream: bool) -> None:
    engine.stopped_by = "END"
    answer = ask(client, MESSAGES, stop_sequences=["END", "FIN"], stream=stream)
    assert engine.asked[-1]["stop"] == ["END", "FIN"] and engine.asked[-1]["verbose"] is True
    found = events_of(answer.text)[-2][1]["delta"] if stream else answer.json()
    assert (found["stop_reason"], found["stop_sequence"]) == ("stop_sequence", "END")
    assert "verbose" not in answer.text


@pytest.mark.parametrize("api", ASK)
def test_an_answer_that_breaks_off_ends_in_an_error(client: TestClient, engine: FakeEngine, api: str) -> None:
    engine.says, engine.cut = ["one", "two", "three"], True
    answer = ask(client, api, stream=True)
    name, data = events_of(answer.text)[-1]
    assert streamed(api, answer.text) == "onetwo"
    match api:
        case "responses":
            assert name == "response.failed" and data["response"]["status"] == "failed"
            assert "engine" in data["response"]["error"]["message"]
        case "messages":
            assert name == "error" and data["type"] == "error" and data["error"]["type"] == "api_error"
        case _:
            assert data["error"]["type"] == "server_error" and "[DONE]" not in answer.text


@pytest.mark.parametrize("api", ASK)
@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_in_the_field_of_newer_engines(
    client: TestClient, engine: FakeEngine, api: str, stream: bool
) -> None:
    engine.thinks = "I think of amy@corp.io"
    found = []
    for name in ("reasoning_content", "reasoning"):
        engine.thinks_in = name
        text = ask(client, api, stream=stream).text
        assert "I think" in text
        found.append(re.sub(r"(?:resp|msg|rs|toolu)_[0-9a-f]+|\"created_at\":\d+", "", text))
    assert found[0] == found[1]


# --- refusals ----------------------------------------------------------------------------------------


def _turns(content: Any, role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content}]}


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "x"}}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (COMPLETIONS, {"prompt": None}, "prompt"), (COMPLETIONS, {"prompt": ["a", "b"]}, "prompt"),
    (COMPLETIONS, {"prompt": [1, 2]}, "prompt"), (COMPLETIONS, {"suffix": "x"}, "suffix"),
    (COMPLETIONS, {"echo": True}, "echo"), (COMPLETIONS, {"best_of": 2}, "best_of"),
    (COMPLETIONS, {"logprobs": 21}, "logprobs"), (COMPLETIONS, {"logprobs": True}, "logprobs"),
    (COMPLETIONS, {"prompt": ATTACK}, "prompt"), (COMPLETIONS, {"max_tokens": 513}, "max_tokens"),
    (RESPONSES, {"input": None}, "input"), (RESPONSES, {"input": []}, "input"), (RESPONSES, {"input": 5}, "input"),
    (RESPONSES, {"input": [{"role": "assistant", "content": "x"}]}, "input"),
    (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
     "input[0].content[0].type"),
    (RESPONSES, {"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
    (RESPONSES, {"input": [{"type": "function_call", "call_id": "c", "name": "look", "arguments": "{"}]},
     "input[0].arguments"),
    (RESPONSES, {"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
    (RESPONSES, {"input": [{"role": "user", "content": ATTACK}]}, "input[0].content"),
    (RESPONSES, {"previous_response_id": "resp_1"}, "previous_response_id"),
    (RESPONSES, {"background": True}, "background"),
    (RESPONSES, {"conversation": "c"}, "conversation"), (RESPONSES, {"max_output_tokens": 0}, "max_output_tokens"),
    (RESPONSES, {"top_logprobs": 2}, "top_logprobs"), (RESPONSES, {"include": "x"}, "include"),
    (RESPONSES, {"text": {"format": {"type": "xml"}}}, "text.format.type"),
    (RESPONSES, {"text": {"format": {"type": "json_schema", "schema": 5}}}, "text.format.schema"),
    (RESPONSES, {"tool_choice": "required"}, "tool_choice"),
    (MESSAGES, {"max_tokens": None}, "max_tokens"), (MESSAGES, {"max_tokens": 0}, "max_tokens"),
    (MESSAGES, {"messages": []}, "messages"), (MESSAGES, _turns("x", "assistant"), "messages"),
    (MESSAGES, _turns("x", "tool"), "messages[0].role"), (MESSAGES, _turns([IMAGE]), "messages[0].content[0].type"),
    (MESSAGES, _turns([{"type": "tool_use", "id": "c", "name": "look", "input": {}}]), "messages[0].content[0].type"),
    (MESSAGES, _turns([{"type": "tool_result", "content": "x"}]), "messages[0].content[0].tool_use_id"),
    (MESSAGES, _turns([]), "messages[0].content"), (MESSAGES, _turns(ATTACK), "messages[0].content"),
    (MESSAGES, {"temperature": 1.5}, "temperature"), (MESSAGES, {"stop_sequences": "x"}, "stop_sequences"),
    (MESSAGES, {"tools": [{"name": "look"}]}, "tools[0].input_schema"), (MESSAGES, {"system": 5}, "system"),
    (MESSAGES, {"tool_choice": {"type": "any"}}, "tool_choice"), (MESSAGES, {"mcp_servers": [{}]}, "mcp_servers"),
    (MESSAGES, {"system": ATTACK}, "system"),
]  # fmt: skip


@pytest.mark.parametrize(("api", "changes", "param"), REFUSED)
def test_a_clients_fault_is_a_400_that_names_the_field(
    client: TestClient, engine: FakeEngine, api: str, changes: dict[str, Any], param: str
) -> None:
    answer = ask(client, api, **changes)
    assert answer.status_code == 400 and not engine.asked, answer.text
    error = answer.json()["error"]
    if api == MESSAGES:
        assert answer.json()["type"] == "error" and error["type"] == "invalid_request_error"
        assert param in error["message"]
    else:
        assert error["param"] == param


def test_what_has_no_effect_is_said(client: TestClient) -> None:
    tools = [*TOOLS[RESPONSES], {"type": "web_search"}]
    answer = ask(client, RESPONSES, store=True, truncation="auto", tools=tools, include=["reasoning.encrypted_content"])
    assert answer.headers["journeyman-ignored"] == (
        "truncation, store, include reasoning.encrypted_content, tools[1] (web_search)"
    )
    tools = [*TOOLS[MESSAGES], {"type": "bash_20250124", "name": "bash"}]
    answer = ask(client, MESSAGES, max_tokens=32000, thinking={"type": "adaptive"}, tools=tools)
    assert answer.status_code == 200
    assert answer.headers["journeyman-ignored"] == "max_tokens over 512, thinking, tools[1] (bash_20250124)"


def test_errors_have_the_form_of_the_api(engine: Any) -> None:
    key = "k" * 32
    with TestClient(Door(make_app(BUNDLE, engine), keys=Keys(key)), base_url=SELF) as client:
        body = {"model": "poet", **ASK[MESSAGES]}
        for headers, status, kind in (
            ({}, 401, "authentication_error"), ({"x-api-key": f"{key}x"}, 401, "authentication_error"),
            ({"x-api-key": key}, 404, "not_found_error"), ({"authorization": f"Bearer {key}"}, 404, "not_found_error"),
        ):  # fmt: skip
            answer = client.post("/v1/messages?beta=true", json=body, headers=headers)
            assert answer.status_code == status and answer.json()["type"] == "error"
            assert answer.json()["error"].keys() == {"type", "message"} and answer.json()["error"]["type"] == kind
        assert client.get("/v1/messages", headers={"x-api-key": key}).json()["type"] == "error"


def test_the_list_of_models_in_anthropics_form(client: TestClient) -> None:
    listed = client.get("/v1/models", headers={"anthropic-version": "2023-06-01"}).json()
    assert [one["id"] for one in listed["data"]] == BUNDLE.roles and listed["has_more"] is False
    assert (listed["first_id"], listed["last_id"]) == (BUNDLE.roles[0], BUNDLE.roles[-1])
    one = client.get(f"/v1/models/{ROLE}", headers={"anthropic-version": "2023-06-01"}).json()
    assert one.keys() == {"type", "id", "display_name", "created_at"}


def test_tokens_are_counted_as_the_engine_does(client: TestClient) -> None:
    body = {"model": ROLE, **_turns("one two three")}
    assert client.post("/v1/messages/count_tokens", json=body).json() == {"input_tokens": 4 + 3}
    assert client.post("/v1/messages/count_tokens", json={**body, "messages": []}).status_code == 400


# --- the real engine ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_real_engine_calls_the_required_tool(embedded: GgufFile) -> None:
    """A base whose template shows tools, and a model that would rather talk."""
    bundle = BUNDLE.model_copy(update={"redact": {}, "settings": {**BUNDLE.settings, "context": 1024}})
    city = {"$ref": "#/$defs/city"}
    schema = {
        "type": "object",
        "properties": {"city": city},
        "required": ["city"],
        "$defs": {"city": {"enum": ["Rome"]}},
    }
    go = {"name": "go_away", "input_schema": {"type": "object", "properties": {}}}
    tools = [{"name": "get_weather", "description": "The weather of a city", "input_schema": schema}, go]
    settings = EngineSettings(embedded.path, {}, 1024, 1, 0.0, chat_template=WITH_TOOLS)
    with (
        running_engine(settings) as engine,
        TestClient(Door(make_app(bundle, engine)), base_url=SELF) as client,
    ):
        question = _turns("What is the weather in Rome?")
        for choice in ({"type": "any"}, {"type": "tool", "name": "get_weather"}):
            body = ask(client, MESSAGES, **question, tools=tools, tool_choice=choice, max_tokens=64).json()
            (block,) = body["content"]
            assert body["stop_reason"] == "tool_use"
            if choice["type"] == "tool":
                assert (block["name"], block["input"]) == ("get_weather", {"city": "Rome"})
            else:
                assert block["name"] in ("get_weather", "go_away")
        free = ask(client, MESSAGES, **question, tools=tools, max_tokens=16).json()
        assert free["content"][0]["type"] == "text", "it was not the model's own idea"


@pytest.mark.slow
def test_the_same_question_gets_the_same_text_in_every_api(embedded: GgufFile) -> None:
    bundle = BUNDLE.model_copy(update={"redact": {}})
    question = "List three colors."
    with (
        running_engine(EngineSettings(embedded.path, {}, 512, 1, 0.0)) as engine,
        TestClient(Door(make_app(bundle, engine)), base_url=SELF) as client,
    ):
        found = set()
        for api in ASK:
            body = json.loads(json.dumps(ASK[api]).replace("hi", question).replace("8}", "16}"))
            whole, stream = ask(client, api, **body), ask(client, api, **body, stream=True)
            assert whole.status_code == stream.status_code == 200, whole.text + stream.text
            found |= {said(api, whole.json()), streamed(api, stream.text)}
        assert len(found) == 1 and len(found.pop()) > 10
        asked = ask(client, MESSAGES, **_turns(question)).json()["usage"]
        counted = client.post("/v1/messages/count_tokens", json={"model": ROLE, **_turns(question)}).json()
        assert counted["input_tokens"] == asked["input_tokens"] + asked["cache_read_input_tokens"]
        stop = ask(client, MESSAGES, **_turns(question), max_tokens=64, stop_sequences=["\n"]).json()
        assert (stop["stop_reason"], stop["stop_sequence"]) == ("stop_sequence", "\n")
        tokens = ask(client, RESPONSES, include=["message.output_text.logprobs"], top_logprobs=1).json()
        probable = tokens["output"][0]["content"][0]["logprobs"]
        assert probable and all(len(one["top_logprobs"]) == 1 and one["logprob"] <= 0 for one in probable)
        old = ask(client, COMPLETIONS, logprobs=1).json()["choices"][0]["logprobs"]
        assert old["token_logprobs"] == [one["logprob"] for one in probable] and old["text_offset"][0] == 0
