"""The base's own answers become rows; the engine is asked once for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from conftest import write_tiny_gguf
from journeyman.config import EvaluateConfig, RetentionConfig
from journeyman.errors import InputError
from journeyman.general_rows import load_of
from journeyman.inference.own_answers import longest_rows, own_answers, prompts_to_ask, tokens_at_most
from journeyman.inference.response_cache import CachedResponse, ResponseCache, may_spare_answers
from journeyman.models.gguf_file import GgufFile
from journeyman.protocols import EngineSettings, Question, SilentReporter
from journeyman.records import Prediction
from journeyman.rendering.mask import check_mask
from journeyman.rendering.renderer import Renderer
from journeyman.retention import GeneralPrompt

_PROMPTS = [GeneralPrompt(id=name, task=f"What is {name}?") for name in ("sand", "rain", "wind", "snow", "fire")]
_SAID = {"sand": ("Small stones.", "stop"), "rain": ("Water that falls fr\N{REPLACEMENT CHARACTER}", "length"),
         "wind": (" ", "stop"), "snow": ("<|im_end|>", "stop"), "fire": ("Hot", "error")}  # fmt: skip


class _Engine:
    replicas = 1

    def __init__(self) -> None:
        self.asked: list[Question] = []

    def generate(self, question: Question, on_token: Callable[[int], None] | None = None) -> Prediction:
        self.asked.append(question)
        text, finish = _SAID[question.row_id.partition("/")[2]]
        return Prediction(
            id=question.row_id, role=question.role, arm=question.arm, text=text, finish_reason=finish,
            latency_s=1, first_token_s=1, prompt_tokens=1, answer_tokens=1, load=question.load,
        )  # fmt: skip

    def identity(self, question: Question) -> dict[str, Any]:
        return {}

    def peak_memory_bytes(self) -> int | None:
        return None


class _Hears(SilentReporter):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> GgufFile:
    return GgufFile(write_tiny_gguf(tmp_path_factory.mktemp("own") / "tiny.gguf"))


@pytest.fixture(scope="module")
def renderer(tiny: GgufFile) -> Renderer:
    return Renderer(tiny)


def test_answers_become_rows_and_are_asked_only_once(tmp_path: Path, tiny: GgufFile, renderer: Renderer) -> None:
    engine, hears, used = _Engine(), _Hears(), []

    @contextmanager
    def running(settings: EngineSettings) -> Iterator[Any]:
        used.append(settings)
        yield engine

    retention = RetentionConfig(share=1.0, max_tokens=20)
    arguments = (_PROMPTS, retention, EvaluateConfig(), tiny.path, renderer, tmp_path, hears, running)
    rows = own_answers(*arguments)
    assert [(row.id, row.answer, row.ends) for row in rows] == [
        ("general/sand", "Small stones.", True), ("general/rain", "Water that falls fr", False),
    ]  # fmt: skip
    for row in rows:
        check_mask(row, renderer.example(row), renderer.end_ids)
    assert [turn.role for row in rows for turn in row.messages] == ["user", "user"], "no role's system prompt"
    (settings,) = used
    assert settings.adapters == {} and settings.temperature == 0 and settings.context >= 20
    assert {question.max_tokens for question in engine.asked} == {20}
    assert any("up to 20 tokens each" in text for text in hears.said), "the cost is said first"
    assert any("3 are empty or contain" in text for text in hears.said)
    asked = len(engine.asked)
    assert own_answers(*arguments) == rows and len(engine.asked) == asked, "the rest is in the response cache"


def test_an_evaluation_does_not_find_them(tmp_path: Path, tiny: GgufFile, renderer: Renderer) -> None:
    @contextmanager
    def running(settings: EngineSettings) -> Iterator[Any]:
        yield _Engine()

    assert not may_spare_answers(tmp_path)
    own_answers(_PROMPTS, RetentionConfig(), EvaluateConfig(), tiny.path, renderer, tmp_path, SilentReporter(), running)
    assert not may_spare_answers(tmp_path)
    asked = Question("row/fire", "coder", "base", _PROMPTS[-1].messages, 20)
    ResponseCache(tmp_path).add("key", CachedResponse(_Engine().generate(asked), None))
    assert may_spare_answers(tmp_path)


def test_a_base_that_says_nothing_gives_no_rows(tmp_path: Path, tiny: GgufFile, renderer: Renderer) -> None:
    @contextmanager
    def running(settings: EngineSettings) -> Iterator[Any]:
        yield _Engine()

    made = own_answers(
        _PROMPTS[2:3], RetentionConfig(), EvaluateConfig(), tiny.path, renderer, tmp_path, SilentReporter(), running
    )
    assert made == []


def test_prompts_with_tools_are_left_out_if_the_template_supports_none(tmp_path: Path, renderer: Renderer) -> None:
    chosen = prompts_to_ask(RetentionConfig(share=1.0), 1000, 0, renderer, tmp_path)
    assert len(chosen) > 100 and not any(one.tools for one in chosen)
    assert prompts_to_ask(RetentionConfig(share=1.0), 7, 0, renderer, tmp_path) == chosen[:7]
    assert prompts_to_ask(RetentionConfig(share=1.0), 1000, 1, renderer, tmp_path) != chosen


def test_own_prompts_with_a_control_token_are_refused(tmp_path: Path, renderer: Renderer) -> None:
    (tmp_path / "own.txt").write_text("What is <|im_end|> for?\n")
    with pytest.raises(InputError, match="control token"):
        prompts_to_ask(RetentionConfig(share=1.0, prompts="own.txt"), 5, 0, renderer, tmp_path)


def test_own_prompts_with_tools_are_refused_if_the_template_supports_none(tmp_path: Path, renderer: Renderer) -> None:
    tool = '{"type": "function", "function": {"name": "sum_of_two", "parameters": {}}}'
    (tmp_path / "own.jsonl").write_text(f'{{"id": "sum", "task": "Add 1 and 2.", "tools": [{tool}]}}\n')
    with pytest.raises(InputError, match=r"own\.jsonl: prompt sum: .*tool"):
        prompts_to_ask(RetentionConfig(share=1.0, prompts="own.jsonl"), 5, 0, renderer, tmp_path)


def test_expected_rows_count_each_answer_as_long_as_it_may_be(renderer: Renderer) -> None:
    retention = RetentionConfig(share=1.0, max_tokens=20)
    rows = longest_rows(_PROMPTS, retention, renderer)
    tokens = [len(renderer.prompt_ids(one.messages)) + 20 for one in _PROMPTS]
    assert [row.prompt_tokens + row.answer_tokens for row in rows] == tokens
    assert [tokens_at_most(one, retention, renderer) for one in _PROMPTS] == tokens
    load = load_of(rows)
    assert (load.prompts, load.mean_tokens, load.longest_tokens) == (5, sum(tokens) / 5, max(tokens))
    assert load_of([]).rows(100, 0.5) == 0 and load.rows(100, 0.5) == 50


def test_the_made_up_answers_of_a_real_base_have_that_many_tokens(embedded: GgufFile) -> None:
    real = Renderer(embedded)
    for row in longest_rows(_PROMPTS[:2], RetentionConfig(share=1.0, max_tokens=20), real):
        check_mask(row, real.example(row), real.end_ids)
