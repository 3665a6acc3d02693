"""Chat templates as published models have them: prompts equal those of transformers and of the engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import gguf
import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from conftest import example_of, write_tiny_gguf
from families import FAMILIES, source_of, write_family
from journeyman.errors import InputError
from journeyman.inference.chat import read_answer, request_body
from journeyman.inference.engines import running_engine
from journeyman.models.base import CONTROL, TemplateChoice, TokenizerData
from journeyman.models.gguf_file import GgufFile
from journeyman.models.templated import TemplatedBase
from journeyman.protocols import EngineSettings, Question
from journeyman.records import Message, ToolCall
from journeyman.rendering.mask import check_mask
from journeyman.rendering.renderer import Renderer

Tools = Sequence[dict[str, Any]]
CALL = ToolCall(name="look", arguments={"city": "Zürich", "at": [1, 2.5, None, True]}, id="call12345")
TOOLS: Tools = [
    {
        "type": "function",
        "function": {
            "name": "look",
            "description": "Täglich & <b>",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
THOUGHT = "<think>\nTwo and two.\n</think>\n\n"


def turn(role: str, content: str, *calls: ToolCall) -> Message:
    return Message(role=role, content=content, tool_calls=list(calls))


CONVERSATIONS: dict[str, tuple[list[Message], Tools]] = {
    "plain": ([turn("user", "Hi there")], ()),
    "system": ([turn("system", "Be brief."), turn("user", "Hi there")], ()),
    "dialogue": (
        [turn("system", "Be brief."), turn("user", "Hi"), turn("assistant", "Hello!\n\nYes?"), turn("user", "And you")],
        (),
    ),
    "reasoning": ([turn("user", "2+2?"), turn("assistant", f"{THOUGHT}4"), turn("user", "3+3?")], ()),
    "tools": ([turn("system", "Be brief."), turn("user", "Weather?")], TOOLS),
    "calls": ([turn("user", "Weather?"), turn("assistant", "", CALL), turn("tool", '{"t": 3}')], TOOLS),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "qwen3": {"enable_thinking": False},
    "smollm3": {"enable_thinking": False},
    "granite-3": {"thinking": True},
    "harmony": {"reasoning_effort": "low"},
}
CASES = [(family, {}) for family in FAMILIES] + list(OPTIONS.items())
NAMES = [f"{family}{' with options' if options else ''}" for family, options in CASES]


def renderer(path: Path, options: dict[str, Any] | None = None, **choice: Any) -> Renderer:
    base = GgufFile(path)
    return Renderer(TemplatedBase(base, TemplateChoice(options=options or {}, **choice)))


def _tokenizer(data: TokenizerData) -> Tokenizer:
    """The tokenizer of a tiny model, as Hugging Face's library builds one."""
    pairs = [tuple(pair.split(" ")) for pair in data.merges or ()]
    made = Tokenizer(BPE(vocab={token: number for number, token in enumerate(data.tokens or ())}, merges=pairs))
    made.pre_tokenizer = ByteLevel(add_prefix_space=False)
    made.add_special_tokens([token for token, kind in data.typed_tokens() if kind == CONTROL])
    return made


