"""What the command lines of Codex (0.171.0) and Claude Code (2.1.332) send: fields and headers of their real requests,
with other contents, in a session with a call of a tool."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from conftest import write_tiny_gguf
from fake_engine import BUNDLE, ROLE, FakeEngine, fake_engine
from journeyman.manifests import RolePrompt
from journeyman.serving.app import make_app
from journeyman.serving.keyring import Keys
from journeyman.serving.origin import Door
from test_control_tokens import WITH_TOOLS
from test_dialects import events_of

KEY = "k" * 32
FREE = RolePrompt(kind="free", text="", begins="", ends="", rows=9, distinct=9)
"""Roles of coding agents are trained with each row's own prompt."""
SHELL = {"type": "object", "properties": {"cmd": {"type": "string"}}, "required": ["cmd"]}


def _said(role: str, text: str) -> dict[str, Any]:
    return {"type": "message", "id": f"msg_{role}", "role": role, "content": [{"type": "input_text", "text": text}]}


CODEX: dict[str, Any] = {
    "model": ROLE, "stream": True, "store": False, "parallel_tool_calls": True, "tool_choice": "auto",
    "reasoning": {"summary": "auto"}, "include": ["reasoning.encrypted_content"], "prompt_cache_key": "0a",
    "client_metadata": {"session_id": "0a", "x-codex-window-id": "0a:0", "x-codex-turn-metadata": "{}"},
    "input": [
        _said("developer", "You are a coding agent running in the Codex CLI."), _said("developer", "<permissions>"),
        _said("user", "<environment_context>"), _said("user", "Say hello"),
    ],
    "tools": [
        {"type": "function", "name": "exec_command", "description": "d", "strict": False, "parameters": SHELL},
        {"type": "namespace", "name": "multi_agent_v1", "tools": []},
        {"type": "web_search", "external_web_access": False},
    ],
}  # fmt: skip
CLAUDE: dict[str, Any] = {
    "model": ROLE, "max_tokens": 32000, "stream": True, "thinking": {"type": "adaptive", "display": "omitted"},
    "metadata": {"user_id": '{"session_id": "0a"}'}, "output_config": {"effort": "high"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1;"},
        {"type": "text", "text": "You are a Claude agent.", "cache_control": {"type": "ephemeral"}},
    ],
    "messages": [{"role": "user", "content": [
        {"type": "text", "text": "<system-reminder>\n</system-reminder>\n\n"},
        {"type": "text", "text": "Say hello"},
    ]}, {"role": "system", "content": [
        {"type": "text", "text": "# Environment", "cache_control": {"type": "ephemeral"}},
    ]}],
    "tools": [
        {"name": "Bash", "description": "d", "input_schema": {"$schema": "draft", **SHELL}},
        {"name": "Workflow", "description": "d", "input_schema": {
            "type": "object", "properties": {"script": {"type": "string", "maxLength": 524288}}}},
        {"name": "Placeholder", "description": "d", "input_schema": {"type": "object"}, "defer_loading": True},
    ],
}  # fmt: skip
CLAUDE_HEADERS = {
    "authorization": f"Bearer {KEY}", "anthropic-version": "2023-06-01",
    "anthropic-beta": "claude-code-20250219,effort-2025-11-24",
    "accept": "application/json", "x-stainless-retry-count": "0", "x-stainless-timeout": "600",
    "anthropic-dangerous-direct-browser-access": "true", "x-app": "cli", "x-claude-code-session-id": "0a",
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("base") / "base.gguf", template=WITH_TOOLS)


@pytest.fixture
def engine(base: Path) -> Iterator[FakeEngine]:
    with fake_engine(base) as made:
        yield made


@pytest.fixture
def client(engine: Any) -> Iterator[TestClient]:
    bundle = BUNDLE.model_copy(update={"system_prompts": {}, "prompts": {ROLE: FREE}})
    with TestClient(Door(make_app(bundle, engine), keys=Keys(KEY)), base_url="http://127.0.0.1:8011") as made:
        yield made


