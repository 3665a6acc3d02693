"""The settings of another trainer, and what its user expects of them, as facts for the lints: journeyman plan --recipe.

The keys of [recipe] are those of Hugging Face's TrainingArguments and peft's LoraConfig, or journeyman's own.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field, ValidationError

from journeyman.config import ExpectConfig, Section
from journeyman.errors import UsageError
from journeyman.lints.facts import AdapterRun, BaseFacts, Facts, Judging, NamedModel, Recipe, RoleRows
from journeyman.models.known import known_base
from journeyman.models.sizes import Sizes
from journeyman.sizing.parameters import lora_parameters

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_WHOLE = "all roles"
"""What the rows are called if the file does not say which roles they have."""


def _named(*names: str) -> Any:
    return AliasChoices(*names)


def _dtype(value: Any) -> Any:
    return {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}.get(value, value)


def _targets(value: Any) -> Any:
    return list(_ALL) if value == "all-linear" else value


class RecipeSection(Section):
    """[recipe]: the trainer's settings."""

    base_model: str = Field(validation_alias=_named("base_model", "model_name_or_path", "base_model_name_or_path"))
    epochs: int = Field(3, ge=1, validation_alias=_named("epochs", "num_train_epochs"))
    batch_size: int = Field(8, ge=1, validation_alias=_named("batch_size", "per_device_train_batch_size"))
    gradient_accumulation: int = Field(
        1, ge=1, validation_alias=_named("gradient_accumulation", "gradient_accumulation_steps")
    )
    learning_rate: float = Field(5e-5, gt=0)
    warmup_steps: int = Field(0, ge=0)
    warmup_ratio: float = Field(0.0, ge=0, le=1)
    rank: int = Field(8, ge=1, validation_alias=_named("rank", "r", "lora_r"))
    alpha: float = Field(8, gt=0, validation_alias=_named("alpha", "lora_alpha"))
    targets: Annotated[list[str], BeforeValidator(_targets)] = Field(
        list(_ALL), min_length=1, validation_alias=_named("targets", "target_modules")
    )
    precision: Annotated[Literal["float32", "bfloat16", "float16"], BeforeValidator(_dtype)] = Field(
        "float32", validation_alias=_named("precision", "dtype", "torch_dtype")
    )
    save_steps: int | None = Field(None, ge=1)
    eval_steps: int | None = Field(None, ge=1)
    load_best_model_at_end: bool = False
    early_stopping_patience: int | None = Field(None, ge=1)


class RowsSection(Section):
    """[rows]: how many rows; `train` may be a table of roles."""

    train: int | dict[str, int]
    val: int = Field(0, ge=0)
    test: int = Field(0, ge=0)


class SystemSection(Section):
    """[system]: what other parts of the system name."""

    deployed_model: str = ""
    config_model: str = Field("", description="the model that another config or script names")
    logged_models: list[str] = Field(default_factory=list, description="teachers in the logs")


class RulesSection(Section):
    """[decide]: the rule for success."""

    min_success: float = Field(0.98, gt=0, le=1)
    confidence: float = Field(0.95, gt=0.5, lt=1)


class RecipeFile(Section):
    """The whole file."""

    recipe: RecipeSection
    rows: RowsSection
    system: SystemSection = SystemSection()
    decide: RulesSection = RulesSection()
    expect: ExpectConfig = ExpectConfig()