@pytest.mark.parametrize(("family", "options"), CASES, ids=NAMES)
def test_prompts_equal_transformers(family: str, options: dict[str, Any], tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    path = write_family(tmp_path / "m.gguf", family)
    ours, data = renderer(path, options), GgufFile(path).tokenizer
    begin, end = FAMILIES[family].begin, FAMILIES[family].special[-1]
    theirs = PreTrainedTokenizerFast(tokenizer_object=_tokenizer(data), bos_token=begin, eos_token=end)
    served = ours.served_template
    for name in FAMILIES[family].takes:
        messages, tools = CONVERSATIONS[name]
        turns = [one.as_chat() for one in messages]
        ids = theirs.apply_chat_template(
            turns, tools=list(tools) or None, chat_template=served.source, add_generation_prompt=True,
            return_dict=False, **served.variables,
        )  # fmt: skip
        assert ours.prompt_ids(messages, tools) == ids, name
        if not served.date:  # without a date, the base's own template needs nothing but the options
            plain = theirs.apply_chat_template(
                turns, tools=list(tools) or None, chat_template=source_of(family), add_generation_prompt=True,
                tokenize=False, **options,
            )  # fmt: skip
            assert ours.prompt_text(messages, tools) == plain


@pytest.mark.slow
@pytest.mark.parametrize(("family", "options"), CASES, ids=NAMES)
def test_the_engine_makes_the_same_prompts(family: str, options: dict[str, Any], tmp_path: Path) -> None:
    path = write_family(tmp_path / "m.gguf", family)
    ours = renderer(path, options)
    served = ours.served_template
    settings = EngineSettings(
        path, {}, 2048, 1, 0.0, 1, None if served.own else served.source, served.variables
    )  # fmt: skip
    with running_engine(settings) as engine:
        for name in FAMILIES[family].takes:
            messages, tools = CONVERSATIONS[name]
            assert engine.prompt_ids(messages, tools) == ours.prompt_ids(messages, tools), name


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_ends_with_the_token_that_ends_a_turn(family: str, tmp_path: Path) -> None:
    path = write_family(tmp_path / "m.gguf", family)
    ours, tokens = renderer(path), GgufFile(path).tokenizer.tokens
    assert tokens is not None and tokens[ours.terminator_id] == FAMILIES[family].end
    rendered = ours.example(example_of(CONVERSATIONS["dialogue"][0], "Fine."))
    assert tokens[rendered.ids[-1]] == FAMILIES[family].end
    assert ours.decode(rendered.ids[rendered.prompt_tokens : -1]).endswith("Fine.")


@pytest.mark.parametrize(
    ("family", "answer", "written"),
    [
        ("qwen3", "4", "4"),
        ("qwen3", f"{THOUGHT}4", f"{THOUGHT}4"),
        ("qwq", "4", "\n</think>\n\n4"),
        ("qwq", f"{THOUGHT}4", "Two and two.\n</think>\n\n4"),
        ("qwq", "Two and two.\n</think>\n\n4", "Two and two.\n</think>\n\n4"),
        ("deepseek", "4", "\n</think>\n\n4"),
        ("deepseek", f"{THOUGHT}4", "Two and two.\n</think>\n\n4"),
        ("mistral", "4", "4"),
        ("harmony", "4", "<|channel|>final<|message|>4"),
    ],
)
def test_an_answer_continues_its_prompt(family: str, answer: str, written: str, tmp_path: Path) -> None:
    ours = renderer(write_family(tmp_path / "m.gguf", family))
    for name in ("plain", "system", "dialogue", "reasoning"):
        assert ours.answer_text(CONVERSATIONS[name][0], answer, []) == written


QWEN_CALL = '<tool_call>\n{"name": "look", "arguments": ARGS}\n</tool_call>'


@pytest.mark.parametrize(
    ("family", "answer", "written", "end"),
    [
        ("qwen3", "", QWEN_CALL, "<|im_end|>"),
        ("qwen3", f"{THOUGHT}So.", f"{THOUGHT}So.\n{QWEN_CALL}", "<|im_end|>"),
        ("qwq", "", f"\n</think>\n\n{QWEN_CALL}", "<|im_end|>"),
        ("qwq", f"{THOUGHT}So.", f"Two and two.\n</think>\n\nSo.\n{QWEN_CALL}", "<|im_end|>"),
        ("llama-3.1", "", '{"name": "look", "parameters": ARGS}', "<|eot_id|>"),
        ("mistral", "", '[TOOL_CALLS][{"name": "look", "arguments": ARGS}]', "</s>"),
        ("harmony", "", " to=functions.look<|channel|>commentary json<|message|>ARGS", "<|call|>"),
    ],
)
def test_a_call_continues_its_prompt(family: str, answer: str, written: str, end: str, tmp_path: Path) -> None:
    path = write_family(tmp_path / "m.gguf", family)
    ours, tokens = renderer(path), GgufFile(path).tokenizer.tokens
    messages, tools = CONVERSATIONS["tools"]
    args = '{"city": "Zürich", "at": [1, 2.5, null, true]}'
    assert ours.answer_text(messages, answer, [CALL], tools) == written.replace("ARGS", args)
    row = example_of(messages, answer, answer_calls=[CALL], tools=list(tools))
    rendered = ours.example(row)
    assert tokens is not None and tokens[rendered.ids[-1]] == end
    counts = {"prompt_tokens": rendered.prompt_tokens, "answer_tokens": rendered.trained_tokens}
    check_mask(row.model_copy(update=counts), rendered, ours.end_ids)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "options"), CASES, ids=NAMES)
