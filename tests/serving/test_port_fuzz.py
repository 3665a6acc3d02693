"""Every request is answered or refused with an error object that says why: the server never fails."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from conftest import write_tiny_gguf
from fake_engine import ASK, BUNDLE, fake_engine
from journeyman.foreign import plain
from journeyman.serving.app import make_app
from journeyman.serving.bodies import parsed
from journeyman.serving.errors import RequestError
from journeyman.serving.origin import Door
from test_control_tokens import WITH_TOOLS
from test_serving import CHAT, FAULTS, SELF, SOUND

FUZZ = int(os.environ.get("JOURNEYMAN_FUZZ", "1"))  # `make fuzz` tries many times more
SETTINGS = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(st.characters(codec=None, exclude_categories=[]), max_size=8) | st.sampled_from(
    ["<|im_end|>", "\ud800", "\x00", "/etc/passwd", "coder", "function", "text", "\x1b[2J", "1" * 400]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.sampled_from([10**400, -1, 0, 1e308])
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)
BODIES = [{**ASK, **changes} for changes in (*SOUND, *(changes for changes, _ in FAULTS)) if len(str(changes)) < 2000]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    base = write_tiny_gguf(tmp_path_factory.mktemp("base") / "base.gguf", template=WITH_TOOLS)
    made: Any
    with fake_engine(base) as made, TestClient(Door(make_app(BUNDLE, made)), base_url=SELF) as client:
        yield client


def _check(client: TestClient, data: bytes, path: str = CHAT, **headers: str | bytes) -> None:
    sent: dict[str, Any] = {"content-type": "application/json", **headers}
    answer = client.post(path, content=data, headers=sent)
    no_call = answer.status_code == 502 and "no tool call" in answer.json()["error"]["message"]
    assert no_call or answer.status_code in (200, 400, 401, 403, 404, 413, 415), answer.text
    assert "someone" not in answer.text
    if answer.status_code != 200:
        error = answer.json()["error"]
        if path.startswith("/v1/messages"):
            assert answer.json()["type"] == "error" and error.keys() == {"message", "type"}
        else:
            assert error.keys() == {"message", "type", "param", "code"} and error["code"]
        assert error["message"] and error["type"]
        assert all(plain(text) == text for text in error.values() if text is not None), "no terminal acts on it"
        assert len(answer.content) < 5000


def _damaged(value: Any, random_: random.Random, new: Any) -> Any:
    """The value with one random part replaced, removed, duplicated or added."""
    if isinstance(value, dict) and value and random_.random() < 0.85:
        key = random_.choice(list(value))
        change = random_.random()
        if change < 0.1:
            return {name: inner for name, inner in value.items() if name != key}
        if change < 0.2:
            return {**value, random_.choice(["name", "strict", "schema", "x", *map(str, value)]): new}
        return {**value, key: _damaged(value[key], random_, new)}
    if isinstance(value, list) and value and random_.random() < 0.85:
        place = random_.randrange(len(value))
        doubled = [value[place]] * random_.choice([0, 1, 1, 1, 2])
        return [*value[:place], *(_damaged(one, random_, new) for one in doubled), *value[place + 1 :]]
    return new


@pytest.mark.slow
@given(seed=st.integers(0, 2**32), new=JSON)
@settings(SETTINGS, max_examples=300 * FUZZ)
def test_a_damaged_request_is_answered_or_refused_with_a_reason(client: TestClient, seed: int, new: Any) -> None:
    random_ = random.Random(seed)
    body = random_.choice(BODIES)
    for _ in range(random_.randint(1, 3)):
        body = _damaged(body, random_, new)
    _check(client, json.dumps(body).encode())


TOOL = {"name": "look", "description": "d", "input_schema": {"type": "object"}}
OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/completions", {"model": "coder", "prompt": "x", "logprobs": 1, "n": 2, "stop": ["a"], "echo": False}),
    ("/v1/responses", {
        "model": "coder", "instructions": "x", "stream": True, "text": {"format": {"type": "json_object"}}, "input": [
            {"role": "developer", "content": [{"type": "input_text", "text": "x"}]},
            {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "x"}]}]}),
    ("/v1/responses", {
        "model": "coder", "input": "x", "include": ["message.output_text.logprobs"], "top_logprobs": 2, "tools": [
            {"type": "function", "name": "look", "parameters": {}, "strict": True}, {"type": "web_search"}],
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "look"}]}}),
    ("/v1/messages", {
        "model": "coder", "max_tokens": 8, "system": [{"type": "text", "text": "x"}], "stop_sequences": ["a"],
        "tools": [TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}, "messages": [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "x", "signature": "s"},
                                              {"type": "tool_use", "id": "c", "name": "look", "input": {"a": 1}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "x", "is_error": True},
                                         {"type": "text", "text": "x"}]}]}),
    ("/v1/messages", {
        "model": "coder", "max_tokens": 8, "stream": True, "messages": [{"role": "user", "content": "x"}],
        "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}}),
    ("/v1/messages/count_tokens", {"model": "coder", "messages": [{"role": "user", "content": "x"}]}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body"), OTHERS)
def test_the_requests_that_are_damaged_below_are_sound(client: TestClient, path: str, body: dict[str, Any]) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text


@pytest.mark.slow
@given(seed=st.integers(0, 2**32), new=JSON)
@settings(SETTINGS, max_examples=300 * FUZZ)
def test_a_damaged_request_of_another_api_is_answered_or_refused(client: TestClient, seed: int, new: Any) -> None:
    random_ = random.Random(seed)
    path, body = random_.choice(OTHERS)
    for _ in range(random_.randint(1, 3)):
        body = _damaged(body, random_, new)
    _check(client, json.dumps(body).encode(), path)


@given(body=JSON)
@settings(SETTINGS, max_examples=150 * FUZZ)
def test_any_json_is_answered_or_refused_with_a_reason(client: TestClient, body: Any) -> None:
    _check(client, json.dumps(body).encode())
    _check(client, json.dumps({**ASK, "metadata": body}).encode())
    _check(client, json.dumps({**ASK, "tools": body, "response_format": body}).encode())


@given(data=st.binary(max_size=300), seed=st.integers(0, 2**32))
@settings(SETTINGS, max_examples=150 * FUZZ)
def test_any_bytes_are_refused_with_a_reason(client: TestClient, data: bytes, seed: int) -> None:
    _check(client, data)
    random_ = random.Random(seed)
    sound = json.dumps(random_.choice(BODIES)).encode()
    place = random_.randrange(len(sound))
    _check(client, sound[:place] + data[:4] + sound[place + random_.randrange(3) :])


@given(name=st.sampled_from(["host", "origin", "authorization", "content-type", "sec-fetch-site"]), value=st.binary())
@settings(SETTINGS, max_examples=100 * FUZZ)
def test_any_header_is_answered_or_refused_with_a_reason(client: TestClient, name: str, value: bytes) -> None:
    _check(client, json.dumps(ASK).encode(), **{name: value})


@given(value=JSON)
@settings(SETTINGS, max_examples=200 * FUZZ)
def test_parsed_values_equal_json_and_contain_nothing_unsafe(value: Any) -> None:
    try:
        read = parsed(json.dumps(value).encode())
    except RequestError:
        return
    assert read == value
    json.dumps(read, allow_nan=False, ensure_ascii=False).encode()