def facts_of_file(path: Path) -> Facts:
    """Reads the file.

    Raises:
        UsageError: there is no such file, it is not TOML, or a key or a value is not known.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read: {error.strerror}", "Name a TOML file; see docs/how-to/plan.md"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}", "Fix that line and run the command again") from error
    try:
        return facts_of_recipe(RecipeFile.model_validate(data))
    except ValidationError as error:
        raise _usage_error(path, error) from error


def facts_of_recipe(file: RecipeFile) -> Facts:
    """What the settings come to."""
    recipe, known = file.recipe, known_base(file.recipe.base_model)
    sizes = None if known is None else known.geometry
    train = file.rows.train if isinstance(file.rows.train, dict) else {_WHOLE: file.rows.train}
    run = _run(recipe, sum(train.values()), file.rows.val > 0)
    return Facts(
        recipe=_recipe(recipe, run),
        runs={"": run},
        roles={role: RoleRows(count) for role, count in train.items()},
        held_out=RoleRows(0, file.rows.val, file.rows.test, float(file.rows.test)),
        base=BaseFacts(names=[recipe.base_model], sizes=sizes),
        judging=Judging(file.decide.min_success, file.decide.confidence, file.decide.confidence),
        models=_models(file.system),
        expected=file.expect.stated(),
        figures=_figures(recipe, run, sizes, file.rows.test),
    )


def _run(recipe: RecipeSection, rows: int, validates: bool) -> AdapterRun:
    """The steps as Hugging Face's Trainer counts them: a last, smaller batch is a step as well."""
    batches = math.ceil(rows / recipe.batch_size)
    per_epoch = max(1, math.ceil(batches / recipe.gradient_accumulation))
    steps = per_epoch * recipe.epochs
    validations = steps // recipe.eval_steps if validates and recipe.eval_steps else None
    return AdapterRun(rows, per_epoch, steps, validations)


def _recipe(recipe: RecipeSection, run: AdapterRun) -> Recipe:
    return Recipe(
        epochs=recipe.epochs,
        rows_per_step=recipe.batch_size * recipe.gradient_accumulation,
        learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup_steps or math.ceil(recipe.warmup_ratio * run.steps),
        rank=recipe.rank,
        alpha=recipe.alpha,
        targets=recipe.targets,
        precision=recipe.precision,
        patience=recipe.early_stopping_patience,
        checkpoint_steps=recipe.save_steps,
        validation_steps=recipe.eval_steps,
        best_is_checkpoint=recipe.load_best_model_at_end or recipe.early_stopping_patience is not None,
    )


def _models(system: SystemSection) -> list[NamedModel]:
    return [
        NamedModel("the deployed model", system.deployed_model),
        NamedModel("another config", system.config_model),
        *(NamedModel("the logs", name, may_differ=True) for name in system.logged_models),
    ]


def _figures(recipe: RecipeSection, run: AdapterRun, sizes: Sizes | None, test: int) -> dict[str, float]:
    figures: dict[str, float] = {
        "steps_per_epoch": run.steps_per_epoch, "steps": run.steps, "train_rows": run.rows, "test_rows": test,
    }  # fmt: skip
    if sizes is not None:
        figures |= {
            "base_parameters": sizes.parameters,
            "base_gb": sizes.parameters * _BYTES[recipe.precision] / 1e9,
            "trainable_parameters": lora_parameters(sizes, recipe.rank, recipe.targets),
        }
    return figures


def _usage_error(path: Path, error: ValidationError) -> UsageError:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    name = ".".join(place)
    if first["type"] != "extra_forbidden":
        return UsageError(f"{path}: {name}: {first['msg']}", "Fix the value and run the command again")
    near = difflib.get_close_matches(place[-1], _keys(place[:-1]), n=1)
    hint = f"Did you mean {'.'.join([*place[:-1], near[0]])}?" if near else "See docs/how-to/plan.md for the keys"
    return UsageError(f"{path}: unknown key {name}", hint)


def _keys(place: list[str]) -> list[str]:
    section: type[BaseModel] = RecipeFile
    for part in place:
        found = section.model_fields[part].annotation if part in section.model_fields else None
        if not (isinstance(found, type) and issubclass(found, BaseModel)):
            return []
        section = found
    names = [
        str(alias)
        for field in section.model_fields.values()
        if isinstance(field.validation_alias, AliasChoices)
        for alias in field.validation_alias.choices
    ]
    return [*section.model_fields, *names]