def test_the_engine_reads_what_is_trained_as_the_answer(family: str, options: dict[str, Any], tmp_path: Path) -> None:
    """A grammar makes the model write the trained text."""
    path = write_family(tmp_path / "m.gguf", family)
    ours = renderer(path, options)
    served, asked = ours.served_template, CONVERSATIONS["plain"][0]
    settings = EngineSettings(path, {}, 2048, 1, 0.0, 1, None if served.own else served.source, served.variables)
    thinks = options != {"enable_thinking": False} and family in ("qwen3", "qwq", "deepseek")
    with running_engine(settings) as engine:
        for answer in ("Fine.", f"{THOUGHT}Fine.") if thinks else ("Fine.",):
            question = Question("a", "coder", "base", asked, 200)
            grammar = {"grammar": f"root ::= {json.dumps(ours.answer_text(asked, answer, []))}"}
            body = {**request_body(question, 0.0), **grammar}
            read = read_answer(engine._stream("/v1/chat/completions", body), question, None, 0.0)  # type: ignore[attr-defined]
            assert (read.text.strip(), read.finish_reason) == ("Fine.", "stop")


def test_a_prompt_that_ends_reasoning_takes_answers_without_it(tmp_path: Path) -> None:
    ours = renderer(write_family(tmp_path / "m.gguf", "qwen3"), {"enable_thinking": False})
    messages = CONVERSATIONS["plain"][0]
    assert ours.prompt_text(messages).endswith("<think>\n\n</think>\n\n")
    assert ours.answer_text(messages, "4", []) == "4"
    with pytest.raises(InputError, match=r'ends reasoning in the prompt, but the answer has some.*"strip"'):
        ours.answer_text(messages, f"{THOUGHT}4", [])


def test_a_switch_in_the_system_prompt_is_no_lost_text(tmp_path: Path) -> None:
    ours = renderer(write_family(tmp_path / "m.gguf", "smollm3"))
    off = [turn("system", "Be brief. /no_think"), turn("user", "Hi")]
    assert ours.prompt_text(off).endswith("<|im_start|>assistant\n<think>\n\n</think>\n")
    assert ours.answer_text(off, "4", []) == "4"
    with pytest.raises(InputError, match="ends reasoning"):
        ours.answer_text(off, f"{THOUGHT}4", [])


def test_only_reasoning_may_be_taken_out_of_history(tmp_path: Path) -> None:
    ours = renderer(write_family(tmp_path / "m.gguf", "qwen3"))
    messages = CONVERSATIONS["reasoning"][0]
    text = ours.prompt_text(messages)
    assert "Two and two" not in text and "<|im_start|>assistant\n4<|im_end|>" in text
    lossy = source_of("qwen3").replace("{%- else %}{{ content }}{% endif %}", "{%- else %}{{ content[1:] }}{% endif %}")
    lossy = renderer(write_family(tmp_path / "lossy.gguf", "qwen3", lossy))
    with pytest.raises(InputError, match=r"leaves out or changes turn 1 \(assistant\)"):
        lossy.prompt_text([messages[0], turn("assistant", f"{THOUGHT}Four."), messages[2]])


def test_an_answers_text_next_to_a_call_is_not_lost(tmp_path: Path) -> None:
    messages, tools = CONVERSATIONS["tools"]
    ours = renderer(write_family(tmp_path / "m.gguf", "llama-3.1"))
    with pytest.raises(InputError, match="leaves out the text of an answer that also calls tools"):
        ours.answer_text(messages, "Let me see.", [CALL], tools)


def test_refusals_of_a_template_are_refusals_of_the_row(tmp_path: Path) -> None:
    ours = renderer(write_family(tmp_path / "m.gguf", "gemma"))
    with pytest.raises(InputError, match=r"refuses the turns user → user: Conversation roles must alternate"):
        ours.prompt_text([turn("user", "Hi"), turn("user", "there")])
    with pytest.raises(InputError, match="leaves out the tool 'look'"):
        ours.prompt_text(*CONVERSATIONS["tools"])


