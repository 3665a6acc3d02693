"""The plan stage: its page and its lints, from a run's own config; a plan with errors is no go."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from journeyman.config import Config, parse_config
from journeyman.errors import UsageError
from journeyman.lints.facts import Facts, Judging, RoleRows
from journeyman.lints.table import findings
from journeyman.manifests import DatasetManifest, PlanManifest, SplitCounts
from journeyman.models.known import known_base
from journeyman.runs import typed_result
from journeyman.sizing.disk import Written, bits_of_format, disk_needs
from journeyman.sizing.parameters import lora_parameters
from journeyman.stages import plan_facts
from test_pipeline import call

MakeRun = Callable[..., Path]
Captured = pytest.CaptureFixture[str]

# --- the recipe of a team's first fine-tuning, as journeyman's own config --------------------------

TRAIN_ROWS = {"coder": 140, "tester": 59, "researcher": 21, "coordinator": 16, "reviewer": 2}


def _first_recipe() -> Config:
    return parse_config(
        {
            "base": {"model": "Qwen/Qwen2.5-Coder-7B-Instruct"},
            "train": {"preset": "attention-r8", "checkpoint_steps": 50, "checkpoint_s": 1e6, "precision": "float32"},
            "serve": {"engine_model": "qwen3-coder:30b"},
            "decide": {"min_success": 0.98},
            "plan": {"expect": {"steps": 240, "trainable_parameters": 7_000_000, "base_gb": 14}},
        },
        "journeyman.toml",
    )


def _facts(config: Config) -> Facts:
    known = known_base(config.base.model)
    assert known is not None
    sizes, train = known.geometry, config.train
    held_out = {"coder": (17, 18), "tester": (7, 8), "researcher": (3, 3), "coordinator": (2, 2), "reviewer": (0, 0)}
    splits = {
        role: SplitCounts(train=rows, val=held_out[role][0], test=held_out[role][1], effective_test=held_out[role][1])
        for role, rows in TRAIN_ROWS.items()
    }
    dataset = DatasetManifest.model_construct(splits=splits, rules={}, teachers={"tongyi/qwen3-coder": None})
    runs = plan_facts.runs_of(dataset, train)
    base = plan_facts.BaseFacts(names=[config.base.model], sizes=sizes)
    figures = {
        "steps": runs[""].steps,
        "trainable_parameters": lora_parameters(sizes, train.lora.rank, train.lora.targets),
        "base_gb": sizes.parameters * 4 / 1e9,
    }
    return Facts(
        recipe=plan_facts.recipe_of(train, "float32", runs[""].steps_per_epoch), runs=runs,
        roles=plan_facts.roles_of(dataset, {}), base=base, judging=Judging(0.98, 0.95, 0.99),
        models=plan_facts.models_of(dataset, config), train_s=16 * 3600,
        expected=config.plan.expect.stated(), figures=figures,
    )  # fmt: skip


def test_the_plan_names_every_mistake_of_a_teams_first_config() -> None:
    found = findings(_facts(_first_recipe()))
    said = {(one.reason.code, one.is_error) for one in found}
    assert said >= {
        ("warmup_never_ends", True), ("no_checkpoint_in_run", False), ("expected_steps", True),
        ("expected_trainable_parameters", False), ("expected_base_gb", True), ("few_training_rows", False),
        ("too_few_test_rows", False), ("cannot_tell_success", False), ("other_family", True), ("attention_only", False),
    }  # fmt: skip
    text = "\n".join(one.reason.sentence() for one in found)
    for figure in (
        "45 steps", "90% of its peak of 0.0002", "240 expected, 45 is right", "7,000,000 expected, 5,046,272 is right",
        "14.0 GB expected, 30.5 GB", "reviewer: few training rows (2)", "31 test rows", "98% from 93%",
        "serve.engine_model names qwen3-coder:30b (Qwen3)", "the logs names tongyi/qwen3-coder (Qwen3)",
    ):  # fmt: skip
        assert figure in text, figure


def test_the_teacher_is_a_warning_and_the_served_model_an_error() -> None:
    found = [one for one in findings(_facts(_first_recipe())) if one.reason.code == "other_family"]
    assert [one.is_error for one in found] == [True, False]


def test_steps_and_validations_are_those_that_the_loop_makes() -> None:
    """238 rows in batches of 16 are 15 steps, the last of which is smaller; two validations are made per epoch."""
    config = _first_recipe()
    run = _facts(config).runs[""]
    assert (run.rows, run.steps_per_epoch, run.steps) == (238, 15, 45)
    assert run.validations == len({8, 16, 24, 32, 40, 45})
    per_role = parse_config({"train": {"adapters": "per-role", "batch_size": 16}}, "x")
    splits = {role: SplitCounts(train=rows, val=0, test=0, effective_test=0) for role, rows in TRAIN_ROWS.items()}
    runs = plan_facts.runs_of(DatasetManifest.model_construct(splits=splits), per_role.train)
    assert {role: one.steps_per_epoch for role, one in runs.items()} == {
        "coder": 9, "tester": 4, "researcher": 2, "coordinator": 1, "reviewer": 1,
    }  # fmt: skip


# --- runs ------------------------------------------------------------------------------------------


def _plan(folder: Path) -> PlanManifest:
    return typed_result(folder, "plan", PlanManifest)


def test_a_plan_with_errors_is_no_go_until_they_are_corrected_or_accepted(make_run: MakeRun, capsys: Captured) -> None:
    folder = make_run(toml="")
    long = ["--set", "train.warmup_steps=500", "--set", "plan.expect.steps=16"]
    assert call("plan", "--dir", folder, *long) == 3
    printed = capsys.readouterr()
    assert "error warmup_never_ends: warmup_steps = 500" in printed.out and "\nno go: 1 error\n" in printed.out
    assert "--explain warmup_never_ends" in printed.err
    page = (folder / "03-plan" / "plan.md").read_text()
    assert page.rstrip().endswith("**no go: 1 error**")
    assert [one.code for one in _plan(folder).errors] == ["warmup_never_ends"]

    assert call("train", "--dir", folder, *long) == 3
    assert not (folder / "04-adapter").exists() and "warmup_never_ends" in capsys.readouterr().err
    assert call("plan", "--dir", folder) == 0, "what was no go is made anew, without --redo"
    assert not _plan(folder).errors
    assert (folder / "03-plan" / "plan.md").read_text().rstrip().endswith("**go**")
    assert call("plan", "--dir", folder, *long) == 1, "a plan that was a go is not replaced without being told"
    accepted = ["--set", "plan.allow=['warmup_never_ends']", "--redo"]
    assert call("plan", "--dir", folder, *long, *accepted) == 0
    plan = _plan(folder)
    assert not plan.errors and "warmup_never_ends" in [one.code for one in plan.warnings]


def test_the_page_has_its_sections_and_ends_in_go(make_run: MakeRun, capsys: Captured) -> None:
    folder = make_run(toml="")
    assert call("plan", "--dir", folder) == 0
    printed = capsys.readouterr().out
    page = (folder / "03-plan" / "plan.md").read_text()
    titles = ["What", "Time", "Memory", "Disk", "Decision rules, fixed now", "Power", "Lints"]
    assert [line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")] == titles
    assert [one for one in printed.splitlines() if one.isupper()] == [title.upper() for title in titles]
    plan = _plan(folder)
    assert plan.rows["coder"].test == 4 and sum(plan.teachers.values()) == 40
    assert plan.disk is not None and plan.disk.needs["bundle"] > plan.served[0].size_gb * 1e9
    (success,) = [one for one in plan.rule_power if one.rule == "success"]
    assert success.of == "coder" and success.shown is None and (success.rows_needed or 0) > 500
    assert "even if all pass" in printed and "coder: 32 to train, 4 to validate, 4 held out" in printed


def test_changed_settings_that_only_lints_look_at_make_the_plan_anew(make_run: MakeRun) -> None:
    folder = make_run(toml="")
    assert call("plan", "--dir", folder, "--set", "evaluate.max_new_tokens=3") == 0
    assert "answers_over_limit" in [one.code for one in _plan(folder).warnings]
    assert call("plan", "--dir", folder, "--set", "evaluate.max_new_tokens=100") == 0, "nothing is built on it yet"
    assert "answers_over_limit" not in [one.code for one in _plan(folder).warnings]


def test_once_it_is_trained_by_a_plan_is_kept(make_run: MakeRun, capsys: Captured) -> None:
    folder = make_run(toml="")
    assert call("plan", "--dir", folder) == 0
    (folder / "04-adapter").mkdir()
    assert call("plan", "--dir", folder) == 0
    assert "other settings" not in capsys.readouterr().err
    assert call("plan", "--dir", folder, "--set", "evaluate.max_new_tokens=3") == 0
    told = capsys.readouterr().err
    assert "plan      unchanged" in told and "evaluate.max_new_tokens (then 8, now 3)" in told, told


def test_a_disk_that_is_too_small_is_no_go(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    from collections import namedtuple

    folder = make_run(toml="")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(plan_facts.shutil, "disk_usage", lambda _: usage(10, 9, 1000))
    assert call("plan", "--dir", folder) == 3
    assert [one.code for one in _plan(folder).errors] == ["disk_too_small"]
    monkeypatch.undo()
    assert call("plan", "--dir", folder) == 0, "free space is looked at again"


def test_codes_to_allow_must_exist() -> None:
    with pytest.raises(UsageError, match="did you mean warmup_never_ends"):
        parse_config({"plan": {"allow": ["warmup_never_end"]}}, "journeyman.toml")


def test_a_plan_of_an_older_version_is_a_go(make_run: MakeRun) -> None:
    folder = make_run(toml="")
    assert call("plan", "--dir", folder) == 0
    values = json.loads((folder / "03-plan" / "manifest.json").read_text())["result"]
    for name in ("errors", "rule_power", "disk", "teachers", "rows", "license", "serving"):
        values.pop(name)
    assert PlanManifest.model_validate(values).is_go


# --- the arithmetic of the disk --------------------------------------------------------------------


def test_what_a_run_writes() -> None:
    run = Written(trainable=10**6, adapters=2, parameters=10**9, merged=["Q8_0", "F16"], ships=5 * 10**9, rows=100,
                  arms=3, answer_tokens=500)  # fmt: skip
    needs = disk_needs(run)
    assert needs["checkpoints"] == 2 * 3 * 20 * 10**6
    assert needs["adapters"] == 2 * 8 * 10**6
    assert needs["merged files"] == int((8.5 + 16) / 8 * 10**9)
    assert needs["bundle"] == 5 * 10**9 + needs["adapters"]
    assert 300 * 4000 < needs["answers, cache and report"] < 300 * 20_000
    assert bits_of_format("Q4_K_M") == 5.0 and bits_of_format("IQ4_XS") == 4.5 and bits_of_format("BF16") == 16.0


def test_lengths_and_long_rows_are_counted_by_role(make_run: MakeRun) -> None:
    folder = make_run(toml="")
    assert call("curate", "--dir", folder) == 0
    rows = folder / "02-dataset" / "train.jsonl"
    lengths = plan_facts.lengths_by_role(rows, 4)
    assert lengths["coder"].answer > lengths["coder"].over > 0 and lengths["coder"].longest == 5
    dataset = typed_result(folder, "curate", DatasetManifest)
    (role,) = plan_facts.roles_of(dataset, lengths).values()
    assert isinstance(role, RoleRows) and (role.train, role.too_long) == (32, 0)
    assert role.prompt_tokens + role.answer_tokens == dataset.train_tokens


def test_redo_measures_again_until_something_is_trained(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(toml="")
    for arguments, said in (
        (["plan"], "plan      made"), (["plan"], "plan      unchanged"), (["plan", "--redo"], "plan      made"),
        (["train"], "plan      unchanged"), (["plan", "--redo"], "plan      unchanged"),
    ):  # fmt: skip
        assert call(*arguments, "--dir", folder) == 0
        assert said in capsys.readouterr().err
