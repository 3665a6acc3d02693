"""Collects what the plan's lints look at: from the dataset, the config, the base and the machine."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from journeyman.artifacts import read_rows
from journeyman.config import EMBEDDED, Config, TrainConfig, TrainRowsConfig
from journeyman.inference.arm_runner import askable_suite
from journeyman.lints.facts import (
    AdapterRun,
    BaseFacts,
    Judging,
    Limits,
    Machine,
    NamedModel,
    Recipe,
    RoleRows,
    WeightFile,
)
from journeyman.manifests import DatasetManifest, DiskPlan, PlannedFile, Rules, SplitCounts, TrainTime
from journeyman.model_files import size_of_model
from journeyman.models.sizes import Sizes
from journeyman.processors import cores_used_by_others, usable_cores
from journeyman.records import Example
from journeyman.regression_suite import KINDS, read_suite
from journeyman.rendering.named import NAMED
from journeyman.rendering.renderer import Renderer
from journeyman.retention import NO_LOAD, GeneralLoad
from journeyman.sizing.disk import Written, disk_needs
from journeyman.training.batches import steps_per_epoch
from journeyman.training.hardware import has_native_bfloat16
from journeyman.training.loop import validation_interval
from journeyman.training.placement import Placement
from journeyman.training.row_rules import trained_rows

_EMBEDDED_NAME = "SmolLM2-135M-Instruct"


@dataclass
class RowLengths:
    """Tokens of a role's training rows; `over`: answers that are longer than the limit."""

    prompt: int = 0
    answer: int = 0
    longest: int = 0
    over: int = 0


def lengths_by_role(rows: Path, limit: int) -> Mapping[str, RowLengths]:
    """Reads the training rows. `limit`: evaluate.max_new_tokens."""
    found: dict[str, RowLengths] = defaultdict(RowLengths)
    for row in read_rows(rows, Example):
        one = found[row.role]
        one.prompt += row.prompt_tokens
        one.answer += row.answer_tokens
        one.longest = max(one.longest, row.answer_tokens)
        one.over += row.answer_tokens > limit
    return found


def trained_part(dataset: DatasetManifest, rows: Path, rule: TrainRowsConfig) -> DatasetManifest:
    """The dataset with those training rows that [train.rows] leaves."""
    if rule == TrainRowsConfig():
        return dataset
    kept = trained_rows(read_rows(rows, Example), rule)
    counts = Counter(row.role for row in kept)
    splits = {role: split.model_copy(update={"train": counts[role]}) for role, split in dataset.splits.items()}
    tokens = sum(row.prompt_tokens + row.answer_tokens for row in kept)
    return dataset.model_copy(update={"splits": splits, "train_tokens": tokens})


def roles_of(dataset: DatasetManifest, lengths: Mapping[str, RowLengths]) -> dict[str, RoleRows]:
    """Role → its rows."""
    long = dataset.rules.get("too_long")
    too_long = {} if long is None else {role: n for by in (long.dropped, long.noted) for role, n in by.items()}
    return {role: _role(split, lengths.get(role, RowLengths()), too_long.get(role, 0))
            for role, split in dataset.splits.items()}  # fmt: skip


def _role(split: SplitCounts, lengths: RowLengths, too_long: int) -> RoleRows:
    return RoleRows(
        train=split.train, val=split.val, test=split.test, effective_test=split.effective_test, too_long=too_long,
        prompt_tokens=lengths.prompt, answer_tokens=lengths.answer, over_limit=lengths.over,
        longest_answer=lengths.longest,
    )  # fmt: skip


def runs_of(dataset: DatasetManifest, train: TrainConfig, general: GeneralLoad = NO_LOAD) -> dict[str, AdapterRun]:
    """Adapter → its training; "" if all roles share one."""
    rows = {"": sum(split.train for split in dataset.splits.values())}
    if train.adapters == "per-role":
        rows = {role: split.train for role, split in dataset.splits.items()}
    return {name: _run(count, train, general.rows(count, train.retention.share)) for name, count in rows.items()}


