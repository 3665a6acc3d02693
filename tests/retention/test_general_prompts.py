"""The shipped general prompts are none of the regression suite's, and other files of prompts are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from journeyman.curation.duplicates import trigrams, words_of
from journeyman.errors import InputError
from journeyman.regression_suite import KINDS, read_suite
from journeyman.retention import general_rows, read_prompts, repeated, shuffled

_NEAR, _SAME_WORDS = 0.35, 0.6
"""Far below curate.near_duplicate (0.7), because the prompts are short."""


def _alike(one: set[int], other: set[int]) -> float:
    return len(one & other) / len(one | other)


def test_no_shipped_prompt_is_in_the_regression_suite_or_near_to_a_question_of_it() -> None:
    suite = [question.task for kind in KINDS for question in read_suite(kind)]
    shipped = [prompt.task for prompt in read_prompts(None)]
    words = {text: words_of(text) for text in suite + shipped}
    grams = {text: set(trigrams(found).tolist()) for text, found in words.items()}
    for text in shipped:
        for question in suite:
            assert _alike(grams[text], grams[question]) < _NEAR, (text, question)
            assert _alike(set(words[text].tolist()), set(words[question].tolist())) < _SAME_WORDS, (text, question)
    near = set(trigrams(words_of("What is the capital of Spain?")).tolist())
    assert any(_alike(near, grams[question]) >= _NEAR for question in suite), "a near question would be found"


def test_the_tools_of_the_regression_suite_are_not_those_of_the_prompts() -> None:
    suite = {tool["function"]["name"] for kind in KINDS for one in read_suite(kind) for tool in one.tools}
    shipped = {tool["function"]["name"] for one in read_prompts(None) for tool in one.tools}
    assert suite and shipped and suite.isdisjoint(shipped)


def test_there_are_many_short_prompts_each_once() -> None:
    shipped = read_prompts(None)
    assert 150 <= len(shipped) <= 250
    assert len({one.id for one in shipped}) == len({one.task for one in shipped}) == len(shipped)
    assert max(len(one.task) for one in shipped) < 300
    assert sum(bool(one.tools) for one in shipped) >= 20


def test_own_prompts_are_read_from_text_and_json_lines(tmp_path: Path) -> None:
    text = tmp_path / "own.txt"
    text.write_text("What is a lake?\n\nName a tree.\nWhat is a lake?\n", encoding="utf-8")
    assert [(one.id, one.task) for one in read_prompts(text)] == [
        ("line-1", "What is a lake?"), ("line-3", "Name a tree."),
    ]  # fmt: skip
    lines = tmp_path / "own.jsonl"
    lines.write_text('{"task": "Add 1 and 2.", "tools": [{"type": "function", "function": {"name": "add"}}]}\n')
    (one,) = read_prompts(lines)
    assert one.tools[0]["function"]["name"] == "add"


@pytest.mark.parametrize(("name", "line"), [("own.txt", "Add 1."), ("own.jsonl", '{"task": "Add 1."}')])
def test_a_byte_order_mark_is_no_part_of_a_prompt(tmp_path: Path, name: str, line: str) -> None:
    (tmp_path / name).write_text(f"{line}\n", encoding="utf-8-sig")
    assert [one.task for one in read_prompts(tmp_path / name)] == ["Add 1."]


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("own.jsonl", '{"task": "a"}\n{"text": "b"}\n', "line 2"),
        ("own.jsonl", "What is a lake?\n", "line 1"),
        ("own.txt", " \n\n", "no prompt in it"),
        ("own.txt", None, "own.txt"),
    ],
)
def test_a_file_without_prompts_is_refused_by_name_and_line(
    tmp_path: Path, name: str, content: str | None, part: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=part):
        read_prompts(tmp_path / name)


def test_the_order_depends_on_the_seed_alone_and_few_rows_are_repeated() -> None:
    prompts = read_prompts(None)
    assert shuffled(prompts, 1) == shuffled(prompts, 1) != shuffled(prompts, 2)
    assert sorted(one.id for one in shuffled(prompts, 1)) == sorted(one.id for one in prompts)
    assert general_rows(238, 0.25) == 60 and general_rows(238, 0) == 0
    assert repeated("abc", 7) == list("abcabca") and repeated("abc", 2) == ["a", "b"] and repeated([], 3) == []
