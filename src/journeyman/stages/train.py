"""train: plan, training rows and base → an adapter in two formats. It has no access to the held-out test set."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from journeyman.artifacts import read_rows
from journeyman.config import TrainConfig
from journeyman.errors import InputError
from journeyman.foreign import file_part, plain
from journeyman.inference.adapter_proof import prove_adapter
from journeyman.manifests import AdapterManifest, PlanManifest, TrainedAdapter
from journeyman.models.base import Base
from journeyman.models.geometry import Factors
from journeyman.protocols import Reporter
from journeyman.records import EVERY_ROLE, Example
from journeyman.rendering.mask import check_mask
from journeyman.rendering.renderer import Rendered, Renderer
from journeyman.retention import general_rows, repeated
from journeyman.sizing.memory import MemoryWay
from journeyman.training.backends import Backend, Gpus, TransformersBackend, backend_of
from journeyman.training.devices import AUTO, CUDA, Gpu, chosen_gpu, several_gpus
from journeyman.training.hardware import forget_peaks, keep_freed_memory, use_threads
from journeyman.training.joint_training import train_jointly
from journeyman.training.loop import TrainingJob
from journeyman.training.persisting import train_to_the_end
from journeyman.training.rehearsal import texts_of
from journeyman.training.row_rules import trained_rows

_ID = 80
_ANEW = "To plan without it: journeyman plan --redo --set train.device=cpu"


def train(
    train_rows: Path,
    val_rows: Path,
    plan: PlanManifest,
    config: TrainConfig,
    base: Base,
    factors: Factors | None,
    fingerprint: str,
    out: Path,
    reporter: Reporter,
    served: Path | None = None,
    general: Path | None = None,
    backend_of: Callable[[Base, TrainConfig, MemoryWay, Factors | None, Gpus | None], Backend] = backend_of,
) -> AdapterManifest:
    """Trains, or resumes from the newest checkpoint with the same fingerprint.

    Args:
        factors: the rotary divisors that the engine will use, if the base has two sets.
        served: a GGUF file of the base that may ship. If our own decoder does not train the base, the engine must
            compute the same from this file as training does, before training begins.
        general: rows that are trained beside those of the roles: see own_answers. None: no such rows.

    Raises:
        Interrupted: asked to stop; the state is saved.
        TrainingDiverged: the loss became NaN or exploded.
        DiskError: the disk is full.
        StaleArtifact: the checkpoint belongs to another run.
        InputError: the plan is to train on a GPU, and there is none, or its memory is not enough.
        EngineError: the engine computes something else from the base, or from an adapter on it.
    """
    forget_peaks()
    keep_freed_memory()
    use_threads(config.threads)
    reporter.begin("load the base", 1, "model")
    renderer = Renderer(base)
    rows = trained_rows(read_rows(train_rows, Example), config.rows)
    held_out = list(read_rows(val_rows, Example))
    rendered, rendered_out = render_rows(renderer, rows), render_rows(renderer, held_out)
    beside = [] if general is None else list(read_rows(general, Example))
    rendered_beside = render_rows(renderer, beside)
    reporter.say(_proof(rows + held_out + beside))
    gpus = None if plan.device is None else Gpus(planned_gpus(plan, config), plan.sharded, reporter.say)
    with closing(backend_of(base, config, plan.memory, factors, gpus)) as backend:
        return _train_all(
            backend, plan, config, (rows, rendered), (held_out, rendered_out), rendered_beside, fingerprint, out,
            reporter, served,
        )  # fmt: skip


Rows = tuple[Sequence[Example], Sequence[Rendered]]


def _train_all(
    backend: Backend, plan: PlanManifest, config: TrainConfig, train_rows: Rows, val_rows: Rows,
    beside: Sequence[Rendered], fingerprint: str, out: Path, reporter: Reporter, served: Path | None,
) -> AdapterManifest:  # fmt: skip
    """Trains the adapter, or one for each role."""
    if isinstance(backend, TransformersBackend) and not any(out.glob("**/checkpoints/*")):
        _rehearse(backend, train_rows[1], served, config, reporter)
    jobs = jobs_of(plan, config, train_rows, val_rows, beside, fingerprint, out)

    running, most, changing = 0, 0, Lock()

    def train_one(backend: Backend, name: str, reporter: Reporter) -> Trained:
        nonlocal running, most
        if name != EVERY_ROLE:
            rows = f"{len(jobs[name].train)} training rows, {len(jobs[name].val)} validation rows"
            reporter.say(f"adapter of {name}: {rows}")
        with changing:
            running += 1
            most = max(most, running)
        try:
            return train_job(backend, jobs[name], name, out, reporter)
        finally:
            with changing:
                running -= 1

    made = train_jointly(backend, jobs, plan.estimated_train_memory_gb * 1e9, reporter, train_one)
    return manifest_of(plan, made).model_copy(update={"at_once": most})


def jobs_of(
    plan: PlanManifest, config: TrainConfig, train_rows: Rows, val_rows: Rows, beside: Sequence[Rendered],
    fingerprint: str, out: Path,
) -> dict[str, TrainingJob]:  # fmt: skip
    """Adapter, 'all' or a role → its training.

    Args:
        beside: rendered general rows.
        out: the folder below which adapters and checkpoints go.
    """
    (rows, rendered), (held_out, rendered_out) = train_rows, val_rows
    lines = [f"line {number} of general.jsonl" for number in range(1, len(beside) + 1)]
    jobs = {}
    for name in [EVERY_ROLE] if config.adapters == "shared" else sorted({row.role for row in rows}):
        own = [one for row, one in zip(rows, rendered, strict=True) if name in (EVERY_ROLE, row.role)]
        ids = [plain(row.id, _ID) for row in rows if name in (EVERY_ROLE, row.role)]
        count = general_rows(len(own), config.retention.share)
        jobs[name] = TrainingJob(
            train=[*own, *repeated(beside, count)],
            val=[one for row, one in zip(held_out, rendered_out, strict=True) if name in (EVERY_ROLE, row.role)],
            config=config,
            fingerprint=fingerprint,
            folder=out / _folder_of(name) / "checkpoints",
            pack_tokens=plan.pack_tokens,
            group_tokens=plan.group_tokens,
            matrix_gflops=plan.matrix_gflops,
            names=[*ids, *repeated(lines, count)],
        )
    return jobs


def train_job(backend: Backend, job: TrainingJob, name: str, out: Path, reporter: Reporter) -> Trained:
    """Trains the adapter of this name, and writes it below `out`; raises as train does."""
    trainer, state = train_to_the_end(backend, job, reporter)
    backend.write(trainer.best, out / _folder_of(name))
    adapter = TrainedAdapter(
        folder=_folder_of(name),
        steps=state.step,
        total_steps=trainer.total_steps,
        stopped_early=state.step < trainer.total_steps,
        best_step=state.best_step,
        validations=state.validations,
        train_loss=trainer.late_loss,
        train_s=state.train_s,
        tokens=state.tokens,
    )
    return Trained(adapter, state.engine, backend.peak_memory_bytes())


def manifest_of(plan: PlanManifest, made: Mapping[str, Trained]) -> AdapterManifest:
    """What the adapters of one recipe have in common."""
    peaks = [one.peak_bytes for one in made.values() if one.peak_bytes is not None]
    return AdapterManifest(
        base_sha256=plan.base_sha256,
        trainable_parameters=plan.trainable_parameters,
        adapters={name: one.adapter for name, one in made.items()},
        precision=plan.precision,
        engine=", ".join(sorted({one.engine for one in made.values()})),
        peak_memory_gb=max(peaks) / 1e9 if peaks else None,
    )


@dataclass(frozen=True)
class Trained:
    """An adapter.

    Attributes:
        engine: the identity of what trained it.
        peak_bytes: see Backend.peak_memory_bytes.
    """

    adapter: TrainedAdapter
    engine: str
    peak_bytes: int | None


def _folder_of(name: str) -> str:
    """Of an adapter, in the stage's folder."""
    return "" if name == EVERY_ROLE else file_part(name)


