"""Another trainer's settings: each mistake in them is named, with its figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from journeyman.errors import UsageError
from journeyman.lints.explaining import explanation, explanations
from journeyman.lints.recipe_file import RecipeFile, facts_of_file, facts_of_recipe
from journeyman.lints.table import findings

FIXTURE = Path(__file__).with_name("coder-7b.toml")


def test_every_mistake_of_a_teams_first_recipe_is_named() -> None:
    found = {one.reason.code: one for one in findings(facts_of_file(FIXTURE))}
    said = {
        code: f"{one.reason.sentence()}. {one.reason.what_to_do()}"
        for code, one in found.items()
    }  # fmt: skip
    expected = {
        "warmup_never_ends": "warmup_steps = 50 is not below the run's 45 steps",
        "no_checkpoint_in_run": "a checkpoint every 50 steps, in a run of 45",
        "no_validation_in_run": "a validation every 50 steps, in a run of 45",
        "early_stopping_never": "the run makes none",
        "expected_steps": "240 expected, 45 is right",
        "expected_trainable_parameters": "7,000,000 expected, 5,046,272 is right. It is rank × (inputs + outputs)",
        "expected_base_gb": "14.0 GB expected, 30.5 GB is right",
        "few_training_rows": "reviewer: few training rows (2)",
        "cannot_tell_success": "31 test rows cannot tell a success of 98% from 93%",
        "other_family": "(Qwen2.5), but the deployed model names qwen3-coder:30b (Qwen3)",
        "attention_only": "attention only",
    }
    assert {code: text for code, text in expected.items() if text not in said.get(code, "")} == {}
    assert set(said) - set(expected) == {"too_few_test_rows"}, "and nothing else"
    assert said["too_few_test_rows"].startswith("all: 31 test rows"), "which roles they belong to is not known"
    assert "best model" in said["no_checkpoint_in_run"]
    errors = {code for code, one in found.items() if one.is_error}
    assert errors == {
        "warmup_never_ends", "no_checkpoint_in_run", "no_validation_in_run", "expected_steps", "expected_base_gb",
        "other_family",
    }  # fmt: skip


def test_the_command_prints_the_mistakes_and_ends_in_no_go(capsys: pytest.CaptureFixture[str]) -> None:
    assert _call("plan", "--recipe", FIXTURE) == 3
    printed = capsys.readouterr()
    assert "trainable_parameters: 5,046,272" in printed.out and "steps: 45\n" in printed.out
    assert printed.out.count("\nerror ") == 6 and printed.out.rstrip().endswith("no go: 6 errors")
    assert "--explain other_family" in printed.err and "Traceback" not in printed.err


def test_a_corrected_recipe_is_a_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = FIXTURE.read_text()
    for old, new in (
        ("warmup_steps = 50", "warmup_ratio = 0.1"), ("save_steps = 50", "save_steps = 8"),
        ("eval_steps = 50", "eval_steps = 8"), ("qwen3-coder:30b", "qwen2.5-coder:7b"), ("steps = 240", "steps = 45"),
        ("base_gb = 14", "base_gb = 30.5"), ("trainable_parameters = 7_000_000", "trainable_parameters = 5_000_000"),
    ):  # fmt: skip
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "better.toml").write_text(text)
    assert _call("plan", "--recipe", tmp_path / "better.toml") == 0
    assert capsys.readouterr().out.rstrip().endswith("go")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("learning_rate", "learning_rat", "Did you mean recipe.learning_rate?"),
        ("lora_alpha", "lora_alfa", "Did you mean recipe.lora_alpha?"),
        ("steps = 240", "stepps = 240", "Did you mean expect.steps?"),
        ("r = 8", "r = 0", "recipe.r: Input should be greater than or equal to 1"),
        ('dtype = "float32"', 'dtype = "int3"', "recipe.dtype"),
        ("[rows]", "[rows", "not valid TOML"),
    ],
)
def test_a_wrong_key_or_value_is_one_sentence(old: str, new: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(FIXTURE.read_text().replace(old, new, 1))
    with pytest.raises(UsageError) as error:
        facts_of_file(tmp_path / "r.toml")
    assert told in str(error.value)


def test_no_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        facts_of_file(tmp_path / "none.toml")


def test_a_base_that_is_not_known_leaves_figures_out() -> None:
    file = RecipeFile.model_validate({"recipe": {"base_model": "someone/else"}, "rows": {"train": 100}})
    facts = facts_of_recipe(file)
    assert set(facts.figures) == {"steps_per_epoch", "steps", "train_rows", "test_rows"}
    assert facts.figures["steps"] == 3 * 13
    assert findings(facts)


def test_everything_that_a_lint_says_is_explained() -> None:
    from journeyman.reasons import dataset, expectations, kinds, lints, machine, planning

    mine = {one.code for module in (lints, machine, expectations) for one in kinds().values()
            if one.__module__ == module.__name__}  # fmt: skip
    mine |= {
        one.code for one in kinds().values() if one.fix and one.__module__ in (planning.__name__, dataset.__name__)
    }
    assert mine == set(explanations())
    for code in mine:
        assert explanation(code)[0] == code and explanation(code)[1:]


def test_an_explanation_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert _call("plan", "--explain", "warmup_never_ends") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("warmup_never_ends\n") and "Source:" in printed and 5 <= printed.count("\n") <= 12
    assert _call("plan", "--explain", "warmup_never_end") == 2
    assert "Did you mean warmup_never_ends?" in capsys.readouterr().err
    assert _call("plan", "--explain", "few_labels", "--redo") == 2


def _call(*arguments: object) -> int:
    from test_pipeline import call

    return call(*arguments)