@pytest.mark.parametrize(
    ("family", "day", "shown", "note"),
    [
        ("llama-3.1", None, "Today Date: 26 Jul 2024\n", "26 Jul 2024"),
        ("llama-3.1", date(2026, 3, 9), "Today Date: 09 Mar 2026\n", "09 Mar 2026"),
        ("smollm3", None, "Today Date: 01 January 2025\n", "2025-01-01"),
        ("smollm3", date(2026, 3, 9), "Today Date: 09 March 2026\n", "2026-03-09"),
        ("granite-3", None, "Today's Date: January 01, 2025. ", "2025-01-01"),
        ("harmony", date(2026, 3, 9), "Current date: 2026-03-09\n", "2026-03-09"),
    ],
)
def test_today_is_always_the_same_day(family: str, day: date | None, shown: str, note: str, tmp_path: Path) -> None:
    ours = renderer(write_family(tmp_path / "m.gguf", family), date=day)
    assert shown in ours.prompt_text(CONVERSATIONS["plain"][0])
    assert ours.served_template.date == note


def test_a_date_for_a_template_without_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not write today's date.*base\.template_date"):
        renderer(write_family(tmp_path / "m.gguf", "qwen3"), date=date(2026, 3, 9))


def test_what_is_settled_stays_settled(tmp_path: Path) -> None:
    """Serving settles what the bundle contains once more."""
    for family in FAMILIES:
        path = write_family(tmp_path / f"{family}.gguf", family)
        first = renderer(path).served_template
        again = renderer(path, dict(first.variables), source=None if first.own else first.source).served_template
        assert (again.source, again.variables) == (first.source, first.variables), family


def test_a_date_whose_format_is_computed_is_refused(tmp_path: Path) -> None:
    source = source_of("smollm3").replace("strftime_now('%d %B %Y')", "strftime_now('%d %B ' + '%Y')")
    with pytest.raises(InputError, match="computes the format of today's date"):
        renderer(write_family(tmp_path / "m.gguf", "smollm3", source))


def test_an_option_that_the_template_does_not_have_is_refused(tmp_path: Path) -> None:
    path = write_family(tmp_path / "m.gguf", "qwen3")
    for name in ("enable_thinkng", "messages", "namespace"):
        with pytest.raises(InputError, match=f"has no option '{name}'. Its options: .*enable_thinking"):
            renderer(path, {name: True})


def test_a_switch_without_a_default_must_be_set(tmp_path: Path) -> None:
    source = source_of("qwen3") + (
        "{% if enable_thinking is not defined %}a{% elif enable_thinking %}b{% else %}c{% endif %}"
    )
    path = write_family(tmp_path / "m.gguf", "qwen3", source)
    with pytest.raises(InputError, match=r"another prompt for each of enable_thinking.*base.template_options"):
        renderer(path)
    assert renderer(path, {"enable_thinking": True}).prompt_text(CONVERSATIONS["plain"][0]).endswith("b")


@pytest.mark.slow
def test_conversations_with_tools_take_the_template_that_the_base_has_for_them(tmp_path: Path) -> None:
    def also(writer: gguf.GGUFWriter) -> None:
        writer.add_string("tokenizer.chat_template.tool_use", source_of("qwen3").replace("# Tools", "# For tools"))

    path = write_tiny_gguf(tmp_path / "m.gguf", context=2048, extend=also)
    ours = renderer(path)
    assert "# For tools" in ours.prompt_text(*CONVERSATIONS["tools"])
    served = ours.served_template
    assert served.own
    with running_engine(EngineSettings(path, {}, 2048, 1, 0.0, template_variables=served.variables)) as engine:
        for name in ("plain", "tools", "calls"):
            assert engine.prompt_ids(*CONVERSATIONS[name]) == ours.prompt_ids(*CONVERSATIONS[name]), name


def test_two_templates_with_a_date_are_refused(tmp_path: Path) -> None:
    def also(writer: gguf.GGUFWriter) -> None:
        writer.add_string("tokenizer.chat_template.tool_use", source_of("smollm3"))

    with pytest.raises(InputError, match="two chat templates that write today's date"):
        renderer(write_tiny_gguf(tmp_path / "m.gguf", extend=also))