def _run(rows: int, train: TrainConfig, beside: int) -> AdapterRun:
    per_epoch = steps_per_epoch(rows + beside, train.rows_per_step)
    steps, every = per_epoch * train.epochs, validation_interval(per_epoch)
    return AdapterRun(rows, per_epoch, steps, steps // every + (steps % every > 0), general_rows=beside)


def validation_tokens(dataset: DatasetManifest) -> float:
    """Of the validation rows, if they are as long as the training rows on average."""
    train = sum(one.train for one in dataset.splits.values())
    val = sum(one.val for one in dataset.splits.values())
    return val * dataset.train_tokens / max(1, train)


def recipe_of(train: TrainConfig, precision: str, per_epoch: int) -> Recipe:
    """The recipe. `precision`: that was chosen; `per_epoch`: steps of an epoch of the longest run."""
    return Recipe(
        epochs=train.epochs,
        rows_per_step=train.rows_per_step,
        learning_rate=train.learning_rate,
        warmup_steps=train.warmup_steps,
        rank=train.lora.rank,
        alpha=train.lora.alpha,
        targets=train.lora.targets,
        precision=precision,
        precision_asked=train.precision != "auto",
        warmup_asked="warmup_steps" in train.model_fields_set,
        patience=train.patience,
        checkpoint_steps=train.checkpoint_steps,
        checkpoint_s=train.checkpoint_s,
        validation_steps=validation_interval(per_epoch),
    )


def base_of(config: Config, path: Path, sizes: Sizes) -> BaseFacts:
    """The base, with all its names."""
    named = _EMBEDDED_NAME if config.base.model == EMBEDDED else config.base.model
    chosen = config.base.chat_template
    return BaseFacts(
        names=list(dict.fromkeys((named, path.name, path.parent.name))),
        chat_template=chosen if chosen in NAMED else "",
        sizes=sizes,
        file=_weights(path.name, size_of_model(path), sizes),
    )


def served_of(files: Sequence[PlannedFile], sizes: Sizes) -> list[WeightFile]:
    return [_weights(Path(one.path).name, round(one.size_gb * 1e9), sizes) for one in files]


def _weights(name: str, size: int, sizes: Sizes) -> WeightFile:
    return WeightFile(name, 8 * size / max(1, sizes.parameters))


def models_of(dataset: DatasetManifest, config: Config) -> list[NamedModel]:
    """The models that the logs and the config name."""
    named = [NamedModel("the logs", name, may_differ=True) for name in dataset.teachers]
    evaluate = config.evaluate
    for name, endpoint in evaluate.endpoints.items():
        named.append(NamedModel(f"evaluate.endpoints.{name}.model", endpoint.model, may_differ=True))
    if evaluate.server is not None:
        named.append(NamedModel("evaluate.server.base_model", evaluate.server.base_model))
        named.append(NamedModel("evaluate.server.tuned_model", evaluate.server.tuned_model))
    named.append(NamedModel("serve.engine_model", config.serve.engine_model))
    return named


def limits_of(dataset: DatasetManifest, config: Config) -> Limits:
    return Limits(
        max_length=config.curate.max_length,
        longest_row=dataset.longest_row_tokens,
        served_context=config.evaluate.context,
        max_new_tokens=config.evaluate.max_new_tokens,
        cuts_rows=config.curate.rules.action("too_long") == "cut",
    )


def machine_of(placed: Placement, config: Config, tried: TrainTime) -> Machine:
    """Looks at the machine for a quarter of a second."""
    asked = {"train.threads": config.train.threads, "evaluate.threads": config.evaluate.threads}
    gpu = placed.gpu
    return Machine(
        device="the processor" if gpu is None else gpu.name,
        fast_bfloat16=has_native_bfloat16() if gpu is None else gpu.bfloat16,
        cores=usable_cores(),
        threads={key: count for key, count in asked.items() if count is not None},
        busy=cores_used_by_others(),
        waiting=tried.waiting,
        stolen=tried.stolen,
        spread=tried.spread,
    )


def judging_of(rules: Rules) -> Judging:
    return Judging(rules.min_success, rules.confidence, rules.role_confidence)


def suite_of(config: Config, renderer: Renderer | None) -> dict[str, int]:
    """Part of the regression suite → the questions that will be asked.

    Args:
        renderer: of the base, whose chat template may support no tools; None: not known, so all are counted.
    """
    if not config.evaluate.regression_suite:
        return {}
    if renderer is None:
        sizes = {kind: len(read_suite(kind)) for kind in KINDS}
    else:
        sizes = {kind: len(questions) for kind, (questions, _) in askable_suite(renderer).items() if questions}
    return {**sizes, "stopping": sum(sizes.values())}


def disk_of(
    dataset: DatasetManifest, config: Config, sizes: Sizes, trainable: int, base: Path,
    served: Sequence[PlannedFile], suite: Mapping[str, int], out: Path,
) -> DiskPlan:  # fmt: skip
    """What the run will write to the disk of its folder; `suite`: see suite_of."""
    evaluate = config.evaluate
    arms = 2 + (evaluate.few_shot > 0) + len(served) + len(evaluate.merged) + len(evaluate.endpoints)
    run = Written(
        trainable=trainable,
        adapters=1 if config.train.adapters == "shared" else len(dataset.splits),
        parameters=sizes.parameters,
        merged=evaluate.merged,
        ships=max((round(one.size_gb * 1e9) for one in served), default=0),
        rows=sum(split.test for split in dataset.splits.values()) + sum(suite.values()),
        arms=arms,
        answer_tokens=evaluate.max_new_tokens,
    )
    there = dict(_weights_there(base, served))
    return DiskPlan(needs=disk_needs(run), there=there, free=shutil.disk_usage(out).free)


def _weights_there(base: Path, served: Sequence[PlannedFile]) -> Iterator[tuple[str, int]]:
    yield base.name, size_of_model(base)
    for one in served:
        yield Path(one.path).name, round(one.size_gb * 1e9)


def serving_of(config: Config) -> str:
    """Which program will answer, for the page."""
    evaluate = config.evaluate
    if evaluate.server is not None:
        return f"the server {evaluate.server.url}"
    if config.serve.engine_url:
        return f"the server {config.serve.engine_url}"
    if own := config.serve.llama_server or evaluate.llama_server:
        return f"your llama-server ({own})"
    return "llama.cpp, in journeyman's own engine"


def looked_at(config: Config) -> dict[str, str]:
    """Settings of later stages that lints look at. A change of them makes no plan stale, because what later stages take
    from it stays the same, but its lints are then those of the old values."""
    evaluate, serve = config.evaluate, config.serve
    keys = ("context", "max_new_tokens", "threads", "regression_suite", "few_shot")
    values = {f"evaluate.{key}": repr(getattr(evaluate, key)) for key in keys}
    values["evaluate.endpoints"] = repr({name: one.model for name, one in sorted(evaluate.endpoints.items())})
    return {**values, "serve.engine_model": repr(serve.engine_model)}


def figures_of(made: Mapping[str, float | None]) -> dict[str, float]:
    """The figures that are known."""
    return {key: value for key, value in made.items() if value is not None}
