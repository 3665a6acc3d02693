"""Serving sends the prompt that training saw, wherever a conversation contains values that are redacted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import write_tiny_gguf
from fake_engine import BUNDLE, ROLE
from journeyman.config import DataConfig
from journeyman.manifests import BundleManifest, RolePrompt
from journeyman.models.opening import open_base
from journeyman.records import Interaction, Message, split_system, system_text
from journeyman.redaction.redactor import Redactor
from journeyman.rendering.template import template_of
from journeyman.serving.dialects.chat import read_request
from journeyman.serving.preparing import conversation_of, differences_of, engine_request, ignored_of
from journeyman.sources.files import parse_line
from journeyman.sources.reader import Reader
from test_control_tokens import WITH_TOOLS

VALUES = ("ann@corp.io", "bob@corp.io", "sue@corp.io", "AKIAQYLPMN5HFIQR7XYZ", "+49 30 901820", "<EMAIL_1>", "x")
text = st.lists(st.sampled_from(VALUES), max_size=3).map(lambda values: "With " + " and ".join((*values, "y")) + ".")
prompt = text.map(lambda said: f"Support of help@corp.io. {said} Be kind and answer.")


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[dict[str, Any]], str]:
    """The turns after the system prompt, the tools and the answer."""
    turns: list[dict[str, Any]] = [{"role": "user", "content": draw(text)}]
    for _ in range(draw(st.integers(0, 2))):
        arguments = json.dumps({"to": draw(text), "deep": [draw(text)]})
        name = draw(st.sampled_from(["c1", "ann@corp.io"]))
        call = {"id": name, "type": "function", "function": {"name": "mail", "arguments": arguments}}
        turns += [
            {"role": "assistant", "content": draw(text), "tool_calls": [call]},
            {"role": "tool", "content": draw(text), "tool_call_id": name},
            {"role": draw(st.sampled_from(["user", "system"])), "content": draw(text)},
            {"role": "user", "content": draw(text)},
        ]
    function = {"name": "mail", "description": draw(text), "parameters": {"type": "object", "properties": {}}}
    return turns, draw(st.sampled_from([[], [{"type": "function", "function": function}]])), draw(text)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Any:
    base = open_base(write_tiny_gguf(tmp_path_factory.mktemp("base") / "base.gguf", template=WITH_TOOLS))
    return template_of(base.tokenizer, Path("base").name)


def _trained(messages: list[dict[str, Any]], tools: list[dict[str, Any]], answer: str) -> Interaction:
    """The row that ingest makes of a logged call."""
    request = {"messages": messages, **({"tools": tools} if tools else {})}
    line = json.dumps({"request": request, "response": {"choices": [{"message": {"content": answer}}]}})
    (row,) = Reader(DataConfig()).records(parse_line(line.encode(), 1), "log")
    assert isinstance(row, Interaction)
    return Redactor().interaction(row)


def _bundle(**changes: Any) -> BundleManifest:
    redact = {"secrets": True, "personal": True, "system_apart": True}
    return BUNDLE.model_copy(update={"system_prompts": {}, "prompts": {}, "redact": redact, **changes})


def _contract(kind: Any, fixed: str = "", begins: str = "", ends: str = "") -> RolePrompt:
    return RolePrompt(kind=kind, text=fixed, begins=begins, ends=ends, rows=9, distinct=9)


def _rendered(template: Any, messages: list[Message], tools: list[dict[str, Any]]) -> str:
    return str(template.render([turn.as_chat() for turn in messages], add_generation_prompt=True, tools=tools))


def _served(template: Any, bundle: BundleManifest, messages: Any, tools: Any) -> tuple[str, Any]:
    """The prompt that the engine renders, and the values in it."""
    body = {"model": ROLE, "messages": messages, **({"tools": tools} if tools else {})}
    asked = read_request(body, [ROLE], 512)
    seen = conversation_of(bundle)
    request = engine_request(bundle, asked, seen)
    turns = [dict(turn) for turn in request["messages"]]
    for turn in turns:
        if "tool_calls" in turn:
            turn["tool_calls"] = json.loads(json.dumps(turn["tool_calls"]))
            for call in turn["tool_calls"]:
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return str(template.render(turns, add_generation_prompt=True, tools=request.get("tools", []))), seen


@given(prompt, conversations())
@settings(max_examples=150, deadline=None)
def test_a_prompt_of_its_own_is_served_as_it_was_trained(template: Any, system: str, talk: Any) -> None:
    turns, tools, answer = talk
    messages = [{"role": "system", "content": system}, *turns]
    row = _trained(messages, tools, answer)
    bundle = _bundle(
        prompts={ROLE: _contract("templated", "", "Support of <SYSTEM_EMAIL_1>. ", " Be kind and answer.")}
    )
    assert differences_of(bundle, ROLE, messages) == ()
    text, seen = _served(template, bundle, messages, tools)
    assert text == _rendered(template, row.messages, row.tools)
    assert seen.restore(system_text(row.messages)) == system, "an answer may repeat it"


@given(prompt, conversations(), conversations(), st.sampled_from(["raw", "as trained", "none", "another"]))
@settings(max_examples=250, deadline=None)
def test_a_fixed_prompt_is_served_as_it_was_trained(
    template: Any, system: str, first: Any, talk: Any, sent: str
) -> None:
    """The fixed prompt is that of the first conversation, and serves the second."""
    if any(value in json.dumps(first[0]) for value in VALUES[:5] if value in system) or "help@" in json.dumps(first):
        first = ([{"role": "user", "content": "Hi"}], [], "ok")  # most rows say nothing of what their prompt says
    fixed = system_text(_trained([{"role": "system", "content": system}, *first[0]], first[1], first[2]).messages)
    assert "help@" not in fixed and "<SYSTEM_EMAIL_1>" in fixed
    bundle = _bundle(system_prompts={ROLE: fixed}, prompts={ROLE: _contract("fixed", fixed)})
    turns, tools, answer = talk
    row = _trained([{"role": "system", "content": system}, *turns], tools, answer)
    trained = [Message(role="system", content=fixed), *split_system(row.messages)[1]]
    given_ = {"raw": system, "as trained": fixed, "another": "Mail zoe@corp.io.", "none": ""}[sent]
    messages = [{"role": "system", "content": given_}, *turns] if given_ else turns
    assert differences_of(bundle, ROLE, messages) == (("system_prompt",) if sent == "another" else ())
    ignored = ignored_of(bundle, read_request({"model": ROLE, "messages": messages}, [ROLE], 512))
    assert ("messages[0]" in str(ignored)) == (sent == "another")
    text, seen = _served(template, bundle, messages, tools)
    shared = any(value in system for value in VALUES[:5] if value in json.dumps([turns, tools]))
    later = any(turn["role"] == "system" for turn in turns)
    if sent == "raw" or not (shared or later):
        assert text == _rendered(template, trained, row.tools)
    if sent == "raw":
        assert seen.restore(fixed) == system


def test_a_placeholder_of_the_trained_prompt_is_no_value_of_the_request() -> None:
    turns = [{"role": "user", "content": "mail bob@corp.io"}]
    for apart, fixed in ((True, "Contact <SYSTEM_EMAIL_1>."), (False, "Contact <EMAIL_1>.")):
        redact = {"secrets": True, "personal": True, "system_apart": apart}
        bundle = _bundle(system_prompts={ROLE: fixed}, redact=redact)
        contact = fixed.removeprefix("Contact ").removesuffix(".")
        for lead in ([], [{"role": "system", "content": "Contact ann@corp.io."}]):
            seen = conversation_of(bundle)
            asked = read_request({"model": ROLE, "messages": [*lead, *turns]}, [ROLE], 512)
            engine_request(bundle, asked, seen)
            said = seen.restore(f"Ask {contact}")
            assert said == ("Ask ann@corp.io" if lead else f"Ask {contact}"), "never bob@corp.io"


def test_a_bundle_of_an_older_version_is_served_with_its_own_numbers() -> None:
    old = _bundle(prompts={ROLE: _contract("free")}, redact={"secrets": True, "personal": True})
    messages = [{"role": "system", "content": "For ann@corp.io"}, {"role": "user", "content": "mail bob@corp.io"}]
    asked = read_request({"model": ROLE, "messages": messages}, [ROLE], 512)
    served = engine_request(old, asked, conversation_of(old))["messages"]
    assert [turn["content"] for turn in served] == ["For <EMAIL_2>", "mail <EMAIL_1>"], "as its ingest numbered them"
