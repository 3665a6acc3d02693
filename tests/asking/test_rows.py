"""A new row is read as the question that was asked, with what surrounds it, and with nothing of the old answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from journeyman.asking.choosing import Wanted, question_of
from journeyman.asking.rows import COMPLETE, drops_teacher, interaction_of, log_row, outcome_of
from journeyman.config import Config, CurateConfig, DataConfig
from journeyman.records import Interaction, Message, Prediction, ToolCall
from journeyman.redaction.redactor import Redactor
from journeyman.rendering.renderer import Renderer
from journeyman.sources import interactions as own_format
from journeyman.sources.place import Place

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


def row(**changes: Any) -> Interaction:
    usual: dict[str, Any] = {
        "id": "log.jsonl:7",
        "source": "log.jsonl:7",
        "role": "helper",
        "messages": [
            Message(role="system", content="You help."),
            Message(role="user", content="Wie heißt der Fluss? 🛶"),
            Message(role="assistant", content="", tool_calls=[ToolCall(name="look", arguments={"at": 1}, id="c1")]),
            Message(role="tool", content="a map", tool_call_id="c1"),
        ],
        "tools": [TOOL],
        "output": "Der Fluss",
        "provider": "replicate",
        "model": "old",
        "max_tokens": 40,
        "finish_reason": "length",
        "timestamp": "2025-10-01T00:00:00Z",
        "session": "s1",
        "check": {"contains": "Rhein"},
        "extra": {
            "context": {"tenant": "t1"},
            "agent": {"team": "maps"},
            "customer": {"id": 9},
            "messages": ["not this format's"],
            "execution": {"error_details": "limit reached"},
        },
    }
    return Interaction.model_validate({**usual, **changes})


def answered(
    text: str, finish: str = "stop", calls: list[ToolCall] | None = None, old: Interaction | None = None
) -> Any:
    wanted = Wanted(old or row(), "cut", "truncated", "f" * 64, 80)
    made = Prediction(
        id="log.jsonl:7", role="helper", arm="teacher", text=text, calls=calls or [], finish_reason=finish,
        latency_s=1.25, first_token_s=None, prompt_tokens=0, answer_tokens=0,
    )  # fmt: skip
    return interaction_of(wanted, made, "new", "https://api.example.net/v1", "2026-01-01T00:00:00+00:00", Redactor())


def read_back(new: Interaction, group_by: str = "", success_field: str = "") -> Interaction:
    config = Config(curate=CurateConfig(group_by=group_by), data=DataConfig(success_field=success_field))
    line = json.loads(json.dumps(log_row(new, "f" * 64, config)))
    assert own_format.claims(line)
    (made,) = own_format.interactions(line, Place("rows.jsonl:1", "agent"))
    assert isinstance(made, Interaction)
    return made


def test_the_question_is_the_same_and_the_answer_is_new() -> None:
    made = read_back(answered("Der Fluss heißt Rhein."))
    assert question_of(made) == question_of(row())
    assert (made.output, made.finish_reason, made.succeeded) == ("Der Fluss heißt Rhein.", "stop", True)
    assert (made.provider, made.model, made.max_tokens) == ("api.example.net", "new", 80)
    assert (made.session, made.timestamp, made.check) == ("s1", "2025-10-01T00:00:00Z", {"contains": "Rhein"})
    assert made.extra["asked_again"] == {
        "of": "log.jsonl:7", "why": "truncated", "old_model": "replicate/old", "at": "2026-01-01T00:00:00+00:00",
        "model": "new",
    }  # fmt: skip


def test_calls_of_tools_are_kept() -> None:
    made = read_back(answered("", "tool_calls", [ToolCall(name="look", arguments={"at": 2})]))
    assert [(call.name, call.arguments) for call in made.output_calls] == [("look", {"at": 2})]


def test_nothing_of_the_old_answer_is_left() -> None:
    made = read_back(answered("Der Fluss heißt Rhein.", old=row(errors=["limit reached"], succeeded=False)))
    assert "limit reached" not in made.model_dump_json() and not made.errors
    assert "customer" not in made.extra and "messages" not in made.extra


def test_what_curate_groups_by_is_kept() -> None:
    made = read_back(answered("Der Fluss heißt Rhein."), "customer.id")
    assert made.extra["customer"] == {"id": 9}
    assert made.extra["context"] == {"tenant": "t1"} and made.extra["agent"] == {"team": "maps"}


def test_what_says_that_the_old_answer_failed_is_not_kept() -> None:
    old = row(extra={"context": {"tenant": "t1", "judged": {"ok": False, "by": "ada"}}})
    made = read_back(answered("Der Fluss heißt Rhein.", old=old), success_field="context.judged.ok")
    assert made.extra["context"] == {"tenant": "t1", "judged": {"by": "ada"}}


@pytest.mark.parametrize(
    ("text", "finish", "outcome"),
    [
        ("Der Fluss heißt Rhein.", "stop", COMPLETE),
        ("Der Fluss", "length", "truncated"),
        ("", "stop", "empty"),
        ("<think>Rivers are", "stop", "unclosed_reasoning"),
        ("I'm sorry, but I can't help with that.", "stop", "refused"),
        ("", "content_filter", "refused"),
        ("Rhein<|im_end|>", "stop", "control_tokens"),
        ("Rhein\u200b\u202e", "stop", "hidden_text"),
    ],
)
def test_an_answer_is_complete_if_no_rule_finds_fault(text: str, finish: str, outcome: str, renderer: Renderer) -> None:
    old = row(messages=[Message(role="user", content="Which river?")], tools=[])
    assert outcome_of(answered(text, finish, old=old), CurateConfig(), renderer) == outcome


def test_a_teacher_that_curate_drops_is_named_by_its_rule(renderer: Renderer) -> None:
    url = "https://api.example.net/v1"
    assert drops_teacher(row(), "new", url, CurateConfig(), renderer) is None
    for teachers, rule in ((["replicate"], "other_teacher"), (["api.example.net/new"], None)):
        assert drops_teacher(row(), "new", url, CurateConfig(teachers=teachers), renderer) == rule
