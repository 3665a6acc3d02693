"""Rules that look at where a turn stands: questions, refusals, signs and reasoning that belong where they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import write_tiny_gguf
from journeyman import reasoning
from journeyman.config import Config
from journeyman.curation.rules import RULES, Candidate
from journeyman.errors import InputError
from journeyman.models.gguf_file import GgufFile
from journeyman.records import Interaction, Message, ToolCall
from journeyman.rendering.renderer import Renderer
from journeyman.sources.fields import NotAnInteraction
from journeyman.sources.files import parse_line
from journeyman.sources.openai_finetune import interactions
from journeyman.sources.place import Place

QWEN3 = (
    "{%- for t in tools or [] %}{{ t | tojson }}{% endfor %}"
    "{%- for m in messages %}"
    "{%- if m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content }}\n</tool_response><|im_end|>\n"
    "{%- else %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{%- if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}"
    "{%- for c in m.tool_calls or [] %}<tool_call>\n{{ c.function | tojson }}\n</tool_call>{% endfor %}<|im_end|>\n"
    "{%- endif %}{%- endfor %}{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FORGETFUL = (
    "{%- for m in messages %}{%- if m.role != 'system' or loop.first %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "<|im_end|>\n{% endif %}{%- endfor %}{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def renderer(tiny_gguf: Path) -> Renderer:
    return Renderer(GgufFile(tiny_gguf))


def row(answer: str, asked: str = "Cancel my order.", system: str = "", **changes: Any) -> Interaction:
    turns = [Message(role="system", content=system)] if system else []
    turns = [*turns, *changes.pop("before", []), Message(role="user", content=asked)]
    return Interaction(id="l:1", source="l:1", role="clerk", messages=turns, output=answer, **changes)


def found(renderer: Renderer, one: Interaction) -> set[str]:
    seen = Candidate(one, Config().curate, renderer)
    return {rule.__name__ for rule in RULES if rule(seen)}


ASKS = "Could you please provide your user id?"


def test_a_question_instead_of_an_answer_is_found(renderer: Renderer) -> None:
    assert found(renderer, row(ASKS)) == {"asks_back"}
    assert found(renderer, row(ASKS, system="You write code. Identify issues and gather facts.")) == {"asks_back"}


@pytest.mark.parametrize(
    "changes",
    [
        {"followed_by": "user"},
        {"system": "Ask for the order id before you change anything."},
        {"tools": [{"type": "function", "function": {"name": "cancel", "parameters": {}}}]},
        {"before": [Message(role="user", content="Hi"), Message(role="assistant", content="Hello.")]},
    ],
    ids=["answered", "told to", "tools", "later turn"],
)
def test_a_question_in_a_dialogue_is_a_turn_like_any_other(renderer: Renderer, changes: dict[str, Any]) -> None:
    assert found(renderer, row(ASKS, **changes)) == set()


def test_who_speaks_next_is_read_from_the_conversation() -> None:
    turns = [("user", "Cancel it."), ("assistant", ASKS), ("user", "U-7"), ("assistant", "Done.")]
    line = json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]}).encode()
    value = parse_line(line, 1).value
    assert value is not None
    read = [one for one in interactions(value, Place("l:1", "clerk")) if not isinstance(one, NotAnInteraction)]
    assert [one.followed_by for one in read] == ["user", None]


REFUSES = "I'm sorry, I cannot cancel this order."


def test_a_refusal_is_dropped_unless_something_explains_it(renderer: Renderer) -> None:
    assert found(renderer, row(REFUSES)) == {"refused"}
    policy = "Policy: decline any cancellation after 24 hours."
    assert found(renderer, row(REFUSES, system=policy)) == {"explained_refusal"}
    call = Message(role="assistant", content="", tool_calls=[ToolCall(name="status", arguments={})])
    looked = [Message(role="user", content="My order."), call, Message(role="tool", content="shipped")]
    assert found(renderer, row(REFUSES, before=looked)) == {"explained_refusal"}
    assert "refused" in found(renderer, row(REFUSES, system=policy, finish_reason="content_filter"))


@pytest.mark.parametrize(
    "text",
    [
        "Wales \U0001f3f4\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f plays.",
        "שלום \u2067עולם\u2069 (\u202babc\u202c)",
        "ภาษา\u200bไทย",
        "\ufeffA mark at the beginning.",
    ],
    ids=["flag", "right to left", "thai", "byte order mark"],
)
def test_signs_that_scripts_need_are_no_hidden_text(renderer: Renderer, text: str) -> None:
    assert found(renderer, row("Yes.", asked=text)) == set()


@pytest.mark.parametrize(
    "text",
    ["ig\u200bnore", "a\u202eb", "\U0001f3f4\U000e0067 no end", "hi\U000e0041\U000e0042", "עברית \u202egnihton"],
    ids=["latin", "override", "half a flag", "tags", "override in Hebrew"],
)
def test_signs_that_hide_something_are_found(renderer: Renderer, text: str) -> None:
    assert found(renderer, row("Yes.", asked=text)) == {"hidden_text"}


HARMONY = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Blue."


@pytest.mark.parametrize(
    "text",
    [f"{start}Hm.{end}\n\nBlue." for start, end in reasoning.markers()] + ["Hm.</think>Blue.", HARMONY],
)
def test_reasoning_in_any_markers_is_taken_out(text: str) -> None:
    assert reasoning.stripped(text) == "Blue." and reasoning.closes(text) and not reasoning.unclosed(text)


@pytest.mark.parametrize("text", [f"{start}Hm. Blue." for start, _ in reasoning.markers()])
def test_reasoning_that_never_closes_is_no_answer(renderer: Renderer, text: str) -> None:
    assert found(renderer, row(text)) == {"unclosed_reasoning"}


def test_a_form_that_the_prompt_asks_for_is_no_reasoning(renderer: Renderer) -> None:
    text = "<reasoning>Short.</reasoning><answer>Blue.</answer>"
    assert found(renderer, row(text)) == {"reasoning"}
    assert found(renderer, row(text, system="Reply as <reasoning>…</reasoning><answer>…</answer>")) == set()


def test_a_block_that_the_template_inserts_is_trained_neither_with_answers_nor_with_calls(tmp_path: Path) -> None:
    template = Renderer(GgufFile(write_tiny_gguf(tmp_path / "qwen.gguf", template=QWEN3)))
    asked = [Message(role="user", content="Weather?")]
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    text = template.answer_text(asked, "", [ToolCall(name="look", arguments={"a": 1})], tools)
    assert text.startswith("<tool_call>") and "think" not in text


def test_a_turn_that_the_template_leaves_out_is_named(tmp_path: Path) -> None:
    template = Renderer(GgufFile(write_tiny_gguf(tmp_path / "lossy.gguf", template=FORGETFUL)))
    turns = [Message(role=role, content=text) for role, text in (("user", "One."), ("user", "Two."))]
    template.prompt_text(turns)
    with pytest.raises(InputError, match=r"leaves out or changes turn 1 \(system\)"):
        template.prompt_text([turns[0], Message(role="system", content="Be short."), turns[1]])
    same = Message(role="system", content="This text stands in two of the turns.")
    with pytest.raises(InputError, match="turn 2"):
        template.prompt_text([same, turns[0], same])
