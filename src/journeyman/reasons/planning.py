"""Reasons of the plan for a warning or a refusal."""

from __future__ import annotations

from dataclasses import dataclass

from journeyman.foreign import named
from journeyman.reasons.base import Reason
from journeyman.reasons.of_role import OfRole


@dataclass(frozen=True)
class WarmupNeverEnds(Reason, code="warmup_never_ends"):
    says = (
        "train.warmup_steps = {warmup_steps} is not below the run's {steps} steps: the learning rate never decays from "
        "its peak of {learning_rate:g}"
    )
    warmup_steps: int
    steps: int
    learning_rate: float


@dataclass(frozen=True)
class RoleWithoutRows(OfRole, code="role_without_rows"):
    """`known`: the roles of the rows, separated by commas."""

    says = "[roles.{role}] names a role that no row has; the roles are: {known}"
    known: str


@dataclass(frozen=True)
class OverContext(Reason, code="over_context"):
    """`context`: the context length of the base, in tokens."""

    says = "rows of {tokens} tokens exceed the base's context length of {context}"
    tokens: int
    context: int


@dataclass(frozen=True)
class FusedTargets(Reason, code="fused_targets"):
    """The base stores several modules as one matrix. `targets`: of train.lora; `adapted`: what changes, `also`: that
    `targets` does not name; each separated by commas."""

    says = (
        "the base stores q_proj, k_proj and v_proj as one matrix, and gate_proj and up_proj as another: an adapter for "
        "{targets} adapts {adapted}, and so changes {also} too"
    )
    targets: str
    adapted: str
    also: str


@dataclass(frozen=True)
class LongFactors(Reason, code="long_factors"):
    """`context`: evaluate.context; `original`: above it, in tokens, llama.cpp uses the base's long factors."""

    says = (
        "evaluate.context = {context} is above the {original} tokens of the base's original context, so llama.cpp, and "
        "training, rotate short rows as well by the factors for long contexts; if no request needs more, set it to "
        "{original} or less"
    )
    context: int
    original: int


@dataclass(frozen=True)
class WindowNotServed(Reason, code="window_not_served"):
    says = (
        "the base was trained with a sliding window of {window} tokens, which llama.cpp does not apply to it: rows of "
        "up to {tokens} tokens are trained and served without it"
    )
    window: int
    tokens: int


@dataclass(frozen=True)
class ExpertsAdapted(Reason, code="experts_adapted"):
    """`experts`: of a layer; `share`: of the adapter's parameters that belong to them."""

    says = (
        "the adapter changes gate_proj, up_proj and down_proj of each of the {experts} experts of a layer; that is "
        "{share:.0%} of its parameters. For attention only, set train.lora.targets to q_proj, k_proj, v_proj and o_proj"
    )
    experts: int
    share: float


@dataclass(frozen=True)
class TooFewTestRows(OfRole, code="too_few_test_rows"):
    """Even if all test rows pass, the rule cannot be reached.

    `effective_rows`: what the rows count as, given that related rows say less than independent ones; `min_success` is
    a share; `needed`: independent rows that would be enough; None if no number that was tried is.
    """

    rows: int
    effective_rows: float
    min_success: float
    needed: int | None

    def sentence(self) -> str:
        together = f", which count as {self.effective_rows:.1f} because some belong together,"
        counted = "" if self.effective_rows == self.rows else together
        return (
            f"{named(self.role)}: {self.rows} test rows{counted} cannot prove a success of {self.min_success:.0%} "
            "even if all pass" + (f"; {self.needed} would" if self.needed is not None else "")
        )


@dataclass(frozen=True)
class TrainedByTransformers(Reason, code="trained_by_transformers"):
    """`architecture`: the class in transformers; `modules`: the adapted linear layers, separated by commas."""

    says = (
        "{architecture} is trained through transformers and peft, one row at a time: slower than by our own decoder, "
        "for which the time is estimated; the adapter changes {modules}"
    )
    architecture: str
    modules: str


@dataclass(frozen=True)
class TargetsNotThere(Reason, code="targets_not_there"):
    """`missing`: values of train.lora.targets that are no layers of the base, separated by commas."""

    says = "{architecture} has no layers with these names of train.lora.targets: {missing}"
    architecture: str
    missing: str


@dataclass(frozen=True)
class GpuNotUsable(Reason, code="gpu_not_usable"):
    """`problem`, `remedy`: as devices.survey tells them."""

    says = "training runs on the processor: {problem}. {remedy}"
    problem: str
    remedy: str


@dataclass(frozen=True)
class GpuWithoutBfloat16(Reason, code="gpu_without_bfloat16"):
    says = "training runs on the processor: {gpu} has no bfloat16; train.precision = 'float32' would use it"
    gpu: str


@dataclass(frozen=True)
class GpuTooSmall(Reason, code="gpu_too_small"):
    """`why`: what training needs there."""

    says = "training runs on the processor, not on {gpu}: {why}"
    gpu: str
    why: str


@dataclass(frozen=True)
class BaseNotOnGpu(Reason, code="base_not_on_gpu"):
    says = "training runs on the processor: the base is {kind}, which is not trained on GPUs"
    kind: str


@dataclass(frozen=True)
class TrainingDoesNotFit(Reason, code="training_does_not_fit"):
    """Gigabytes (10^9 bytes): the limit, and what each memory mode needs; None if the mode was not tried."""

    limit_gb: float
    keep_gb: float | None
    recompute_gb: float | None
    stream_gb: float | None

    def sentence(self) -> str:
        tried = {"keep": self.keep_gb, "recompute": self.recompute_gb, "stream": self.stream_gb}
        shown = ", ".join(f"{mode} {needed:.1f}" for mode, needed in tried.items() if needed is not None)
        return f"training does not fit in {self.limit_gb:.1f} GB (GB needed: {shown})"
