"""Calls each stage's function with the results, files and settings of the run that it needs.

Each call takes the run, the folder to work in, the stage's fingerprint and a reporter, and returns the result for the
manifest. Stages are imported in the calls, so that a command loads only what it needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from journeyman import look_history
from journeyman.artifacts import ADAPTER_FILE, MANIFEST, read_rows
from journeyman.cluster.machines import machines_of
from journeyman.config import Config, TrainRowsConfig
from journeyman.errors import InputError, NoGo, OutOfMemory
from journeyman.events import Expected
from journeyman.foreign import plain
from journeyman.free_memory import free_memory
from journeyman.general_rows import expected_rows, general_file, load_of
from journeyman.lineage import manifest_data, result_hash
from journeyman.manifests import (
    AdapterManifest,
    BundleManifest,
    DatasetManifest,
    DecisionManifest,
    EvaluationManifest,
    IngestManifest,
    PlanManifest,
    ServedFile,
    TrainedAdapter,
    merged_name,
)
from journeyman.model_files import find_by_hash
from journeyman.older_runs import trained_recipe
from journeyman.peak_memory import peak_resident_bytes
from journeyman.protocols import Reporter
from journeyman.records import EVERY_ROLE, Example
from journeyman.runs import SEALED, STDIN, Run, beside, made_so_far
from journeyman.training.allocation import in_memory
from journeyman.training.row_rules import trained_rows

if TYPE_CHECKING:
    from journeyman.bundling.results import Results
    from journeyman.bundling.source import Source
    from journeyman.inference.model_server import ServedFolder


def run_ingest(run: Run, out: Path, fingerprint: str, reporter: Reporter) -> BaseModel:
    from journeyman.sources.files import require_logs, skipped_files
    from journeyman.stages.ingest import ingest

    named = [name for name in run.config.data.sources if name != STDIN]
    if named or STDIN not in run.config.data.sources:
        require_logs(run.root, named)
    skipped = skipped_files(run.root, named)
    with machines_of(run.config.cluster, reporter.say) as machines:
        return ingest(
            run.sources, run.config.data, run.config.redact, out, reporter, skipped, executor=machines.executor
        )


def run_curate(run: Run, out: Path, fingerprint: str, reporter: Reporter) -> BaseModel:
    from journeyman.reporting.lint import write_lint
    from journeyman.stages.curate import curate

    rows = run.file("ingest", "interactions.jsonl.zst")
    with machines_of(run.config.cluster, reporter.say) as machines:
        dataset = curate(rows, run.config, run.base, out, reporter, machines.executor)
    write_lint(dataset, run.result("ingest", IngestManifest), out)
    return dataset


def run_plan(run: Run, out: Path, fingerprint: str, reporter: Reporter) -> BaseModel:
    from journeyman.inference.servable import planned_files
    from journeyman.models.opening import bytes_on_gpu, sizes_of
    from journeyman.stages.plan import plan
    from journeyman.stages.plan_time import TrialInputs

    if run.config.evaluate.merged:
        from journeyman.training.merge import refuse_unwritable

        for kind in run.config.evaluate.merged:
            refuse_unwritable(kind)  # now, and not after training
    dataset, rows = run.result("curate", DatasetManifest), run.file("curate", "train.jsonl")
    served = planned_files(run.base, run.served, rows, run.renderer, run.config.evaluate, run.root, reporter)
    sizes, stored = sizes_of(run.base), bytes_on_gpu(run.base)
    general = expected_rows(run, run.config.train, _training_rows(run))
    trial = TrialInputs(run.base, run.factors, run.renderer, run.file("curate", "val.jsonl"), general)
    return plan(
        dataset, run.config, run.base.path, served, run.base_sha256, sizes, out, reporter, stored, rows=rows,
        general=load_of(general), trial=trial, fitted=run.fitted,
    )  # fmt: skip


def outdated_lints(plan: PlanManifest, config: Config) -> str:
    """What to say of a plan whose lints looked at settings that have changed since; mostly ""."""
    from journeyman.stages.plan_facts import looked_at

    now = looked_at(config)
    changed = [f"{key} (then {old}, now {now[key]})" for key, old in plan.looked_at.items() if now.get(key, old) != old]
    return f"note: the plan's lints are of other settings: {', '.join(changed)}" if changed else ""


def is_no_plan(run: Run, result: BaseModel) -> bool:
    """Whether a plan is made anew in any case: it has errors, so nothing is built on it, or nothing is built on it yet
    and its lints are of other settings, or --fit replaces it because something does not fit."""
    if not isinstance(result, PlanManifest):
        return False
    replaced = bool(result.nearest and run.fitted) and list(run.fitted) != result.fitted
    outdated = replaced or bool(outdated_lints(result, run.config))
    return not result.is_go or (outdated and not run.folder("train").exists())


def refuse_no_go(run: Run) -> None:
    """Refuses to train by a plan with errors.

    Raises:
        NoGo: the plan has errors that plan.allow does not accept.
    """
    plan = run.result("plan", PlanManifest)
    if not plan.is_go:
        raise no_go(plan)


def no_go(plan: PlanManifest) -> NoGo:
    """The refusal that a plan with errors ends in."""
    first, more = plan.errors[0], len(plan.errors) - 1
    others = f" (and {more} more: see 03-plan/plan.md)" if more else ""
    remedy = f"{first.what_to_do()}{others}. What it means: journeyman plan --explain {first.code}"
    return NoGo(first.reason(), remedy)


def run_train(run: Run, out: Path, fingerprint: str, reporter: Reporter) -> BaseModel:
    from journeyman.stages.train import train

    rows, held_out = run.file("curate", "train.jsonl"), run.file("curate", "val.jsonl")
    plan, served = run.result("plan", PlanManifest), next(iter(run.served), None)
    reporter.tell(Expected("train", plan.estimated_train_s))
    with machines_of(run.config.cluster, reporter.say) as machines:
        general = general_file(
            run,
            run.config.train,
            _training_rows(run),
            out,
            reporter,
            partial(machines.running_engine, reporter=reporter),
        )
        with _memory_for_training():
            call = partial(train, backend_of=partial(machines.backend_of, reporter=reporter))
            return in_memory(
                lambda: call(
                    rows, held_out, plan, run.config.train, run.base, run.factors, fingerprint, out, reporter, served,
                    general,
                )
            )  # fmt: skip


@contextmanager
def _memory_for_training() -> Iterator[None]:
    """Turns running out of this machine's memory into OutOfMemory; devices.memory_of_gpu does so for a card's."""
    try:
        yield
    except MemoryError as error:
        peak = (peak_resident_bytes() or 0) / 1e9
        raise OutOfMemory(
            f"out of memory while training: {plain(str(error)) or 'an allocation failed'}; this process had {peak:.1f} "
            f"GB, and {free_memory().bytes / 1e9:.1f} GB are free now",
            "Close other programs and repeat the command, which resumes, or plan with less: journeyman plan --redo "
            f"--fit --set train.max_memory_gb={max(0.1, 0.9 * peak):.1f}",
        ) from error


def _training_rows(run: Run) -> dict[str, int]:
    """Role → its training rows."""
    if run.config.train.rows != TrainRowsConfig():
        kept = trained_rows(read_rows(run.file("curate", "train.jsonl"), Example), run.config.train.rows)
        return Counter(row.role for row in kept)
    return {role: split.train for role, split in run.result("curate", DatasetManifest).splits.items()}


def run_evaluate(run: Run, out: Path, fingerprint: str, reporter: Reporter) -> BaseModel:
    from journeyman.inference.arm_runner import Inputs
    from journeyman.stages.evaluate import evaluate

    run.load_checks()  # fails before any question is asked
    trained = run.result("train", AdapterManifest).adapters
    inputs = Inputs(
        sealed=run.file("curate", SEALED),
        train_rows=run.file("curate", "train.jsonl"),
        adapters={name: run.file("train", str(Path(one.folder) / ADAPTER_FILE)) for name, one in trained.items()},
        bases=run.served,
        folder=run.root,
        merged=_merged(run, out, reporter),
        **_server_inputs(run, trained),
    )
    plan, renderer = run.result("plan", PlanManifest), run.renderer
    if plan.evaluate_time is not None and plan.evaluate_time.seconds is not None:
        reporter.tell(Expected("evaluate", plan.evaluate_time.seconds))
    with machines_of(run.config.cluster, reporter.say) as machines:
        running_engine = partial(machines.running_engine, reporter=reporter)
        return evaluate(inputs, plan, run.config.evaluate, renderer, out, reporter, running_engine)


def _merged(run: Run, out: Path, reporter: Reporter) -> dict[str, Path]:
    """Format → the file that evaluate.merged asks for, made of the first file that may ship and the one adapter.

    It is in the evaluation's folder, whose manifest records its hash; an evaluation that resumes has it already.
    """
    if not run.config.evaluate.merged:
        return {}
    from journeyman.models.opening import open_base
    from journeyman.training.merge import write_merged_file  # imports torch

    (trained,) = run.result("train", AdapterManifest).adapters.values()
    base, adapter = open_base(run.served[0]), run.file("train", str(Path(trained.folder) / ADAPTER_FILE))
    made: dict[str, Path] = {kind: out / merged_name(kind) for kind in run.config.evaluate.merged}
    for kind, path in made.items():
        if not path.is_file():
            reporter.begin(f"merge to {kind}", 1, "model")
            write_merged_file(base, adapter, kind, path)
    return made


def _server_inputs(run: Run, trained: Mapping[str, TrainedAdapter]) -> dict[str, Any]:
    """What an evaluation on a server needs besides: the adapters in peft's format, and what it is compared with."""
    server = _server_of(run, trained)
    if server is None:
        return {}
    from journeyman.training.likelihood import base_and_tuned  # imports torch

    run.checked_folder("train")
    return {"server": server, "reference": partial(base_and_tuned, run.base, run.config.train, server.adapters)}


