"""Reasons of the plan for a warning or a refusal."""

from __future__ import annotations

from dataclasses import dataclass

from journeyman.foreign import named
from journeyman.reasons.base import Reason
from journeyman.reasons.of_role import OfRole

_OTHER_SETTINGS = "Run it again with {settings}; --fit does that"
_LESS_AT_A_TIME = "Set train.memory or a lower train.pack_tokens, so that less is in memory at once, or a smaller base"


@dataclass(frozen=True)
class WarmupNeverEnds(Reason, code="warmup_never_ends"):
    """`steps`: of the run; `adapter`: whose run it is, if each role has its own."""

    fix = "Set warmup_steps to {tenth}, a tenth of the run"
    warmup_steps: int
    steps: int
    learning_rate: float
    adapter: str = ""

    def what_to_do(self) -> str:
        return self.fix.format(tenth=max(1, self.steps // 10))

    def sentence(self) -> str:
        whose = f"{named(self.adapter)}: " if self.adapter else ""
        reached = min(1.0, self.steps / self.warmup_steps) if self.warmup_steps else 1.0
        peak = f"its peak of {self.learning_rate:g}"
        arrives = f"only reaches {reached:.0%} of {peak}" if reached < 1 else f"reaches {peak} in the last step"
        return (
            f"{whose}warmup_steps = {self.warmup_steps} is not below the run's {self.steps} steps: the learning rate "
            f"{arrives}, and never decays"
        )


@dataclass(frozen=True)
class RoleWithoutRows(OfRole, code="role_without_rows"):
    """`known`: the roles of the rows, separated by commas."""

    fix = "Correct the name, or remove the section"
    says = "[roles.{role}] names a role that no row has; the roles are: {known}"
    known: str


@dataclass(frozen=True)
class OverContext(Reason, code="over_context"):
    """`context`: the context length of the base, in tokens."""

    fix = "Lower curate.max_length to {context}, or use a base with a longer context"
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

    fix = "Log more rows of this role, raise curate.test_share, or lower decide.min_success before any result is seen"
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
class AdaptersAtOnce(Reason, code="adapters_at_once"):
    """`memory_gb`: 10^9 bytes that they need together."""

    says = (
        "the {adapters} adapters are trained {at_once} at a time if that much memory is still free then: in less than "
        "the estimated time, which is that of one after another, and in up to {memory_gb:.1f} GB"
    )
    adapters: int
    at_once: int
    memory_gb: float


@dataclass(frozen=True)
class TrainingDoesNotFit(Reason, code="training_does_not_fit"):
    """Gigabytes (10^9 bytes): the limit, and what each memory mode needs; None if the mode was not tried.

    `settings`: the nearest ones that fit, as on the command line; "": none was found, or none was looked for.
    `bare_gb`: what Python with torch, or CUDA, needs without any base.
    """

    fix = _OTHER_SETTINGS
    limit_gb: float
    keep_gb: float | None
    recompute_gb: float | None
    stream_gb: float | None
    settings: str = ""
    bare_gb: float = 0.0

    def what_to_do(self) -> str:
        if self.settings:
            return super().what_to_do()
        if self.limit_gb < self.bare_gb:
            return "Free memory, raise the container's limit, or raise train.max_memory_gb if more is free"
        return "Use a smaller base, a machine with more memory, or a higher train.max_memory_gb if more is free"

    def sentence(self) -> str:
        tried = {"keep": self.keep_gb, "recompute": self.recompute_gb, "stream": self.stream_gb}
        shown = ", ".join(f"{mode} {needed:.1f}" for mode, needed in tried.items() if needed is not None)
        said = f"training does not fit in {self.limit_gb:.1f} GB (GB needed: {shown})"
        if self.limit_gb < self.bare_gb:
            said += f", which is less than the {self.bare_gb:.1f} GB that training needs without any base"
        return said


@dataclass(frozen=True)
class MeasuredPeakDoesNotFit(Reason, code="measured_peak_does_not_fit"):
    """Gigabytes (10^9 bytes): what the steps that were tried needed, what is expected of the whole run, the limit."""

    fix = _OTHER_SETTINGS
    measured_gb: float
    peak_gb: float
    limit_gb: float
    settings: str = ""

    def what_to_do(self) -> str:
        if self.settings:
            return super().what_to_do()
        return f"{_LESS_AT_A_TIME}, or raise train.max_memory_gb if more is free"

    def sentence(self) -> str:
        said = f"the steps of training that were tried needed {self.measured_gb:.2f} GB"
        if self.measured_gb > self.limit_gb:
            return f"{said}, and training may use {self.limit_gb:.2f} GB"
        return f"{said}, so training will need about {self.peak_gb:.2f} GB, and may use {self.limit_gb:.2f} GB"


@dataclass(frozen=True)
class ComputedPeakDoesNotFit(Reason, code="computed_peak_does_not_fit"):
    """Gigabytes (10^9 bytes): what is computed for the packs of these rows, and the limit. No steps were measured."""

    fix = f"{_LESS_AT_A_TIME}, or raise train.max_memory_gb if more is free"
    peak_gb: float
    limit_gb: float

    def sentence(self) -> str:
        return f"training will need about {self.peak_gb:.2f} GB by its packs, and may use {self.limit_gb:.2f} GB"


@dataclass(frozen=True)
class TrialOutOfMemory(Reason, code="trial_out_of_memory"):
    """`certain`: the process said so itself; otherwise it was killed, as the system does when memory runs out."""

    fix = _OTHER_SETTINGS
    why: str
    certain: bool
    settings: str = ""

    def what_to_do(self) -> str:
        return super().what_to_do() if self.settings else f"{_LESS_AT_A_TIME}, or free memory"

    def sentence(self) -> str:
        if self.certain:
            return f"the process that tried some steps of training ran out of memory: {self.why}"
        return (
            f"the process that tried some steps of training was killed, as the system does when memory runs out: "
            f"{self.why}"
        )


@dataclass(frozen=True)
class ServingDoesNotFit(Reason, code="serving_does_not_fit"):
    """Gigabytes (10^9 bytes); `name`: the file that needs least of those that may ship; `settings`: as above."""

    fix = _OTHER_SETTINGS
    name: str
    needed_gb: float
    limit_gb: float
    context: int
    parallel: int
    settings: str = ""

    def what_to_do(self) -> str:
        if self.settings:
            return super().what_to_do()
        return "Raise decide.max_memory_gb, if the machine that will serve has more, or use a smaller base"

    def sentence(self) -> str:
        return (
            f"serving {named(self.name)} with {self.parallel} requests of {self.context:,} tokens at the same time "
            f"needs about {self.needed_gb:.2f} GB, above decide.max_memory_gb = {self.limit_gb:g}: no role could be "
            "deployed"
        )
