"""The plan's time of evaluation: counts and lengths only, through the engine that serves; unknown is said."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest

from conftest import example_of
from journeyman.config import Config, PlanConfig, parse_config
from journeyman.errors import InputError
from journeyman.inference.answer_trial import SUITE, Answering, measure_answers
from journeyman.manifests import DatasetManifest, PlanManifest, PlannedFile, SplitCounts, StageTime, TrainTime
from journeyman.models.gguf_file import GgufFile
from journeyman.models.known import known_base
from journeyman.protocols import EngineSettings, Question
from journeyman.reasons import timing
from journeyman.records import BASE, TUNED, Message, Prediction
from journeyman.regression_suite import read_suite
from journeyman.rendering.renderer import Renderer
from journeyman.retention import NO_LOAD, GeneralLoad
from journeyman.sizing.answer_time import TimedAnswer
from journeyman.stages import plan_evaluation
from journeyman.stages.plan_evaluation import AnswerTimes, answer_times, bisect_time, export_time, held_out
from journeyman.stages.plan_facts import suite_of
from journeyman.stages.plan_time_text import time_lines

_KNOWN = known_base("Qwen/Qwen2.5-0.5B-Instruct")
assert _KNOWN is not None
SIZES = _KNOWN.geometry
ROWS = [
    example_of([Message(role="user", content="?")], "!", role=role, prompt_tokens=100, answer_tokens=tokens)
    for role, tokens in (("coder", 40), ("coder", 60), ("tester", 20))
]


def _config(**evaluate: Any) -> Config:
    return parse_config({"evaluate": {"few_shot": 0, "regression_suite": False, **evaluate}}, "journeyman.toml")


def _dataset() -> DatasetManifest:
    splits = {"coder": SplitCounts(train=2, val=0, test=10, effective_test=10), "tester": SplitCounts(
        train=1, val=0, test=30, effective_test=30)}  # fmt: skip
    return DatasetManifest.model_construct(splits=splits, longest_row_tokens=160)


class _Engine:
    """Answers at a known pace: `tokens` pieces, the first after `first_s`."""

    replicas, engine_identity, load_s, warm_up_s = 1, None, 0.0, 0.0

    def __init__(self, tokens: int = 4) -> None:
        self.asked: list[Question] = []
        self._tokens = tokens

    def generate(self, question: Question, on_token: Callable[[int], None] | None = None) -> Prediction:
        self.asked.append(question)
        for number in range(min(self._tokens, question.max_tokens)):
            time.sleep(0.001)
            assert on_token is not None
            on_token(number + 1)
        return Prediction(
            id=question.row_id, role=question.role, arm=question.arm, text="x", finish_reason="stop", latency_s=0.1,
            first_token_s=0.05, prompt_tokens=100, answer_tokens=self._tokens,
        )  # fmt: skip


def _settings(tmp_path: Path) -> EngineSettings:
    return EngineSettings(tmp_path / "base.gguf", {"all": tmp_path / "adapter.gguf"}, 512, 1, 0.0, parallel=2)


def test_the_engine_is_asked_for_both_arms_at_the_load_of_serving_and_alone(tmp_path: Path) -> None:
    engine = _Engine()

    @contextmanager
    def running(settings: EngineSettings) -> Iterator[Any]:
        yield engine

    suite = read_suite("general")
    made = measure_answers(_settings(tmp_path), ROWS, suite, 512, 5.0, running)
    assert len(made.loaded[SUITE]) == 6 and all(one.ended for one in made.loaded[SUITE])
    put = {(one.arm, one.adapter, one.load) for one in engine.asked}
    assert put == {(BASE, None, 2), (TUNED, "all", 2), (TUNED, "all", 1)}
    assert all(one.tokens == 4 and one.ended and one.prompt_tokens == 100 for one in made.loaded[BASE] + made.alone)


def test_a_slow_engine_is_measured_by_the_beginning_of_its_answers(tmp_path: Path) -> None:
    engine = _Engine(tokens=64)

    @contextmanager
    def running(settings: EngineSettings) -> Iterator[Any]:
        yield engine

    made = measure_answers(_settings(tmp_path), ROWS, [], 512, 0.02, running)
    assert made.alone and all(1 < one.tokens < 64 and not one.ended for one in made.alone)


def _found(rate_s: float = 0.1) -> Answering:
    answers = [TimedAnswer(100, 1.0, 39 * rate_s, 40, True)] * 4
    short = [TimedAnswer(60, 1.0, 9 * rate_s, 10, True)] * 4
    return Answering({BASE: answers, SUITE: short, TUNED: answers}, answers, start_s=2.0)


def _time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: Config, *sizes: float) -> StageTime:
    return _times(monkeypatch, tmp_path, config, NO_LOAD, *sizes).evaluation


def _times(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: Config, general: GeneralLoad, *sizes: float
) -> AnswerTimes:
    asked: list[Any] = []
    monkeypatch.setattr(plan_evaluation, "read_rows", lambda path, kind: iter(ROWS))
    monkeypatch.setattr(plan_evaluation, "measure_answers", lambda *given: asked.append(given) or _found())
    served = [PlannedFile(path=str(tmp_path / f"{one}.gguf"), sha256="0", size_gb=one) for one in sizes]
    return answer_times(
        _dataset(), tmp_path / "train.jsonl", config, _Renderer(), served, SIZES, general, None, tmp_path, _Silent(),  # type: ignore[arg-type]
    )  # fmt: skip


class _Template:
    own, source = True, ""
    variables: ClassVar[dict[str, str]] = {}


class _Renderer:
    served_template = _Template()

    def prompt_text(self, messages: Any, tools: Any) -> str:
        if tools:
            raise InputError("the template has no tools")
        return ""


class _Silent:
    def begin(self, *given: Any) -> None: ...


def test_held_out_rows_are_as_long_as_the_roles_training_rows() -> None:
    held = held_out(_dataset(), ROWS)
    assert (held["coder"].rows, held["coder"].answer_tokens) == (10, 50.0)
    assert (held["tester"].rows, held["tester"].answer_tokens) == (30, 20.0)


def test_all_answers_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = _config(parallel=4, timed_rows=10)
    made = _time(monkeypatch, tmp_path, config, 1.0)
    tokens = (10 * 50 + 30 * 20) / 40  # of a mean answer
    tuned = 40 * (1.0 + 0.1 * (tokens - 1)) / 4 * 1.15  # no adapter was there to measure with
    alone = 20 * (1.0 + 0.1 * (tokens - 1)) * 1.15
    assert made.parts[TUNED] == pytest.approx(tuned) and made.parts["one at a time"] == pytest.approx(alone)
    assert made.seconds == pytest.approx(sum(made.parts.values())) and made.low is not None and made.high is not None
    assert made.low < made.seconds < made.high
    two = _time(monkeypatch, tmp_path, config, 1.0, 2.0)
    assert two.parts[TUNED] == pytest.approx(3 * tuned) and two.parts[BASE] == pytest.approx(made.parts[BASE])


def test_answers_that_may_be_cached_cost_nothing_at_best(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fresh = _time(monkeypatch, tmp_path, _config(), 1.0)
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence" / "response-cache.jsonl").write_text("{}\n")
    again = _time(monkeypatch, tmp_path, _config(), 1.0)
    assert again.low is not None and fresh.low is not None and again.low < fresh.low and again.high == fresh.high


def test_what_other_machines_answer_is_not_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    endpoint = {"endpoints": {"big": {"url": "http://localhost:1/v1", "model": "m"}}}
    assert _time(monkeypatch, tmp_path, _config(**endpoint), 1.0).without == timing.EndpointsNotMeasured("big").record()
    assert _time(monkeypatch, tmp_path, _config()).why == timing.AnswersElsewhere().record()
    off = parse_config({"plan": {"measure_s": 0}}, "journeyman.toml")
    assert _time(monkeypatch, tmp_path, off, 1.0).seconds is None


def test_export_and_bisect_are_estimated_or_said_to_be_unknown(tmp_path: Path) -> None:
    (tmp_path / "base.gguf").write_bytes(b"x" * 100_000)
    made = export_time([PlannedFile(path=str(tmp_path / "base.gguf"), sha256="0", size_gb=1e-4)], tmp_path)
    assert made.seconds is not None and made.low is not None and made.low < made.seconds
    assert [one.name for one in tmp_path.iterdir()] == ["base.gguf"]
    train = TrainTime(source="measured", seconds=100, low=90, high=110, epochs=[100], validation_s=5, load_s=3.0)
    known = StageTime(seconds=50.0, prompt_tokens_per_s=500.0, start_s=1.0)
    assert (bisect_time(known, train, 10_000, 300, SIZES).seconds or 0) > 6
    assert bisect_time(StageTime(), train, 10_000, 300, SIZES).seconds is None


def test_the_page_says_what_is_known_and_what_is_not() -> None:
    plan = PlanManifest.model_construct(
        device_name=None, precision="bfloat16", matrix_gflops=100.0, estimated_train_s=100.0,
        train_time=TrainTime(
            source="formula", why=timing.MeasuringIsOff().record(), seconds=100, low=40, high=300, epochs=[50, 50],
            validation_s=5,
        ),
        evaluate_time=StageTime(why=timing.AnswersElsewhere().record()), export_time=None, bisect_time=StageTime(),
    )  # fmt: skip
    text = "\n".join(time_lines(plan))
    assert "about 1 min 40 s, between 40 s and 5 min" in text and "50 s, 50 s" in text
    assert "not measured, because plan.measure_s is 0" in text and "evaluation: not known" in text


def test_the_page_names_ten_epochs_at_most() -> None:
    """A hundred thousand of them filled pages, and the pipe of who did not read them."""
    time = TrainTime(source="measured", seconds=100, low=90, high=110, epochs=[1.0] * 100_000, validation_s=5)
    plan = PlanManifest.model_construct(device=None, device_name=None, precision="float32", train_time=time)
    (line,) = [one for one in time_lines(plan) if one.startswith("by epoch")]
    assert line.endswith("1.0 s, and 99,990 more") and len(line) < 200


def test_answers_to_general_prompts_are_predicted_and_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = _config(parallel=4)
    most = config.train.retention.max_tokens
    general = _times(monkeypatch, tmp_path, config, GeneralLoad(8, 50 + most, 100 + most), 1.0).general
    assert general is not None and general.seconds is not None and general.high is not None
    # 2 s to start; 8 answers, 4 at a time, of about 10 tokens at 0.1 s and half of 1 s for half of the prompt's tokens
    assert 2 + 2 * (0.5 + 0.1 * 6) < general.seconds < 2 + 2 * (0.5 + 0.1 * 15) < 2 * general.high
    assert general.low == 0, "an earlier training may have left all answers in the cache"
    assert _times(monkeypatch, tmp_path, config, NO_LOAD, 1.0).general is None
    off = _times(
        monkeypatch,
        tmp_path,
        config.model_copy(update={"plan": PlanConfig(measure_s=0)}),
        GeneralLoad(8, 300, 400),
        1.0,
    )
    assert off.general is not None and off.general.seconds is None and off.general.why is not None
    time = TrainTime(source="measured", seconds=100, low=90, high=110, epochs=[100], validation_s=5)
    plan = PlanManifest.model_construct(
        device=None, device_name=None, precision="float32", train_time=time, general_prompts=8, general_time=general
    )
    assert any("the base answers 8 general prompts, about" in line for line in time_lines(plan))


def test_questions_with_tools_count_only_if_the_template_has_tools(tiny_gguf: Path) -> None:
    general, tools = (len(read_suite(kind)) for kind in ("general", "tools"))
    config = parse_config({}, "journeyman.toml")
    every = {"general": general, "tools": tools, "stopping": general + tools}
    with_tools = cast(Renderer, SimpleNamespace(prompt_text=lambda messages, tools: ""))
    assert suite_of(config, None) == every == suite_of(config, with_tools)
    assert suite_of(config, Renderer(GgufFile(tiny_gguf))) == {"general": general, "stopping": general}
    assert suite_of(_config(), None) == {}