def _server_of(run: Run, trained: Mapping[str, TrainedAdapter]) -> ServedFolder | None:
    from journeyman.inference.model_server import ServedFolder

    config = run.config
    if config.evaluate.server is None:
        return None
    return ServedFolder(
        config=config.evaluate.server,
        base=run.base.peft,
        sha256=run.base_sha256,
        path=run.base.path,
        adapters={name: run.folder("train") / one.folder for name, one in trained.items()},
        rank=config.train.lora.rank,
        context=config.evaluate.context,
    )


def run_decide(run: Run, out: Path, fingerprint: str, reporter: Reporter) -> BaseModel:
    from journeyman.reporting.html import Evidence, write_report
    from journeyman.reporting.junit import write_junit
    from journeyman.stages.decide import decide

    plan, adapter = run.result("plan", PlanManifest), run.result("train", AdapterManifest)
    dataset, logs = run.result("curate", DatasetManifest), run.result("ingest", IngestManifest)
    evaluation = run.result("evaluate", EvaluationManifest)
    teacher = {**logs.by_role, EVERY_ROLE: logs.total}
    decision = decide(plan, dataset, adapter, evaluation, trained_recipe(run), teacher, out)
    evidence = Evidence(plan, adapter, evaluation, decision, made_so_far(run.root))
    evaluated, trained = run.checked_folder("evaluate"), run.checked_folder("train")
    write_report(evidence, evaluated, trained, run.file("curate", SEALED), out)
    write_junit(decision, evaluated, out / "junit.xml")
    return decision


