"""General rows through the stages: counted by the plan, trained beside the rows, the same after a stop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import example_of, log_row
from journeyman.artifacts import ADAPTER_FILE, read_rows, sha256_of
from journeyman.config import TrainConfig, load_config
from journeyman.errors import InputError, Interrupted, StaleArtifact
from journeyman.general_rows import FILE, general_prompts
from journeyman.inference.llama import LlamaEngine
from journeyman.manifests import AdapterManifest, DatasetManifest, PlanManifest
from journeyman.pipeline import read_result, run_pipeline
from journeyman.protocols import Question, SilentReporter
from journeyman.records import Example, Prediction
from journeyman.rendering.renderer import Rendered
from journeyman.retention import ROLE
from journeyman.runs import Run
from journeyman.sizing.serving_fitting import Serving
from journeyman.stages import plan_fitting
from journeyman.stages.train import jobs_of
from journeyman.time_history import comparisons
from journeyman.trials.rows import rows_of
from journeyman.trials.training import plan_of_trial, train_trial

MakeRun = Callable[..., Path]
_SHARE = ("train.retention.share=0.5", "train.retention.max_tokens=6")


@pytest.fixture(autouse=True)
def _talkative(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model writes nothing but line ends: general prompts get words, and every other answer is cut off."""
    one = LlamaEngine.generate

    def generate(engine: LlamaEngine, question: Question, heard: Callable[[int], None] | None = None) -> Prediction:
        said = one(engine, question, heard)
        if question.role != ROLE:
            return said
        number = sum(question.row_id.encode())
        return said.model_copy(update={"text": f"n{number % 97}", "finish_reason": ("stop", "length")[number % 2]})

    monkeypatch.setattr(LlamaEngine, "generate", generate)


def _run(folder: Path, *overrides: str) -> Run:
    return Run(folder, load_config(folder / "journeyman.toml", overrides))


class _Stops(SilentReporter):
    def advance(self, done: float, note: str = "") -> None:
        self.stop_requested = self.stop_requested or "step 2/" in note