def planned_gpus(plan: PlanManifest, config: TrainConfig) -> list[Gpu]:
    """The GPUs now: others, or with other free memory, than when the plan was made, perhaps."""
    if plan.sharded and config.gpus == 1:
        raise InputError(
            "the plan is to share the base among several GPUs, and train.gpus is 1 now", "journeyman plan --redo"
        )
    try:
        first = chosen_gpu(CUDA if config.device == AUTO else config.device, config.precision)
        assert first is not None
        return several_gpus(first, config.gpus, config.precision)
    except InputError as error:
        raise InputError(f"the plan is to train on a GPU, but {error.what}", f"{error.remedy}. {_ANEW}") from error


def _rehearse(
    backend: TransformersBackend,
    rows: Sequence[Rendered],
    served: Path | None,
    config: TrainConfig,
    reporter: Reporter,
) -> None:
    reporter.begin("compare transformers with the engine", 1, "adapter")
    with tempfile.TemporaryDirectory(prefix="journeyman-adapter-") as scratch:
        made = backend.rehearse(texts_of(rows), Path(scratch))
        if served is None:
            reporter.say("no GGUF file may ship: it is not known whether an engine computes what transformers does")
            return
        apart = prove_adapter(served, made.adapter, made.texts, made.plain, made.adapted, config.threads)
    reporter.say(
        "transformers and the engine compute the same: log probabilities differ by "
        f"{apart[0]:.3f} nats without an adapter and {apart[1]:.3f} with a random one"
    )


def render_rows(renderer: Renderer, rows: Sequence[Example]) -> list[Rendered]:
    """Renders rows and checks the loss mask of each: see check_mask."""
    rendered = [renderer.example(row) for row in rows]
    for row, one in zip(rows, rendered, strict=True):
        check_mask(row, one, renderer.end_ids)
    return rendered


def _proof(rows: Sequence[Example]) -> str:
    """One line that says for which rows the loss mask was verified."""
    roles = Counter(row.role for row in rows)
    cut = sum(not row.ends for row in rows)
    shown = ", ".join(f"{role} {count}" for role, count in sorted(roles.items()))
    ends = f"every terminator except those of {cut} answers that are cut off" if cut else "every terminator"
    return f"loss mask verified for {len(rows)} rows ({shown}): no prompt token carries loss, {ends} does"