def run_export(run: Run, out: Path, fingerprint: str, reporter: Reporter) -> BaseModel:
    from journeyman.rendering.template import template_of
    from journeyman.stages.export import export

    results = results_of(run)
    return export(
        results,
        _file_that_ships(run, results.file),
        template_of(run.base.tokenizer, str(run.base.path)).served,
        run.checked_folder("train"),
        run.config.evaluate,
        run.config.redact,
        run.override,
        out,
        _server_of(run, results.adapter.adapters),
    )


def results_of(run: Run) -> Results:
    """What a bundle records of the stages before `export`."""
    from journeyman.bundling.results import Results

    return Results(
        run.result("plan", PlanManifest),
        run.result("curate", DatasetManifest),
        run.result("train", AdapterManifest),
        run.result("evaluate", EvaluationManifest),
        run.result("decide", DecisionManifest),
    )


def source_of(run: Run) -> Source:
    """What targets are made of: the finished bundle and the adapters, with all files verified to be unchanged."""
    from journeyman.bundling.source import Source
    from journeyman.models.license import license_of

    place, results = run.checked_folder("export"), results_of(run)
    trained = run.checked_folder("train")
    bundle = run.result("export", BundleManifest)
    return Source(
        bundle=bundle,
        place=place,
        evaluated=run.checked_folder("evaluate"),
        sha256=result_hash(manifest_data(place / MANIFEST, "export")),
        results=results,
        base=run.base,
        trained={name: trained / results.adapter.adapters[name].folder for name in bundle.adapter_files},
        license=license_of(run.base.path),
        renderer=run.renderer,
        rank=run.config.train.lora.rank,
        threads=run.config.evaluate.threads,
    )


def refuse_fewer_looks(run: Run) -> None:
    """Refuses a record of looks that is incomplete: see look_history."""
    look_history.refuse_fewer_looks(run.root)


def _file_that_ships(run: Run, evaluated: ServedFile) -> Path:
    """The base's file that was evaluated, at its current place."""
    found = find_by_hash(evaluated.sha256, [*run.served, run.base.path, *beside(run.root, Path(evaluated.path))])
    if found is None:
        raise InputError(
            f"{evaluated.path}: the file that was evaluated (SHA-256 {evaluated.sha256[:12]}…) is no longer there",
            "Give its current path: journeyman export --set base.model=PATH",
        )
    return found