def test_they_are_counted_trained_and_the_same_after_a_stop(make_run: MakeRun) -> None:
    whole, halted = _run(make_run(), *_SHARE), _run(make_run(name="halted"), *_SHARE)
    list(run_pipeline(whole, "train", SilentReporter()))
    rows = sum(split.train for split in whole.result("curate", DatasetManifest).splits.values())
    plan, trained = whole.result("plan", PlanManifest), whole.result("train", AdapterManifest)
    assert plan.general_rows == round(rows * 0.5) and 0 < plan.general_prompts <= plan.general_rows
    assert plan.steps_per_epoch == -(-(rows + plan.general_rows) // 4) and plan.total_steps == 2 * plan.steps_per_epoch
    general = list(read_rows(whole.file("train", FILE), Example))
    assert 0 < len(general) <= plan.general_prompts
    assert trained.adapters["all"].total_steps == plan.total_steps
    assert trained.tokens <= plan.total_tokens, "the plan counts each answer as long as it may be"
    assert "against forgetting" in (whole.folder("plan") / "plan.md").read_text()
    assert FILE in read_result(whole.root, "train")[0].files

    with pytest.raises(Interrupted):
        list(run_pipeline(halted, "train", _Stops()))
    made = sha256_of(halted.folder("train") / FILE)
    (halted.root / "evidence" / "response-cache.jsonl").unlink()
    *_, resumed = run_pipeline(halted, "train", SilentReporter())
    assert resumed.action == "resumed"
    assert sha256_of(halted.file("train", FILE)) == made, "the answers are those that training began with"
    assert sha256_of(halted.file("train", ADAPTER_FILE)) == sha256_of(whole.file("train", ADAPTER_FILE))


def test_each_role_s_adapter_has_its_share(make_run: MakeRun) -> None:
    rows = [log_row(i, role="coder" if i % 3 else "tester") for i in range(60)]
    run = _run(make_run(rows=rows), *_SHARE, "train.adapters=per-role")
    list(run_pipeline(run, "train", SilentReporter()))
    splits = run.result("curate", DatasetManifest).splits
    steps = {role: 2 * -(-(one.train + round(one.train * 0.5)) // 4) for role, one in splits.items()}
    trained = run.result("train", AdapterManifest).adapters
    assert {role: one.total_steps for role, one in trained.items()} == steps
    assert run.result("plan", PlanManifest).total_steps == sum(steps.values())


def test_what_changes_them_makes_training_stale_and_without_them_nothing_does(make_run: MakeRun) -> None:
    folder = make_run()
    list(run_pipeline(_run(folder), "train", SilentReporter()))
    *_, again = run_pipeline(_run(folder, "train.retention.max_tokens=7"), "train", SilentReporter())
    assert again.action == "fresh", "no general rows are trained"
    assert not (folder / "04-adapter" / FILE).exists()
    with pytest.raises(StaleArtifact, match=r"train\.retention") as refused:
        list(run_pipeline(_run(folder, "train.retention.share=0.5"), "train", SilentReporter()))
    remedy = "It was made without general rows, so add --set train.retention.share=0 to go on with it. "
    assert str(refused.value.remedy).startswith(remedy)

    (folder / "own.txt").write_text("What is a lake?\nName a tree.\nAdd 1 and 2.\n")
    own = ("train.retention.share=0.2", "train.retention.prompts=own.txt", "train.retention.max_tokens=6")
    list(run_pipeline(_run(folder, *own), "train", SilentReporter(), redo=True))
    general = list(read_rows(folder / "04-adapter" / FILE, Example))
    assert {row.messages[0].content for row in general} <= {"What is a lake?", "Name a tree.", "Add 1 and 2."}
    (folder / "own.txt").write_text("What is a river?\nName a tree.\nAdd 1 and 2.\n")
    with pytest.raises(StaleArtifact, match="general prompts"):
        list(run_pipeline(_run(folder, *own), "train", SilentReporter()))
    with pytest.raises(InputError, match=r"none\.txt"):
        list(run_pipeline(_run(folder, *own, "train.retention.prompts=none.txt"), "plan", SilentReporter(), redo=True))


def test_by_default_a_base_without_answers_is_trained_without_them_and_refused_if_they_are_asked_for(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = LlamaEngine.generate

    def says_nothing(engine: LlamaEngine, question: Question, heard: Callable[[int], None] | None = None) -> Prediction:
        return asked(engine, question, heard).model_copy(update={"text": " "})

    monkeypatch.setattr(LlamaEngine, "generate", says_nothing)
    folder = make_run()
    with pytest.raises(InputError, match="no answer to 3 general prompts"):
        list(run_pipeline(_run(folder, "train.retention.share=0.1"), "train", SilentReporter()))
    config = folder / "journeyman.toml"
    config.write_text(config.read_text().replace("[train.retention]\nshare = 0\n", ""))
    run = _run(folder)
    assert run.config.train.retention.share == 0.1
    list(run_pipeline(run, "train", SilentReporter(), redo=True))
    assert not list(read_rows(run.file("train", FILE), Example))


def test_by_default_a_base_that_only_a_server_has_is_trained_without_them(make_run: MakeRun) -> None:
    run = _run(make_run(), "train.retention.share=0.5")
    run.__dict__["served"] = []
    with pytest.raises(InputError, match="only a server may ship"):
        general_prompts(run, run.config.train, {"coder": 100})
    assert general_prompts(run, TrainConfig(), {"coder": 100}) == []


def test_training_does_not_resume_without_them(make_run: MakeRun) -> None:
    folder = make_run()
    config = folder / "journeyman.toml"
    config.write_text(
        config.read_text().replace("[train.retention]\nshare = 0\n", "[train.retention]\nmax_tokens = 6\n")
    )
    with pytest.raises(Interrupted):
        list(run_pipeline(_run(folder), "train", _Stops()))
    assert (folder / "04-adapter" / FILE).is_file()
    run = _run(folder)
    run.__dict__["served"] = []
    with pytest.raises(StaleArtifact, match="general prompts"):
        list(run_pipeline(run, "train", SilentReporter()))


def test_an_evaluation_is_compared_with_its_prediction_all_the_same(make_run: MakeRun) -> None:
    run = _run(make_run(), *_SHARE)
    list(run_pipeline(run, "evaluate", SilentReporter()))
    assert [(one.stage, one.cached) for one in comparisons(run.root)] == [("train", False), ("evaluate", False)]


def test_they_count_neither_for_the_context_of_serving_nor_as_rows_of_a_role(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, longest = _run(make_run(), "train.retention.share=0.5", "train.retention.max_tokens=700"), []

    def serving(**given: Any) -> Serving:
        longest.append(given["longest_row"])
        return Serving(**given)

    monkeypatch.setattr(plan_fitting, "Serving", serving)
    list(run_pipeline(run, "plan", SilentReporter()))
    assert longest == [run.result("curate", DatasetManifest).longest_row_tokens] and longest[0] < 700


def test_rows_have_names_for_errors(tmp_path: Path) -> None:
    rows = [example_of([], "x", id=f"row-{number}", role=role) for number, role in enumerate(("a", "b", "b"))]
    rendered = [Rendered([number, 2], 1) for number in range(3)]
    plan = PlanManifest.model_construct(pack_tokens=9, group_tokens=0, matrix_gflops=1.0)
    config = TrainConfig.model_validate({"adapters": "per-role", "retention": {"share": 1.0}})
    jobs = jobs_of(plan, config, (rows, rendered), ([], []), [Rendered([7, 2], 1)], "", tmp_path)
    general = "line 1 of general.jsonl"
    assert jobs["a"].names == ["row-0", general] and jobs["b"].names == ["row-1", "row-2", general, general]
    assert all(len(one.names) == len(one.train) for one in jobs.values())


def test_a_share_that_is_less_than_a_row_trains_none(make_run: MakeRun) -> None:
    run = _run(make_run(), "train.retention.share=0.01")
    list(run_pipeline(run, "train", SilentReporter()))
    assert run.result("plan", PlanManifest).general_rows == 0
    assert not (run.folder("train") / FILE).exists()


def test_a_trial_trains_them_too(make_run: MakeRun, tmp_path: Path) -> None:
    run = _run(make_run(), *_SHARE)
    list(run_pipeline(run, "plan", SilentReporter()))
    rows = rows_of(run)
    made, _ = train_trial(run, run.config.train, rows, tmp_path / "trial", SilentReporter())
    steps = 2 * -(-(len(rows.train) + round(len(rows.train) * 0.5)) // 4)
    assert made.adapters["all"].total_steps == plan_of_trial(run, run.config.train, rows).total_steps == steps
    (file,) = (tmp_path / "trial").glob(f"general-*/{FILE}")
    assert list(read_rows(file, Example))
