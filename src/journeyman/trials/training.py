"""Trains a trial's adapters with the stage that trains a run's, in a folder of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from journeyman.artifacts import ADAPTER_FILE, hash_of, hash_of_file, write_rows
from journeyman.config import TrainConfig
from journeyman.general_rows import general_file, general_load, general_prompts
from journeyman.manifests import AdapterManifest, PlanManifest
from journeyman.model_files import hash_of_model
from journeyman.models.opening import bytes_on_gpu, sizes_of
from journeyman.protocols import Reporter
from journeyman.records import Example
from journeyman.runs import Run
from journeyman.sizing.parameters import lora_parameters
from journeyman.stages.train import train
from journeyman.training.batches import steps_per_epoch
from journeyman.training.devices import CUDA
from journeyman.training.placement import Workload, place
from journeyman.training.row_rules import trained_rows
from journeyman.trials.rows import TrialRows


def train_trial(
    run: Run, config: TrainConfig, rows: TrialRows, folder: Path, reporter: Reporter
) -> tuple[AdapterManifest, dict[str, Path]]:
    """Trains, or resumes what was interrupted with the same settings on the same rows.

    Args:
        config: the settings of this trial, in place of the run's.
        rows: of which those of validation stop training early, as in a run.
        folder: the trial's own.

    Returns:
        What was trained, and 'all' or role → the adapter's file.

    Raises:
        NoGo: training does not fit in memory.
        Interrupted, TrainingDiverged, DiskError, InputError: as stages.train.train.
    """
    return train_prepared(run, prepared_trial(run, config, rows, folder, reporter), reporter)


@dataclass(frozen=True)
class Prepared:
    """A trial that can be trained.

    Attributes:
        rows: that training uses, see [train.rows].
        folder: of what is trained.
        general: the file of general rows; None: there are none.
    """

    config: TrainConfig
    rows: TrialRows
    folder: Path
    plan: PlanManifest
    fingerprint: str
    general: Path | None


def prepared_trial(run: Run, config: TrainConfig, rows: TrialRows, folder: Path, reporter: Reporter) -> Prepared:
    """Writes the rows of a trial and plans it; arguments and errors: see train_trial.

    What is trained goes into a folder of its own below the trial's, by the fingerprint, so that what was made from
    other rows or settings is neither used nor in the way.
    """
    rows = replace(rows, train=trained_rows(rows.train, config.rows))
    folder.mkdir(parents=True, exist_ok=True)
    place = general_folder(run, config, rows, folder)
    general = None
    if place is not None:
        place.mkdir(exist_ok=True)
        general = general_file(run, config, _counts(rows), place, reporter)
    fingerprint = hash_of(
        {
            "base": run.base_sha256,
            "train": config.model_dump(mode="json"),
            "rows": [[row.model_dump(mode="json") for row in of] for of in (rows.train, rows.val)],
            "general rows": None if general is None else hash_of_file(general),
        }
    )
    own = folder / fingerprint[:12]
    own.mkdir(exist_ok=True)
    for file, of in zip(_files(own), (rows.train, rows.val), strict=True):
        write_rows(file, of)
    return Prepared(config, rows, own, plan_of_trial(run, config, rows), fingerprint, general)


def general_folder(run: Run, config: TrainConfig, rows: TrialRows, folder: Path) -> Path | None:
    """Where a trial's general rows are: another folder for other prompts, limits or answering files; None: it has none.

    Args:
        rows: that training uses.
        folder: the trial's.
    """
    prompts = general_prompts(run, config, _counts(rows))
    if not prompts:
        return None
    digest = hash_of(
        {
            "prompts": [one.model_dump(mode="json") for one in prompts],
            "max_tokens": config.retention.max_tokens,
            "answers": hash_of_model(run.served[0]),
        }
    )
    return folder / f"general-{digest[:12]}"


def _counts(rows: TrialRows) -> Counter[str]:
    return Counter(row.role for row in rows.train)


def train_prepared(run: Run, one: Prepared, reporter: Reporter) -> tuple[AdapterManifest, dict[str, Path]]:
    """See train_trial."""
    served = next(iter(run.served), None)
    made = train(
        *_files(one.folder), one.plan, one.config, run.base, run.factors, one.fingerprint, one.folder, reporter, served,
        one.general,
    )  # fmt: skip
    return made, files_of(made, one.folder)


def files_of(made: AdapterManifest, folder: Path) -> dict[str, Path]:
    """'all' or role → the adapter's file, for a trial in this folder."""
    return {name: folder / adapter.folder / ADAPTER_FILE for name, adapter in made.adapters.items()}


def _files(folder: Path) -> tuple[Path, Path]:
    return folder / "train.jsonl", folder / "val.jsonl"


def plan_of_trial(run: Run, config: TrainConfig, rows: TrialRows) -> PlanManifest:
    """The run's plan with what other settings and rows change: memory mode, device and steps.

    Raises:
        NoGo: training does not fit in memory.
    """
    rows = replace(rows, train=trained_rows(rows.train, config.rows))
    sizes = sizes_of(run.base)
    trainable = lora_parameters(sizes, config.lora.rank, config.lora.targets)
    general = general_load(run, config, _counts(rows))
    beside = general.rows(len(rows.train), config.retention.share)
    per_epoch = steps_per_epoch(len(rows.train) + beside, config.rows_per_step)
    tokens = sum(_tokens(row) for row in rows.train) + round(beside * general.mean_tokens)
    longest = max(general.longest_tokens, *(_tokens(row) for row in [*rows.train, *rows.val]), 0)
    prompts = sum(row.prompt_tokens for row in rows.train) / max(1, len(rows.train))
    work = Workload(sizes, trainable, longest, tokens // max(1, per_epoch), prompts, bytes_on_gpu(run.base))
    placed = place(work, config)
    if placed.misfit is not None:
        raise placed.misfit
    plan = run.result("plan", PlanManifest)
    return plan.model_copy(
        update={
            "trainable_parameters": trainable,
            "steps_per_epoch": per_epoch,
            "total_steps": per_epoch * config.epochs,
            "tokens_per_epoch": tokens,
            "total_tokens": tokens * config.epochs,
            "general_rows": beside,
            "general_prompts": general.prompts,
            "device": CUDA if placed.gpus else None,
            "device_name": "; ".join(one.line() for one in placed.gpus) or None,
            "sharded": placed.sharded,
            "precision": str(placed.dtype).removeprefix("torch."),
            "matrix_gflops": placed.gflops,
            "memory": placed.memory.way,
            "pack_tokens": placed.memory.pack_tokens,
            "group_tokens": placed.memory.group_tokens,
            "estimated_train_s": placed.seconds(work, config, tokens * config.epochs, per_epoch * config.epochs),
            "estimated_train_memory_gb": placed.memory.bytes / 1e9,
        }
    )


def _tokens(row: Example) -> int:
    return row.prompt_tokens + row.answer_tokens


def roles_of(rows: Sequence[Example]) -> list[str]:
    """The roles that rows have, in alphabetical order."""
    return sorted({row.role for row in rows})
