"""Answers that the engine did not complete: they are errors in every API, whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from fake_engine import FakeEngine
from journeyman.serving.endings import Endings
from journeyman.serving.errors import RequestError
from test_dialects import ASK, CHAT, MESSAGES, RESPONSES, TOOLS, ask, base, client, engine, events_of, said, streamed

__all__ = ["base", "client", "engine"]  # fixtures


def _required(client: TestClient, api: str, **changes: Any) -> Any:
    choice = {"type": "any"} if api == MESSAGES else "required"
    return ask(client, api, tools=TOOLS[api], tool_choice=choice, **changes)


def _failed(api: str, answer: Any, stream: bool) -> str:
    """The error with which the answer ends."""
    if not stream:
        assert answer.status_code == 502, answer.text
        return str(answer.json()["error"]["message"])
    assert "[DONE]" not in answer.text and "response.completed" not in answer.text
    assert "message_stop" not in answer.text
    name, data = events_of(answer.text)[-1]
    assert name in ("response.failed", "error", "")
    return str((data["response"] if api == RESPONSES else data)["error"]["message"])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("api", ASK)
@pytest.mark.parametrize("finish", ["abort", "error", "content_filter", "", None])
def test_an_answer_that_the_engine_did_not_complete(
    client: TestClient, engine: FakeEngine, api: str, stream: bool, finish: Any
) -> None:
    engine.says, engine.finish = ["one ", "two"], finish
    assert "finish_reason" in _failed(api, ask(client, api, stream=stream), stream)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("api", [CHAT, RESPONSES, MESSAGES])
@pytest.mark.parametrize("forced", [True, False])
def test_a_call_that_was_cut_is_no_call(
    client: TestClient, engine: FakeEngine, api: str, stream: bool, forced: bool
) -> None:
    if forced:
        engine.says = ['{"name": "look", "argu', 'ments": {"at": "/a']
        answer = _required(client, api, stream=stream)
    else:
        engine.calls, engine.finish = [("c1", "look", ['{"at"', ': "/a'])], "tool_calls"
        answer = ask(client, api, tools=TOOLS[api], stream=stream)
    assert "'look' is not complete" in _failed(api, answer, stream)


@pytest.mark.parametrize("api", [CHAT, RESPONSES, MESSAGES])
def test_a_call_that_reaches_the_limit_says_so(client: TestClient, engine: FakeEngine, api: str) -> None:
    engine.says, engine.finish = ['{"name": "look", "arguments": {"at": "/a'], "length"
    body = _required(client, api).json()
    found = {
        CHAT: lambda: body["choices"][0]["finish_reason"] == "length",
        RESPONSES: lambda: body["status"] == "incomplete" and body["output"][0]["status"] == "incomplete",
        MESSAGES: lambda: body["stop_reason"] == "max_tokens" and body["content"][0]["input"] == {},
    }
    assert found[api](), body


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("api", [CHAT, RESPONSES, MESSAGES])
def test_a_call_without_arguments_is_complete(client: TestClient, engine: FakeEngine, api: str, stream: bool) -> None:
    engine.calls, engine.finish = [("c1", "look", [""])], "tool_calls"
    answer = ask(client, api, tools=TOOLS[api], stream=stream)
    assert answer.status_code == 200 and '"look"' in answer.text and "not complete" not in answer.text


@pytest.mark.parametrize("api", [CHAT, RESPONSES, MESSAGES])
@pytest.mark.parametrize("stream", [False, True])
def test_half_of_a_character_in_a_call_is_sent_as_an_escape(
    client: TestClient, engine: FakeEngine, api: str, stream: bool
) -> None:
    engine.says = ['{"name": "look", "arguments": {"at": "\\ud83d"}}']
    answer = _required(client, api, stream=stream)
    assert answer.status_code == 200 and "ud83d" in answer.text
    engine.says = ["\ud83d"]
    answer = ask(client, api, stream=stream)
    assert (streamed(api, answer.text) if stream else said(api, answer.json())) == "\ud83d"


@pytest.mark.parametrize("api", ASK)
def test_a_chunk_that_names_no_error_is_none(client: TestClient, engine: FakeEngine, api: str) -> None:
    engine.more = {"error": None}
    assert streamed(api, ask(client, api, stream=True).text) == "ok"
    engine.more = {"error": {"message": "out of memory"}}
    assert "out of memory" in _failed(api, ask(client, api, stream=True), True)


def test_each_choice_ends_for_itself() -> None:
    def chunk(index: int, finish: str | None) -> dict[str, Any]:
        return {"choices": [{"index": index, "delta": {"content": "x"}, "finish_reason": finish}]}

    endings = Endings()
    endings.feed(chunk(0, "stop"))
    endings.feed(chunk(1, None))
    with pytest.raises(RequestError, match="without a finish_reason"):
        endings.check()
    endings.feed(chunk(1, "length"))
    endings.check()
    with pytest.raises(RequestError, match="without a finish_reason"):
        Endings().check()


@pytest.mark.parametrize("api", [CHAT, RESPONSES])
@pytest.mark.parametrize("mode", ["auto", "required"])
def test_a_choice_among_no_tools_is_refused(client: TestClient, api: str, mode: str) -> None:
    inner: dict[str, Any] = {"mode": mode, "tools": []}
    choice = {"type": "allowed_tools", **({"allowed_tools": inner} if api == CHAT else inner)}
    answer = ask(client, api, tools=TOOLS[api], tool_choice=choice)
    assert answer.status_code == 400 and "at least one tool" in json.loads(answer.text)["error"]["message"]
