"""The server: whom it answers, what it refuses with which error, and that nothing about the machine leaks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from conftest import write_tiny_gguf
from fake_engine import ASK, BUNDLE, PATH, ROLE, FakeEngine, fake_engine
from journeyman.api.access import key_of
from journeyman.errors import InputError, UsageError
from journeyman.inference.engines import running_engine
from journeyman.models.gguf_file import GgufFile
from journeyman.protocols import EngineSettings
from journeyman.serving.app import make_app
from journeyman.serving.bodies import MAX_DEPTH, parsed
from journeyman.serving.errors import RequestError, without_paths
from journeyman.serving.keyring import Keys
from journeyman.serving.origin import Door, name_of
from journeyman.serving.prompts import PromptCheck
from journeyman.serving.schema_limits.limits import MAX_CHOICES
from test_control_tokens import ATTACK, WITH_TOOLS

CHAT = "/v1/chat/completions"
SELF = "http://127.0.0.1:8011"
KEY = "k" * 32
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("base") / "base.gguf", template=WITH_TOOLS)


@pytest.fixture(scope="module")
def engine(base: Path) -> Iterator[FakeEngine]:
    with fake_engine(base) as made:
        yield made


@pytest.fixture(scope="module")
def client(engine: Any) -> Iterator[TestClient]:
    with TestClient(Door(make_app(BUNDLE, engine)), base_url=SELF) as made:
        yield made


def refused(response: Any, status: int = 400) -> dict[str, Any]:
    """The error object of a refusal."""
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"} and error["message"] and error["type"] and error["code"]
    assert "/home" not in response.text and "\x1b" not in response.text
    return error


def ask(client: TestClient, **changes: Any) -> Any:
    data = json.dumps({**ASK, **changes})  # escaped to ASCII, including lone surrogates
    return client.post(CHAT, content=data, headers={"content-type": "application/json"})


# --- access control ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "open_"),
    [
        ("127.0.0.1:8011", True), ("LOCALHOST", True), ("[::1]:9", True), ("[0:0::1]:9", True), ("proxy.lan:443", True),
        ("evil.example", False), ("127.0.0.1.evil.example:8011", False), ("localhost:evil", False), ("", False),
        ("evil.example:127.0.0.1", False), ("[::1", False), ("127.0.0.1@evil.example", False), ("::1:80", False),
    ],
)  # fmt: skip
def test_only_known_hosts_are_answered(engine: Any, host: str, open_: bool) -> None:
    with TestClient(Door(make_app(BUNDLE, engine), ["proxy.lan"]), base_url=SELF) as client:
        answer = client.get("/v1/models", headers={"host": host})
        if open_:
            assert answer.status_code == 200
        else:
            assert refused(answer, 403)["param"] == "host"


def test_pages_of_other_origins_are_not_answered(client: TestClient, engine: FakeEngine) -> None:
    before = len(engine.asked)
    for headers in (
        {"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://localhost:3000"},
        {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"},
    ):  # fmt: skip
        refused(client.post(CHAT, json=ASK, headers=headers), 403)
        refused(client.get("/v1/models", headers=headers), 403)
    assert len(engine.asked) == before
    own = client.post(CHAT, json=ASK, headers={"origin": SELF, "sec-fetch-site": "same-origin"})
    assert own.status_code == 200
    assert not any(name.startswith("access-control") for name in own.headers)
    assert refused(client.options(CHAT, headers={"origin": SELF}), 405)["code"] == "method_not_allowed"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_requests_without_a_preflight_are_refused(client: TestClient, engine: FakeEngine, kind: str) -> None:
    before = len(engine.asked)
    refused(client.post(CHAT, content=json.dumps(ASK), headers={"content-type": kind}), 415)
    assert len(engine.asked) == before
    fine = client.post(CHAT, content=json.dumps(ASK), headers={"content-type": "application/json; charset=utf-8"})
    assert fine.status_code == 200


def test_a_key_is_required_on_loopback_too(engine: Any) -> None:
    with TestClient(Door(make_app(BUNDLE, engine), keys=Keys(KEY)), base_url=SELF) as client:
        for wrong in ({}, {"authorization": KEY}, {"authorization": "Bearer "}, {"authorization": f"Bearer {KEY}x"},
                      {"authorization": "Bearer \xe9"}, {"authorization": f"Basic {KEY}"}):  # fmt: skip
            headers = {name: value.encode("latin-1") for name, value in wrong.items()}
            answer = client.post(CHAT, json=ASK, headers=headers)
            assert refused(answer, 401)["code"] == "invalid_api_key" and answer.headers["www-authenticate"] == "Bearer"
            assert KEY not in answer.text
        assert client.post(CHAT, json=ASK, headers={"authorization": f"bearer {KEY}"}).status_code == 200
        assert client.get("/health").json() == {"status": "ok"}


def test_a_missing_or_weak_key_is_refused_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOD", KEY)
    monkeypatch.setenv("WEAK", "hunter2")
    assert key_of("") is None and key_of("GOOD") == KEY
    for name in ("WEAK", "NONE_SUCH", KEY):
        with pytest.raises(UsageError) as told:
            key_of(name)
        assert name not in str(told.value) and "hunter2" not in str(told.value)


def test_the_name_in_a_host_header() -> None:
    names = {"a:1": "a", "a": "a", "[::1]:80": "::1", "[::1]": "::1", "a:b": "", ":80": "", "[x]:1": "", "a:²": ""}
    assert {host: name_of(host) for host in names} == names


# --- routes -----------------------------------------------------------------------------------------


def test_unknown_routes_and_methods_answer_error_objects(client: TestClient) -> None:
    for path in ("/", "/v1/embeddings", "/v1/models/", "/v1/chat/completions/", "/v1/models/poet", "/slots"):
        refused(client.get(path, follow_redirects=False), 404)
    assert refused(client.get(CHAT), 405)["type"] == "invalid_request_error"
    refused(client.delete("/v1/models", headers={"content-type": "application/json"}), 405)


def test_a_served_role_is_found_by_its_name(client: TestClient) -> None:
    listed = client.get("/v1/models").json()["data"]
    assert [client.get(f"/v1/models/{one['id']}").json() for one in listed] == listed and len(listed) == 2
    assert listed[0].keys() == {"id", "object", "created", "owned_by"}


# --- bodies -----------------------------------------------------------------------------------------

BODIES: dict[str, tuple[bytes, str | None]] = {
    "no JSON": (b"{", None),
    "not UTF-8": (b'{"model": "\xff"}', None),
    "UTF-16": (json.dumps(ASK).encode("utf-16"), None),
    "a list": (b"[]", None),
    "a million levels": (b"[" * 1_000_000, None),
    "a million levels, closed": (b"[" * 1_000_000 + b"]" * 1_000_000, None),
    "a million objects": (b'{"a":' * 800_000, None),
    "500 levels in a field": (b'{"metadata":' + b"[" * 500 + b"]" * 500 + b"}", None),
    "NaN": (b'{"temperature": NaN}', "temperature"),
    "infinity": (b'{"metadata": {"a": [1, -Infinity]}}', "metadata.a[1]"),
    "a float that overflows": (b'{"top_p": 1e999}', "top_p"),
    "5,000 digits": (b'{"seed": ' + b"9" * 5000 + b"}", "seed"),
    "a lone surrogate": (b'{"messages": [{"role": "user", "content": "a\\ud800b"}]}', "messages[0].content"),
    "a surrogate in a name": (b'{"\\udc00": 1}', None),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_not_valid_json_is_a_400(client: TestClient, name: str) -> None:
    body, param = BODIES[name]
    assert refused(client.post(CHAT, content=body, headers={"content-type": "application/json"}))["param"] == param


def test_depth_is_cheap_to_count_and_ignores_strings() -> None:
    begin = time.process_time()
    for deep in (b"[" * (4 << 20), b'{"a":' * 800_000, b'"' + b"\\" * (4 << 20), b'["\\"[",' * 500_000):
        with pytest.raises(RequestError):
            parsed(deep)
    assert time.process_time() - begin < 5, "tens of milliseconds each; parsed or walked it would be minutes or a crash"
    text = json.dumps(["[" * 1000 + '\\"' + "{" * 1000, "\\"])
    assert parsed(text.encode()) == json.loads(text)
    levels = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert parsed(levels) and parsed(b'"\xf0\x9f\x98\x80 \\ud83d\\ude00"') == "😀 😀"
    with pytest.raises(RequestError, match="nested more than 64 levels deep"):
        parsed(b"[" + levels + b"]")


def test_a_body_over_the_limit_is_a_413(client: TestClient) -> None:
    headers = {"content-type": "application/json"}
    assert refused(client.post(CHAT, content=b" " * (5 << 20), headers=headers), 413)["code"] == "request_too_large"


# --- fields -----------------------------------------------------------------------------------------


def _messages(*turns: Any) -> dict[str, Any]:
    return {"messages": [*turns, {"role": "user", "content": "x"}]}


def _called(**changes: Any) -> dict[str, Any]:
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}", **changes}}
    return _messages({"role": "assistant", "content": None, "tool_calls": [call]})


def _tool(**function: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "look", **function}}]}


def _format(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}}


def _nested(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"items": value}
    return value


def _doubled(levels: int) -> dict[str, Any]:
    """Each definition refers to the next one twice, so the expanded size doubles with every level."""
    made = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    return {"$defs": {**made, f"d{levels}": {"type": "string"}}, "$ref": "#/$defs/d0"}


SCHEMA = "response_format.json_schema.schema"
FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"model": 5}, "model"), ({"model": None}, "model"), ({"model": ["coder"]}, "model"), ({"model": {}}, "model"),
    ({"messages": []}, "messages"), ({"messages": "x"}, "messages"), ({"messages": None}, "messages"),
    ({"messages": ["x"]}, "messages[0]"), ({"messages": [ASK["messages"][0]] * 2001}, "messages"),
    ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
    ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
    (_messages({"role": "wizard", "content": "x"}), "messages[0].role"),
    (_messages({"content": "x"}), "messages[0].role"),
    (_messages({"role": ["user"], "content": "x"}), "messages[0].role"),
    (_messages({"role": "user"}), "messages[0].content"),
    (_messages({"role": "user", "content": 5}), "messages[0].content"),
    (_messages({"role": "user", "content": {"text": "x"}}), "messages[0].content"),
    (_messages({"role": "user", "content": "x", "name": 5}), "messages[0].name"),
    (_messages({"role": "user", "content": "x", "tool_call_id": "c"}), "messages[0].tool_call_id"),
    (_messages({"role": "user", "content": "x", "tool_calls": []}), "messages[0].tool_calls"),
    (_messages({"role": "assistant", "content": None}), "messages[0].content"),
    (_messages({"role": "assistant", "content": None, "audio": {"id": "x"}}), "messages[0].audio"),
    (_messages({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}),
     "messages[0].content[0].type"),
    (_messages({"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "input_audio"}]}),
     "messages[0].content[1].type"),
    (_messages({"role": "user", "content": [{"type": "text", "text": 5}]}), "messages[0].content[0].text"),
    (_messages({"role": "user", "content": []}), "messages[0].content"),
    (_messages({"role": "assistant", "tool_calls": "x"}), "messages[0].tool_calls"),
    (_messages({"role": "assistant", "tool_calls": [5]}), "messages[0].tool_calls[0]"),
    (_called(name=""), "messages[0].tool_calls[0].function.name"),
    (_called(arguments={}), "messages[0].tool_calls[0].function.arguments"),
    (_called(arguments="{"), "messages[0].tool_calls[0].function.arguments"),
    (_called(arguments="[" * 100_000), "messages[0].tool_calls[0].function.arguments"),
    (_called(arguments='{"a": "\\ud800"}'), "messages[0].tool_calls[0].function.arguments.a"),
    ({"tools": {}}, "tools"), ({"tools": [[[[]]]]}, "tools[0]"), ({"tools": [{}]}, "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "tools[0].function"), (_tool(name=None), "tools[0].function.name"),
    (_tool(parameters=[]), "tools[0].function.parameters"), (_tool(parameters="x"), "tools[0].function.parameters"),
    (_tool(description=5), "tools[0].function.description"),
    (_tool(parameters={"enum": list(range(MAX_CHOICES + 1))}), "tools[0].function.parameters"),
    ({"tools": TOOLS * 129}, "tools"),
    ({"tool_choice": "auto"}, "tool_choice"), ({"tools": TOOLS, "tool_choice": "some"}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "go"}}}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "any"}}}, "tool_choice"),
     ({"tools": TOOLS, "parallel_tool_calls": 1}, "parallel_tool_calls"),
    ({"n": 9}, "n"), ({"n": 0}, "n"), ({"n": True}, "n"), ({"n": "1"}, "n"),
    ({"temperature": "0"}, "temperature"), ({"temperature": -1}, "temperature"), ({"temperature": True}, "temperature"),
    ({"temperature": 10**30}, "temperature"), ({"top_p": 2}, "top_p"), ({"presence_penalty": 3}, "presence_penalty"),
    ({"max_tokens": 0}, "max_tokens"), ({"max_tokens": -1}, "max_tokens"), ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_tokens": 513}, "max_tokens"), ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"max_tokens": 2, "max_completion_tokens": 2}, "max_tokens"),
    ({"stop": [""]}, "stop[0]"), ({"stop": ""}, "stop"), ({"stop": [5]}, "stop[0]"), ({"stop": ["a"] * 17}, "stop"),
    ({"seed": 1.5}, "seed"), ({"seed": "1"}, "seed"), ({"seed": 1 << 63}, "seed"),
    ({"logprobs": 5}, "logprobs"), ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 49152}, "top_logprobs"), ({"top_logprobs": 5}, "top_logprobs"),
    ({"stream": "yes"}, "stream"), ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"response_format": "json"}, "response_format"), ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}}, SCHEMA),
    (_format(5), SCHEMA), (_format({"enum": [f"v{n}" for n in range(8000)]}), SCHEMA),
    (_format({"anyOf": [{"const": n} for n in range(501)]}), SCHEMA), (_format({"const": "a" * 40_000}), SCHEMA),
    (_format({"description": "a" * 140_000}), SCHEMA), (_format(_doubled(30)), SCHEMA),
    (_format(_doubled(400)), SCHEMA),
    (_format({"properties": {f"p{n}": {"type": "string"} for n in range(201)}}), SCHEMA),
    (_format({"anyOf": [{"type": "integer", "minimum": n} for n in range(30)]}), SCHEMA),
    (_format({"items": {"pattern": "a" * 1001}}), SCHEMA), (_format({"minLength": 10**6}), f"{SCHEMA}.minLength"),
    (_format({"properties": {"a": {"maxItems": -1}}}), f"{SCHEMA}.properties.a.maxItems"),
    ({"response_format": {"type": "json_object"}, "tools": TOOLS}, "response_format"),
    ({"logit_bias": {"5": 1}}, "logit_bias"), ({"modalities": ["audio"]}, "modalities"),
    ({"functions": []}, "functions"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "param"), FAULTS, ids=[f"{n} {param}" for n, (_, param) in enumerate(FAULTS)])
def test_a_clients_fault_is_a_400_that_names_the_field(
    client: TestClient, engine: FakeEngine, changes: dict[str, Any], param: str
) -> None:
    before = len(engine.asked)
    answer = ask(client, **changes)
    error = refused(answer)
    assert error["param"] == param and param.split("[")[0].split(".")[0] in error["message"]
    assert len(engine.asked) == before and len(answer.content) < 2000


def test_a_schema_nested_too_deep_is_refused_before_it_is_read(client: TestClient) -> None:
    assert "nested" in refused(ask(client, **_format(_nested(70))))["message"]
    assert ask(client, **_format(_nested(50))).status_code == 200


def test_an_unknown_role_is_a_404(client: TestClient) -> None:
    error = refused(ask(client, model="p\x1b[31moet"), 404)
    assert error["param"] == "model" and error["code"] == "model_not_found" and "poet" not in error["message"]


SOUND: list[dict[str, Any]] = [
    {"temperature": None, "stop": None, "n": None, "tools": None, "response_format": None, "logit_bias": None},
    {"temperature": 1, "top_p": 0.5, "seed": -5, "max_completion_tokens": 512, "stop": ["a", "b"], "n": 1},
    {"logprobs": True, "top_logprobs": 20, "frequency_penalty": -2, "modalities": ["text"], "logit_bias": {}},
    {"tools": TOOLS, "tool_choice": "auto", "parallel_tool_calls": False}, {"tools": TOOLS, "tool_choice": "none"},
    {"response_format": {"type": "text"}, "tools": TOOLS}, {"response_format": {"type": "json_object"}}, {"tools": []},
    _format({"enum": list(range(MAX_CHOICES))}), {"stop": []}, _format(_doubled(6)),
    _format({"$defs": {"t": {"properties": {key: {"$ref": "#/$defs/t"} for key in "lr"}}}, "$ref": "#/$defs/t"}),
    _format({"properties": {"maxItems": {"type": "string"}, "enum": {"type": ["string", "null"]}}}),
    {**_called(), "tools": TOOLS}, {**_called(arguments=""), "tools": TOOLS},
    _messages({"role": "assistant", "content": "a", "refusal": None, "annotations": [], "tool_calls": None}),
    _messages({"role": "tool", "content": [{"type": "text", "text": "a"}], "tool_call_id": "c"}),
]  # fmt: skip


@pytest.mark.parametrize("changes", SOUND)
def test_what_clients_of_openai_send_is_served(client: TestClient, changes: dict[str, Any]) -> None:
    answer = ask(client, **changes)
    assert answer.status_code == 200 and "journeyman-ignored" not in answer.headers, answer.text


def test_nothing_is_ignored_silently(client: TestClient, engine: FakeEngine) -> None:
    said = {"role": "assistant", "content": "a", "reasoning_content": "hm"}
    lie = {"role": "developer", "content": "Lie."}
    answer = ask(client, user="u", metadata={"a": "b"}, store=False, **_messages(lie, said), **_tool(strict=True))
    assert answer.headers["journeyman-ignored"] == (
        "user, metadata, store, messages.reasoning_content, tools.strict, messages[0]"
    )
    asked = engine.asked[-1]
    assert asked.keys() == {"messages", "tools", "max_tokens", "temperature", "lora"}
    assert [turn["content"] for turn in asked["messages"]] == ["You are a coder.", "a", "x"]


UNKNOWN: list[tuple[dict[str, Any], str]] = [
    (_messages({"role": "user", "content": "x", "mood": 1}), "messages.mood"),
    (_messages({"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {}}]}),
     "messages.content.cache_control"),
    (_tool(extra=5), "tools.function.extra"), ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
    ({"cache_prompt": True}, "cache_prompt"), ({"lora": []}, "lora"), ({"temprature": 0.5}, "temprature"),
    ({"verbose": True}, "verbose"), ({"\r\nSet-Cookie: a\u00e9": 1}, "\\r\\nSet-Cookie: a\\xe9"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "name"), UNKNOWN)
def test_unknown_fields_are_named_and_never_reach_the_engine(
    client: TestClient, engine: FakeEngine, changes: dict[str, Any], name: str
) -> None:
    answer = ask(client, **changes)
    assert answer.status_code == 200 and answer.headers["journeyman-ignored"] == name
    asked = json.dumps(engine.asked[-1])
    assert not [
        word for word in ("mood", "extra", "cache_", "temprature", "verbose", "Cookie", '"x":') if word in asked
    ]
    assert engine.asked[-1]["lora"] == [], "the engine's field is ours"


def test_many_ignored_fields_are_counted(client: TestClient) -> None:
    named = ask(client, **{f"x{number}": 1 for number in range(3000)}).headers["journeyman-ignored"]
    assert named.endswith("x19, and 2980 more")


def test_a_tool_choice_shows_the_model_what_it_may_call(client: TestClient, engine: FakeEngine) -> None:
    go = {"type": "function", "function": {"name": "go"}}
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [go]}}
    for choice, mode, shown in (
        ("required", "required", ["look", "go"]), (go, "required", ["go"]), (allowed, "auto", ["go"]),
    ):  # fmt: skip
        answer = ask(client, tools=[*TOOLS, go], tool_choice=choice)
        asked = engine.asked[-1]
        assert [tool["function"]["name"] for tool in asked["tools"]] == shown
        assert asked["tool_choice"] == ("none" if mode == "required" else mode), "a required call is asked for as JSON"
        assert ("response_format" in asked) == (mode == "required")
        if mode == "auto":
            assert answer.headers["journeyman-ignored"] == "tools that tool_choice excludes"


def test_an_answer_without_the_required_call_is_an_error(client: TestClient) -> None:
    """The fake engine answers with text."""
    error = refused(ask(client, tools=TOOLS, tool_choice="required"), 502)
    assert error["code"] == "no_tool_call"
    streamed = ask(client, tools=TOOLS, tool_choice="required", stream=True)
    assert "[DONE]" not in streamed.text and "no tool call" in streamed.text


def test_defaults_come_from_the_bundle_and_parts_are_joined_as_in_ingest(
    client: TestClient, engine: FakeEngine
) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert ask(client, temperature=None, messages=[{"role": "user", "content": parts}]).status_code == 200
    asked = engine.asked[-1]
    assert asked["temperature"] == 0.0 and asked["max_tokens"] == 8 and asked["messages"][-1]["content"] == "ab"


# --- control tokens and the template ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        (_messages({"role": "user", "content": ATTACK}), "messages[0].content"),
        (_messages({"role": "user", "content": [{"type": "text", "text": "<|im_"}, {"type": "text", "text": "end|>"}]}),
         "messages[0].content"),
        (_messages({"role": "user", "content": "x", "name": ATTACK}), "messages[0].name"),
        (_messages({"role": "system", "content": ATTACK}), "messages[0].content"),
        ({**_called(arguments='{"a": "\\u003c|im_end|>"}'), "tools": TOOLS},
         "messages[0].tool_calls[0].function.arguments.a"),
        (_tool(description=ATTACK), "tools[0].function.description"),
        (_tool(parameters={"properties": {ATTACK: {}}}), "tools[0].function.parameters.properties"),
    ],
)  # fmt: skip
def test_a_control_token_in_a_request_is_a_400_that_names_it(
    client: TestClient, changes: dict[str, Any], param: str
) -> None:
    error = refused(ask(client, **changes))
    assert (error["param"], error["code"]) == (param, "control_token") and "<|im_end|>" in error["message"]


def test_a_bundle_whose_prompt_contains_a_control_token_is_not_served(engine: Any) -> None:
    bundle = BUNDLE.model_copy(update={"system_prompts": {ROLE: ATTACK}})
    with pytest.raises(InputError, match=r"system prompt of coder contains the control token <\|im_end\|>"):
        make_app(bundle, engine)


def test_what_the_template_refuses_or_omits_is_a_400(engine: Any, tmp_path: Path) -> None:
    template = (
        "{% if messages | length > 2 %}{{ raise_exception('two turns at most') }}{% endif %}{{ messages[0].content }}"
    )
    prompts = PromptCheck(GgufFile(write_tiny_gguf(tmp_path / "base.gguf", template=template)))
    with TestClient(make_app(BUNDLE, engine, prompts)) as client:
        error = refused(ask(client, tools=TOOLS))
        assert error["param"] == "tools" and "'look'" in error["message"]
        assert "two turns at most" in refused(ask(client, **_messages(ASK["messages"][0])))["message"]  # type: ignore[index]


# --- responses --------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["x", "mail amy@corp.io"])
def test_answers_and_chunks_carry_the_role_and_no_path(client: TestClient, content: str) -> None:
    asked = {"messages": [{"role": "user", "content": content}]}
    whole, streamed = ask(client, **asked), ask(client, **asked, stream=True)
    chunks = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: {")]
    assert chunks and {one["model"] for one in (whole.json(), *chunks)} == {ROLE}
    assert streamed.text.endswith("data: [DONE]\n\n") and streamed.headers["content-type"].startswith(
        "text/event-stream"
    )
    for answer in (whole, streamed):
        assert "someone" not in answer.text and "someone" not in str(answer.headers)


@pytest.mark.parametrize("stream", [False, True])
def test_an_address_is_hidden_from_the_engine_and_restored_in_the_answer(
    client: TestClient, engine: FakeEngine, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "says", ["Wrote to <EM", "AIL_1", ">, not to <EMAIL_2>", ". <EMA"])
    answer = ask(client, messages=[{"role": "user", "content": "mail amy@corp.io"}], stream=stream)
    assert engine.asked[-1]["messages"][-1]["content"] == "mail <EMAIL_1>"
    if stream:
        events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
        assert len(events) == 4, "a chunk of the engine's is a chunk of ours"
        said = "".join(event["choices"][0]["delta"]["content"] for event in events)
    else:
        said = answer.json()["choices"][0]["message"]["content"]
    assert said == "Wrote to amy@corp.io, not to <EMAIL_2>. <EMA"


@pytest.mark.parametrize(("status", "told"), [(400, 400), (422, 400), (500, 502), (503, 503), (429, 503)])
def test_an_error_of_the_engine_loses_its_paths_and_its_length(
    client: TestClient, engine: FakeEngine, status: int, told: int
) -> None:
    engine.fails = status, f"cannot read {PATH}: \x1b[31mno " + "x" * 100_000
    try:
        for stream in (False, True):
            answer = ask(client, stream=stream)
            assert "cannot read [path]: \\x1b[31mno" in refused(answer, told)["message"] and len(answer.text) < 1000
    finally:
        engine.fails = None


@pytest.mark.parametrize("status", [401, 403, 404, 407])
def test_what_the_engine_says_about_this_servers_key_or_address_is_no_fault_of_the_client(
    client: TestClient, engine: FakeEngine, status: int
) -> None:
    engine.fails = status, "Incorrect API key provided: sk-secret"
    try:
        for stream in (False, True):
            answer = ask(client, stream=stream)
            assert str(status) in refused(answer, 502)["message"] and "sk-secret" not in answer.text
    finally:
        engine.fails = None


def test_paths_are_taken_out_and_nothing_else() -> None:
    said = "open '/srv/my models/x.gguf': at #/$defs/a of http://127.0.0.1/v1 in ~/x.bin and and/or 3/4"
    assert (
        without_paths(said)
        == "open '[path] models/x.gguf': at #/$defs/a of http://127.0.0.1/v1 in [path] and and/or 3/4"
    )


# --- the real engine --------------------------------------------------------------------------------


def test_the_real_engine_reads_a_request_as_training_does(embedded: GgufFile, renderer: Any) -> None:
    """Compared by token ids: a request's control tokens come only from the template; hostile requests get no answer."""
    bundle = BUNDLE.model_copy(update={"redact": {}})
    names, kinds = (embedded.metadata[f"tokenizer.ggml.{name}"] for name in ("tokens", "token_type"))
    with (
        running_engine(EngineSettings(embedded.path, {}, 512, 1, 0.0)) as engine,
        TestClient(Door(make_app(bundle, engine)), base_url=SELF) as client,
    ):
        from journeyman.records import Message

        asked = [Message(role="system", content="You are a coder."), Message(role="user", content="a < b | c > d")]
        ids = engine.prompt_ids(asked)
        assert ids == renderer.prompt_ids(asked)
        turns = ["<|im_start|>", "<|im_end|>"]
        assert [names[one] for one in ids if kinds[one] != 1] == [*turns, *turns, "<|im_start|>"]
        hostile = [asked[0], Message(role="user", content=ATTACK)]
        assert sum(kinds[one] != 1 for one in engine.prompt_ids(hostile)) == 7, "the engine would take it as two more"

        refused(ask(client, messages=[hostile[1].as_openai()]))
        assert refused(ask(client, tools=TOOLS))["param"] == "tools", "the base's template knows none"
        too_long = refused(ask(client, messages=[{"role": "user", "content": "a b c d " * 400}]))
        assert too_long["code"] == "context_length_exceeded"
        count = len(engine.prompt_ids([asked[0], Message(role="user", content="a b c d " * 400)]))
        assert f"{count} tokens" in too_long["message"] and "512 tokens" in too_long["message"]
        bad = refused(ask(client, **_format({"properties": {"a": True}})))
        assert "schema must be an object" in bad["message"]
        for stream in (False, True):
            answer = ask(client, max_tokens=3, stream=stream)
            assert (
                answer.status_code == 200
                and ".gguf" not in answer.text
                and f'"model": "{ROLE}"' in answer.text.replace('"model":"', '"model": "')
            )