def test_codex(client: TestClient, engine: FakeEngine) -> None:
    engine.says, engine.calls, engine.finish = [""], [("c1", "exec_command", ['{"cmd": ', '"ls"}'])], "tool_calls"
    headers = {"authorization": f"Bearer {KEY}", "accept": "text/event-stream", "originator": "codex_exec"}
    answer = client.post("/v1/responses", json=CODEX, headers=headers)
    assert answer.status_code == 200, answer.text
    assert [turn["role"] for turn in engine.asked[-1]["messages"]] == ["system", "system", "user", "user"]
    assert [tool["function"]["name"] for tool in engine.asked[-1]["tools"]] == ["exec_command"]
    ignored = answer.headers["journeyman-ignored"]
    assert "tools[1] (namespace)" in ignored and "tools[2] (web_search)" in ignored and "client_metadata" in ignored
    done = [data["item"] for name, data in events_of(answer.text) if name == "response.output_item.done"]
    assert [(item["type"], item["call_id"], item["arguments"]) for item in done] == [
        ("function_call", "c1", '{"cmd": "ls"}')
    ]
    # The next request sends the items back, with the call's output.
    said = {"type": "output_text", "text": "I look. ", "annotations": [], "logprobs": []}
    done.insert(0, {"type": "message", "status": "completed", "id": "msg_0", "role": "assistant", "content": [said]})
    output = {"type": "function_call_output", "id": "fco_0", "call_id": "c1", "output": "README.md"}
    engine.says, engine.calls, engine.finish = ["Hello."], [], "stop"
    answer = client.post("/v1/responses", json={**CODEX, "input": [*CODEX["input"], *done, output]}, headers=headers)
    assert answer.status_code == 200 and events_of(answer.text)[-1][0] == "response.completed"
    call, result = engine.asked[-1]["messages"][-2:]
    assert call["tool_calls"][0]["function"]["arguments"] == '{"cmd": "ls"}'
    assert result == {"role": "tool", "content": "README.md", "tool_call_id": "c1"}


def test_claude_code(client: TestClient, engine: FakeEngine) -> None:
    assert client.head("/", headers=CLAUDE_HEADERS).status_code == 404, "it asks whether anybody is there"
    engine.says, engine.calls, engine.finish = ["I look."], [("c1", "Bash", ['{"cmd": ', '"ls"}'])], "tool_calls"
    answer = client.post("/v1/messages?beta=true", json=CLAUDE, headers=CLAUDE_HEADERS)
    assert answer.status_code == 200, answer.text
    system, user, further = engine.asked[-1]["messages"]
    assert system["role"] == "system" and system["content"].endswith("You are a Claude agent.")
    script = engine.asked[-1]["tools"][1]["function"]["parameters"]["properties"]["script"]
    assert script == {"type": "string"} and "tools[1] (maxLength above 1000)" in answer.headers["journeyman-ignored"]
    assert further == {"role": "system", "content": "# Environment"}
    assert user["content"].endswith("Say hello") and engine.asked[-1]["max_tokens"] == 512
    events = events_of(answer.text)
    assert [name for name, _ in events][-2:] == ["message_delta", "message_stop"]
    assert events[-2][1]["delta"]["stop_reason"] == "tool_use"
    use = {"type": "tool_use", "id": "c1", "name": "Bash", "input": {"cmd": "ls"}}
    result = {"type": "tool_result", "tool_use_id": "c1", "content": "README.md", "is_error": False}
    said = {"role": "assistant", "content": [{"type": "text", "text": "I look."}, use]}
    turns = [*CLAUDE["messages"], said, {"role": "user", "content": [{**result, "cache_control": {}}]}]
    answer = client.post("/v1/messages?beta=true", json={**CLAUDE, "messages": turns}, headers=CLAUDE_HEADERS)
    assert answer.status_code == 200
    assert engine.asked[-1]["messages"][-1] == {"role": "tool", "content": "README.md", "tool_call_id": "c1"}
    counted = {name: CLAUDE[name] for name in ("model", "system", "messages", "tools")}
    answer = client.post("/v1/messages/count_tokens?beta=true", json=counted, headers=CLAUDE_HEADERS)
    assert answer.json()["input_tokens"] > 5
