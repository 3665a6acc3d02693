"""train: plan, training rows and base → an adapter in two formats. It has no access to the held-out test set."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from journeyman.artifacts import read_rows
from journeyman.config import TrainConfig
from journeyman.errors import InputError
from journeyman.foreign import file_part
from journeyman.inference.adapter_proof import prove_adapter
from journeyman.manifests import AdapterManifest, PlanManifest, TrainedAdapter
from journeyman.models.base import Base
from journeyman.models.geometry import Factors
from journeyman.protocols import Reporter
from journeyman.records import EVERY_ROLE, Example
from journeyman.rendering.mask import check_mask
from journeyman.rendering.renderer import Rendered, Renderer
from journeyman.sizing.memory import MemoryWay
from journeyman.training.backends import Backend, Gpus, TransformersBackend, backend_of
from journeyman.training.devices import AUTO, CUDA, Gpu, chosen_gpu, several_gpus
from journeyman.training.hardware import keep_freed_memory, use_threads
from journeyman.training.loop import TrainingJob
from journeyman.training.persisting import train_to_the_end
from journeyman.training.rehearsal import texts_of

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
    backend_of: Callable[[Base, TrainConfig, MemoryWay, Factors | None, Gpus | None], Backend] = backend_of,
) -> AdapterManifest:
    """Trains, or resumes from the newest checkpoint with the same fingerprint.

    Args:
        factors: the rotary divisors that the engine will use, if the base has two sets.
        served: a GGUF file of the base that may ship. If our own decoder does not train the base, the engine must
            compute the same from this file as training does, before training begins.

    Raises:
        Interrupted: asked to stop; the state is saved.
        TrainingDiverged: the loss became NaN or exploded.
        DiskError: the disk is full.
        StaleArtifact: the checkpoint belongs to another run.
        InputError: the plan is to train on a GPU, and there is none, or its memory is not enough.
        EngineError: the engine computes something else from the base, or from an adapter on it.
    """
    keep_freed_memory()
    use_threads(config.threads)
    reporter.begin("load the base", 1, "model")
    renderer = Renderer(base)
    rows, held_out = list(read_rows(train_rows, Example)), list(read_rows(val_rows, Example))
    rendered, rendered_out = render_rows(renderer, rows), render_rows(renderer, held_out)
    reporter.say(_proof(rows + held_out))
    gpus = None if plan.device is None else Gpus(_planned_gpus(plan, config), plan.sharded, reporter.say)
    with closing(backend_of(base, config, plan.memory, factors, gpus)) as backend:
        return _train_all(
            backend, plan, config, (rows, rendered), (held_out, rendered_out), fingerprint, out, reporter, served
        )


Rows = tuple[Sequence[Example], Sequence[Rendered]]


def _train_all(
    backend: Backend, plan: PlanManifest, config: TrainConfig, train_rows: Rows, val_rows: Rows, fingerprint: str,
    out: Path, reporter: Reporter, served: Path | None,
) -> AdapterManifest:  # fmt: skip
    """Trains the adapter, or one for each role."""
    (rows, rendered), (held_out, rendered_out) = train_rows, val_rows
    if isinstance(backend, TransformersBackend) and not any(out.glob("**/checkpoints/*")):
        _rehearse(backend, rendered, served, config, reporter)
    adapters, engines = {}, set()
    for name in [EVERY_ROLE] if config.adapters == "shared" else sorted({row.role for row in rows}):
        folder = "" if name == EVERY_ROLE else file_part(name)
        job = TrainingJob(
            train=[one for row, one in zip(rows, rendered, strict=True) if name in (EVERY_ROLE, row.role)],
            val=[one for row, one in zip(held_out, rendered_out, strict=True) if name in (EVERY_ROLE, row.role)],
            config=config,
            fingerprint=fingerprint,
            folder=out / folder / "checkpoints",
            pack_tokens=plan.pack_tokens,
            group_tokens=plan.group_tokens,
            matrix_gflops=plan.matrix_gflops,
        )
        if name != EVERY_ROLE:
            reporter.say(f"adapter of {name}: {len(job.train)} training rows, {len(job.val)} validation rows")
        trainer, state = train_to_the_end(backend, job, reporter)
        engines.add(state.engine)
        backend.write(trainer.best, out / folder)
        adapters[name] = TrainedAdapter(
            folder=folder,
            steps=state.step,
            total_steps=trainer.total_steps,
            stopped_early=state.step < trainer.total_steps,
            best_step=state.best_step,
            validations=state.validations,
            train_loss=trainer.late_loss,
            train_s=state.train_s,
            tokens=state.tokens,
        )
    peak = backend.peak_memory_bytes()
    return AdapterManifest(
        base_sha256=plan.base_sha256,
        trainable_parameters=plan.trainable_parameters,
        adapters=adapters,
        precision=plan.precision,
        engine=", ".join(sorted(engines)),
        peak_memory_gb=None if peak is None else peak / 1e9,
    )


def _planned_gpus(plan: PlanManifest, config: TrainConfig) -> list[Gpu]:
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
