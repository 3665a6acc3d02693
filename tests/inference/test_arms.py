"""The arms of an evaluation: endpoints, other quantizations, load, regression suite, and what an interruption keeps."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gguf import GGMLQuantizationType

from conftest import StopsAfter, example_of, log_row, write_tiny_gguf
from fake_http import FakeHttp, Reply, answer_events, fake_http
from journeyman.artifacts import read_json, read_rows
from journeyman.config import EndpointConfig, EvaluateConfig, LoraConfig
from journeyman.errors import EngineError, Interrupted
from journeyman.evidence import RESPONSES
from journeyman.http_client import Retry
from journeyman.inference.arms import timed_rows
from journeyman.inference.dispatch import DispatchProgress, dispatch
from journeyman.inference.endpoint import Endpoint
from journeyman.inference.engines import running_engine
from journeyman.inference.llama import LlamaEngine
from journeyman.inference.response_cache import ResponseCache
from journeyman.inference.sequential_testing import confidence_of_look, count_look
from journeyman.manifests import CheckRule
from journeyman.models.gguf_file import GgufFile
from journeyman.protocols import EngineSettings, Question, SilentReporter
from journeyman.records import Message, Prediction, RegressionAnswer
from journeyman.regression_suite import KINDS, read_suite
from journeyman.scoring.checks import Checks, judge
from journeyman.scoring.contracts import Answer, Limits
from journeyman.training.lora import Adapter
from journeyman.training.merge import write_merged
from test_pipeline import call

MakeRun = Callable[..., Path]


@pytest.fixture
def service() -> Iterator[FakeHttp]:
    """Streams "ok N" like an OpenAI-compatible endpoint; N is the number of messages received."""
    with fake_http(lambda asked: answer_events("ok", f" {len(asked.json['messages'])}")) as server:
        yield server


def broken(status: int) -> Reply:
    """A refusal; with status 200, an answer that breaks off."""
    return answer_events("cut", done=False) if status == 200 else Reply(status=status)


ASKED = Question("r1", "coder", "far", [Message(role="user", content="Do it.")], 32)


def endpoint(url: str, model: str = "big", key_env: str = "") -> Endpoint:
    return Endpoint("far", EndpointConfig(url=url, model=model, key_env=key_env), 0.0, retry=Retry(first_wait_s=0.01))


def test_an_endpoint_is_asked_as_production_asks_it(service: FakeHttp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAR_KEY", "sesame")
    answer = endpoint(service.url, "lora-{role}", "FAR_KEY").generate(ASKED)
    assert (answer.text, answer.finish_reason, answer.prompt_tokens, answer.answer_tokens) == ("ok 1", "stop", 7, 3)
    assert answer.first_token_s is not None and 0 < answer.first_token_s <= (answer.latency_s or 0)
    (asked,) = service.asked
    body = asked.json
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("lora-coder", 32, 0.0)
    assert asked.headers["authorization"] == "Bearer sesame"


@pytest.mark.parametrize("statuses", [[503], [429, 500], [200]])
def test_temporary_failures_are_retried(service: FakeHttp, statuses: list[int]) -> None:
    service.first[:] = map(broken, statuses)
    assert endpoint(service.url).generate(ASKED).text == "ok 1"
    assert len(service.asked) == len(statuses) + 1


def test_an_outage_is_not_a_failed_answer(service: FakeHttp) -> None:
    service.first[:] = [broken(401)]
    with pytest.raises(EngineError, match=r"far.*401"):
        endpoint(service.url).generate(ASKED)
    assert len(service.asked) == 1, "what will not pass is not tried again"
    service.first[:] = [broken(503)] * 9
    with pytest.raises(EngineError, match="503"):
        endpoint(service.url).generate(ASKED)
    with pytest.raises(EngineError, match=r"evaluate\.endpoints\.far"):
        endpoint("http://127.0.0.1:9/v1").generate(ASKED)


def test_waiting_for_an_endpoint_can_be_stopped_and_a_nonsensical_one_is_named(service: FakeHttp) -> None:
    heard: list[int] = []

    def stop(pieces: int) -> None:
        heard.append(pieces)
        raise Interrupted("stopped")

    service.first[:] = [Reply(status=429, headers={"Retry-After": "30"})]
    with pytest.raises(Interrupted):
        endpoint(service.url).generate(ASKED, stop)
    assert heard == [0] and len(service.asked) == 1
    service.first[:] = [Reply("data: {not json\n\n")] * 5
    with pytest.raises(EngineError, match="JSONDecodeError"):
        endpoint(service.url).generate(ASKED)


def test_endpoints_are_arms_and_one_of_them_may_be_the_teacher(make_run: MakeRun, service: FakeHttp) -> None:
    toml = "".join(
        f'[evaluate.endpoints.{name}]\nurl = "{service.url}"\nmodel = "{name}-{{role}}"\n'
        for name in ("teacher", "far")
    )
    folder = make_run(toml=toml + f'[evaluate.endpoints.poets]\nurl = "{service.url}"\nmodel = "m"\nroles = ["poet"]\n')
    assert call("decide", "--dir", folder) in (0, 3)
    result = read_json(folder / "05-evaluation" / "manifest.json")["result"]
    assert list(result["roles"]["all"]["arms"]) == ["teacher", "base", "few-shot", "tuned", "far", "poets"]
    assert result["roles"]["all"]["arms"]["poets"]["success"] is None, "no row of its roles"
    assert set(result["roles"]["all"]["versus"]) == {"tuned"}, "what is elsewhere does not ship"
    assert set(result["roles"]["all"]["versus"]["tuned"]) == {"teacher", "base", "few-shot", "far", "poets"}
    predictions = list(read_rows(folder / "05-evaluation" / "predictions.jsonl", Prediction))
    assert {p.text for p in predictions if p.arm in ("teacher", "far")} == {"ok 2"}, "not what was logged"
    assert {asked.json["model"] for asked in service.asked} == {"teacher-coder", "far-coder"}
    page = (folder / "06-decision" / "report.html").read_text()
    assert "far-{role}" in page and "cannot see which file that endpoint serves" in page


@pytest.mark.parametrize("name", ["base", "tuned", "few-shot", "a@b"])
def test_an_endpoint_may_not_take_the_name_of_another_arm(name: str) -> None:
    with pytest.raises(ValueError, match="the name of another arm"):
        EvaluateConfig(endpoints={name: EndpointConfig(url="http://x/v1", model="m")})


# --- other quantizations --------------------------------------------------------------------------


def test_another_quantization_is_evaluated_with_the_same_adapter_and_may_ship(
    make_run: MakeRun, tmp_path: Path
) -> None:
    base = write_tiny_gguf(tmp_path / "whole.gguf", kind=GGMLQuantizationType.Q8_0)
    other = tmp_path / "small.gguf"
    write_merged(GgufFile(base), Adapter(GgufFile(base).geometry, LoraConfig(), 0), GGMLQuantizationType.Q4_0, other)
    toml = f'quantizations = ["{other}"]\n[decide]\nmin_success = 0.01\nregression_margin = 1.0\n'
    folder = make_run(
        rows=[log_row(i) for i in range(90)], toml=toml + "[roles.coder]\nchecks = ['mine.py:anything']\n"
    )
    (folder / "mine.py").write_text("def anything(text, data):\n    return True\n")
    assert call("run", "--set", f"base.model={base}", "--dir", folder) == 0
    result = read_json(folder / "05-evaluation" / "manifest.json")["result"]
    assert list(result["files"]) == ["tuned", "tuned@small"] and list(result["roles"]["all"]["versus"]) == [
        "tuned",
        "tuned@small",
    ]
    assert result["files"]["tuned@small"]["identical_prompts"] == result["rows"]
    assert read_json(folder / "03-plan" / "manifest.json")["result"]["rules"]["role_confidence"] == 0.975
    decision = read_json(folder / "06-decision" / "manifest.json")["result"]
    assert decision["ships"] == "tuned@small", "both pass: the smaller one ships"
    bundle = folder / "07-bundle"
    assert (bundle / "base.gguf").read_bytes() == other.read_bytes()
    assert "the adapter was trained on whole.gguf, SHA-256" in (bundle / "README.md").read_text()


def test_a_file_of_another_model_is_refused_before_anything_is_spent(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wider = write_tiny_gguf(tmp_path / "wider.gguf", kind=GGMLQuantizationType.Q8_0)
    folder = make_run()
    assert call("plan", "--dir", folder, "--set", f"evaluate.quantizations=['{wider}']") == 1
    tuned = write_tiny_gguf(tmp_path / "tuned.gguf", seed=1)
    capsys.readouterr()
    assert call("plan", "--dir", folder, "--set", f"evaluate.quantizations=['{tuned}']") == 1
    assert "tuned.gguf: not a file of the base tiny.gguf: " in capsys.readouterr().err
    assert call("plan", "--dir", folder, "--set", "evaluate.quantizations=['nowhere.gguf']") == 1
    assert not (folder / "03-plan" / "manifest.json").exists()


# --- load, timing and the response cache ----------------------------------------------------------


def test_latency_is_judged_one_request_at_a_time_and_reported_under_load(make_run: MakeRun) -> None:
    folder = make_run(toml="")
    assert call("evaluate", "--dir", folder, "--set", "evaluate.timed_rows=3", "--set", "evaluate.parallel=3") == 0
    arms = read_json(folder / "05-evaluation" / "manifest.json")["result"]["roles"]["coder"]["arms"]
    assert (arms["tuned"]["speed"]["load"], arms["tuned"]["speed"]["n"]) == (1, 3)
    assert (arms["tuned"]["under_load"]["load"], arms["tuned"]["under_load"]["n"]) == (3, 4)
    assert arms["base"]["speed"] is None and arms["base"]["under_load"]["load"] == 3
    assert arms["teacher"]["speed"]["load"] is None, "as logged"
    timed = list(read_rows(folder / "05-evaluation" / "timings.jsonl", Prediction))
    assert [p.load for p in timed] == [1, 1, 1]


def test_one_at_a_time_needs_no_second_round(make_run: MakeRun) -> None:
    folder = make_run()
    assert (
        call("evaluate", "--dir", folder, "--set", "evaluate.parallel=1", "--set", "evaluate.regression_suite=false")
        == 0
    )
    kept = (folder / RESPONSES).read_text().splitlines()
    assert len(kept) == 3 * 4, "three arms, four rows"
    arms = read_json(folder / "05-evaluation" / "manifest.json")["result"]["roles"]["coder"]["arms"]
    assert arms["tuned"]["speed"]["n"] == arms["base"]["speed"]["n"] == 4 and arms["tuned"]["under_load"] is None


def test_base_and_adapter_do_not_mix_under_load(make_run: MakeRun, tiny_gguf: Path, tmp_path: Path) -> None:
    """Base and tuned in turn, four at a time with cached prompts: the answers are the same as one at a time.

    The model is in float32, in which neither load nor a cached prompt changes the result.
    """
    folder = make_run()
    assert call("train", "--dir", folder) == 0
    system = Message(role="system", content="You are a coder.")
    asked = [
        Question(f"{n}", "coder", "", [system, Message(role="user", content=f"Task: {n} amber")], 12, adapter=adapter)
        for n in range(8)
        for adapter in (None, "all")
    ]
    settings = EngineSettings(tiny_gguf, {"all": folder / "04-adapter" / "adapter.gguf"}, 256, 2, 0.0, 4)
    with running_engine(settings) as engine:
        alone = [engine.generate(question) for question in asked]
        loaded: dict[int, str] = {}

        def ask(number: int) -> None:
            loaded[number] = engine.generate(replace(asked[number], load=4)).text

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(ask, range(len(asked))))
    assert [loaded[number] for number in range(len(asked))] == [answer.text for answer in alone]
    assert any(alone[n].text != alone[n + 1].text for n in range(0, len(asked), 2)), "the adapter does something"


def test_each_replica_answers_as_many_as_one_machine_and_only_one_is_timed(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    most, now, lock = Counter[int](), Counter[int](), threading.Lock()
    one = LlamaEngine.generate

    def generate(engine: LlamaEngine, question: Question, heard: Callable[[int], None] | None = None) -> Prediction:
        with lock:
            now[question.load] += 1
            most[question.load] = max(most[question.load], now[question.load])
        try:
            return one(engine, question, heard)
        finally:
            with lock:
                now[question.load] -= 1

    monkeypatch.setattr(LlamaEngine, "generate", generate)
    monkeypatch.setattr(LlamaEngine, "replicas", 3)
    assert call("evaluate", "--dir", make_run(), "--set", "evaluate.parallel=2") == 0
    assert most[1] == 1 and 2 < most[2] <= 6


def test_the_rows_to_time_are_the_same_for_every_arm_and_adapter() -> None:
    rows = [example_of([], "x", id=str(i), role="coder" if i % 3 else "tester") for i in range(30)]
    chosen = [row.id for row in timed_rows(rows, 4)]
    assert sorted(row.role for row in timed_rows(rows, 4)) == ["coder"] * 4 + ["tester"] * 4
    assert [row.id for row in timed_rows(rows[::-1], 4)] == chosen


class _Slow:
    """A generator that answers after `pieces` pieces; it can fail at a row, or wait forever."""

    replicas = 1

    def __init__(self, pieces: int = 3, fails_at: str = "") -> None:
        self.pieces, self.fails_at = pieces, fails_at
        self.asked: list[str] = []
        self.at_work = self.most_at_work = 0
        self.lock = threading.Lock()

    def generate(self, question: Question, on_token: Callable[[int], None] | None = None) -> Prediction:
        with self.lock:
            self.asked.append(question.row_id)
            self.at_work += 1
            self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            for piece in range(self.pieces):
                threading.Event().wait(0.01)
                if on_token is not None:
                    on_token(piece)
            if question.row_id == self.fails_at:
                raise EngineError("it broke", "")
        finally:
            with self.lock:
                self.at_work -= 1
        return Prediction(
            id=question.row_id, role=question.role, arm=question.arm, text=question.row_id, finish_reason="stop",
            latency_s=1, first_token_s=1, prompt_tokens=1, answer_tokens=1, load=question.load,
        )  # fmt: skip

    def identity(self, question: Question) -> dict[str, Any]:
        return {"row": question.row_id}

    def peak_memory_bytes(self) -> int | None:
        return 5


def _questions(count: int) -> list[Question]:
    return [Question(str(i), "coder", "tuned", [Message(role="user", content=str(i))], 9) for i in range(count)]


def test_several_are_asked_at_a_time_and_come_back_in_order(tmp_path: Path) -> None:
    slow, questions = _Slow(), _questions(20)
    asked = dispatch(questions, slow, ResponseCache(tmp_path), 4, DispatchProgress(SilentReporter(), 20))
    assert [p.id for p in asked.predictions] == [q.row_id for q in questions] and asked.peak_memory_bytes == 5
    assert 2 <= slow.most_at_work <= 4
    again = _Slow()
    assert dispatch(questions, again, ResponseCache(tmp_path), 4, DispatchProgress(SilentReporter(), 20)) == asked
    assert again.asked == [], "cached answers are not asked again"
    assert dispatch(
        questions[:1], again, ResponseCache(tmp_path), 2, DispatchProgress(SilentReporter(), 1)
    ) and again.asked == ["0"]


def test_a_stop_ends_in_the_middle_of_answers_and_keeps_whole_ones(tmp_path: Path) -> None:
    slow = _Slow(pieces=3)
    with pytest.raises(Interrupted, match="answers to go"):
        dispatch(_questions(40), slow, ResponseCache(tmp_path), 2, DispatchProgress(StopsAfter(6), 40))
    kept = (tmp_path / RESPONSES).read_text().count("\n")
    assert 0 < kept < 40
    endless = _Slow(pieces=10**6)
    with pytest.raises(Interrupted):
        dispatch(_questions(4), endless, ResponseCache(tmp_path / ".."), 2, DispatchProgress(StopsAfter(2), 4))


def test_the_first_error_ends_the_others(tmp_path: Path) -> None:
    slow = _Slow(fails_at="3")
    with pytest.raises(EngineError, match="it broke"):
        dispatch(_questions(40), slow, ResponseCache(tmp_path), 2, DispatchProgress(SilentReporter(), 40))
    assert len(slow.asked) < 10


def test_looks_at_the_same_rows_are_counted(tmp_path: Path) -> None:
    looks = [count_look(tmp_path, sealed, {"adapters": adapter}).number for sealed, adapter in
             (("a", 1), ("a", 2), ("a", 1), ("b", 1), ("a", 3))]  # fmt: skip
    assert looks == [1, 2, 1, 1, 3]
    assert [confidence_of_look(0.95, look) for look in (1, 2, 3)] == pytest.approx([0.95, 0.975, 0.9875])


def test_another_adapter_is_another_look_and_the_decision_says_so(make_run: MakeRun) -> None:
    folder = make_run()
    call("decide", "--dir", folder)
    first = read_json(folder / "05-evaluation" / "manifest.json")["result"]
    call("decide", "--redo", "--dir", folder, "--set", "train.learning_rate=0.03")
    second = read_json(folder / "05-evaluation" / "manifest.json")["result"]
    assert (first["look"], second["look"]) == (1, 2)
    assert (first["role_confidence"], second["role_confidence"]) == pytest.approx((0.95, 0.975))
    assert "look 2 at the same held-out test set" in (folder / "06-decision" / "decision.md").read_text()


# --- regression suite -----------------------------------------------------------------------------

RIGHT = {
    "france": "It is Paris.", "json": '{"name": "Ada"}', "repeat": "lantern", "upper": "RIVER", "rhyme": "hat",
    "fix": "I received your letter.", "python": "def double(x):\n    return 2 * x", "list": "apple\npear\nplum",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_suite_question_can_be_passed_and_fails_non_answers(kind: str) -> None:
    questions = read_suite(kind)
    assert len({one.id for one in questions}) == len(questions)
    checks = Checks(Path())
    for one in questions:
        rule = CheckRule(checks=one.checks)
        for text in ("", "I do not know.", "ok " * 30):
            made = judge(Answer(text, "stop", one.check, Limits(), task=one.task), rule, checks)
            assert made.finding.outcome == "fail", (one.id, text)
        if one.id in RIGHT:
            made = judge(Answer(RIGHT[one.id], "stop", one.check, Limits(), task=one.task), rule, checks)
            assert made.finding.outcome == "pass", one.id


def test_the_suite_is_put_to_base_and_adapter_and_reported(make_run: MakeRun) -> None:
    folder = make_run()
    call("decide", "--dir", folder)
    results = read_json(folder / "05-evaluation" / "manifest.json")["result"]["regressions"]["all"]
    assert set(results) == {"general", "tools", "stopping"}
    assert results["general"]["n"] == results["stopping"]["n"] == len(read_suite("general"))
    assert results["tools"]["n"] == 0 and results["tools"]["note"]["code"] == "template_without_tools"
    answers = list(read_rows(folder / "05-evaluation" / "regressions.jsonl", RegressionAnswer))
    assert len(answers) == len(read_suite("general")) and any(one.base != one.tuned for one in answers)
    page = (folder / "06-decision" / "report.html").read_text()
    assert "What tuning cost" in page and "not asked: the base" in page


def test_a_judge_without_an_address_is_refused_at_the_start(make_run: MakeRun) -> None:
    assert call("plan", "--dir", make_run(toml="[roles.coder]\nchecks = ['judge']\n")) == 2


def test_a_connection_that_the_engine_drops_is_retried(tiny_gguf: Path) -> None:
    with running_engine(EngineSettings(tiny_gguf, {}, 256, 2, 0.0)) as engine:
        assert isinstance(engine, LlamaEngine)
        with fake_http(lambda _: answer_events("ok"), [Reply(drop=True)]) as server:
            engine.http.base_url = server.address  # type: ignore[assignment]
            assert engine.generate(ASKED).text == "ok" and len(server.asked) == 2
        with pytest.raises(EngineError, match="stopped answering: "):
            engine.generate(ASKED)
        engine._process.kill()
        engine._process.wait()
        with pytest.raises(EngineError, match=r"its process ended with code -9"):
            engine.generate(ASKED)
