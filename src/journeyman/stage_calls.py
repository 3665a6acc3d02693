"""Calls each stage's function with the results, files and settings of the run that it needs.

Each call takes the run, the folder to work in, the stage's fingerprint and a reporter, and returns the result for the
manifest. Stages are imported in the calls, so that a command loads only what it needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from journeyman import look_history
from journeyman.artifacts import ADAPTER_FILE, MANIFEST
from journeyman.cluster.machines import machines_of
from journeyman.errors import InputError
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
from journeyman.protocols import Reporter
from journeyman.records import EVERY_ROLE
from journeyman.runs import SEALED, STDIN, Run, beside, made_so_far

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

    if run.config.evaluate.merged:
        from journeyman.training.merge import refuse_unwritable

        for kind in run.config.evaluate.merged:
            refuse_unwritable(kind)  # now, and not after training
    dataset, rows = run.result("curate", DatasetManifest), run.file("curate", "train.jsonl")
    served = planned_files(run.base, run.served, rows, run.renderer, run.config.evaluate, run.root, reporter)
    sizes, stored = sizes_of(run.base), bytes_on_gpu(run.base)
    return plan(dataset, run.config, run.base.path, served, run.base_sha256, sizes, out, reporter, stored)


def run_train(run: Run, out: Path, fingerprint: str, reporter: Reporter) -> BaseModel:
    from journeyman.stages.train import train

    rows, held_out = run.file("curate", "train.jsonl"), run.file("curate", "val.jsonl")
    plan, served = run.result("plan", PlanManifest), next(iter(run.served), None)
    with machines_of(run.config.cluster, reporter.say) as machines:
        return train(
            rows, held_out, plan, run.config.train, run.base, run.factors, fingerprint, out, reporter, served,
            backend_of=partial(machines.backend_of, reporter=reporter),
        )  # fmt: skip


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
    decision = decide(plan, dataset, adapter, evaluation, run.config.train, teacher, out)
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
