"""Reasons of the plan's lints: what is wrong with the settings of a run, and what to do about it.

More of them are in planning.py. lints/explained.md says of each what it means.
"""

from __future__ import annotations

from dataclasses import dataclass

from journeyman.foreign import named
from journeyman.reasons.base import Reason


@dataclass(frozen=True)
class NoCheckpointInRun(Reason, code="no_checkpoint_in_run"):
    """`lost_s`: seconds of work that a kill would cost; None: not known. `keeps_best`: the trainer keeps the best model
    only if it is a checkpoint."""

    fix = "Set the interval of checkpoints to a quarter of the run or less"
    every: int
    steps: int
    lost_s: float | None = None
    keeps_best: bool = False

    def sentence(self) -> str:
        lost = "a run that is killed starts again from the beginning"
        if self.lost_s is not None:
            lost = f"a run that is killed loses up to {self.lost_s / 60:.0f} minutes of work"
        if self.keeps_best:
            lost = "there is none that early stopping could go back to or that could be kept as the best model"
        return (
            f"a checkpoint every {self.every:,} steps, in a run of {self.steps:,}: none is written before its end, so "
            f"{lost}"
        )


@dataclass(frozen=True)
class NoValidationRows(Reason, code="no_validation_rows"):
    says = (
        "there are no validation rows: the last adapter is kept, whether it is the best or not, and training cannot "
        "stop early"
    )
    fix = "Raise curate.val_share, or log more rows"


@dataclass(frozen=True)
class NoValidationInRun(Reason, code="no_validation_in_run"):
    says = (
        "a validation every {every:,} steps, in a run of {steps:,}: none is made before its end, so nothing shows when "
        "the model begins to get worse"
    )
    fix = "Validate every {often:,} steps"
    every: int
    steps: int
    often: int


@dataclass(frozen=True)
class EarlyStoppingNever(Reason, code="early_stopping_never"):
    """`validations`: that the run makes in all, the one at its end included."""

    patience: int
    validations: int

    def sentence(self) -> str:
        made = f"makes only {self.validations}" if self.validations else "makes none"
        return (
            f"training stops early after {self.patience} validations without improvement, but the run {made}: it "
            "always runs to its end"
        )

    def what_to_do(self) -> str:
        if not self.validations:
            return "Validate within the run, at least four times"
        return "Nothing has to be done for a short run; for a longer one, lower the patience or validate more often"


@dataclass(frozen=True)
class LearningRateUnusual(Reason, code="learning_rate_unusual"):
    """`low`, `high`: the usual range for this base, alpha and number of steps."""

    fix = "Start from {usual:.1e}, and compare validation losses"
    learning_rate: float
    low: float
    high: float
    usual: float
    rank: int
    alpha: float
    steps: int

    def sentence(self) -> str:
        above = self.learning_rate > self.high
        effect = "training may diverge or forget what the base can do" if above else "the adapter may hardly change"
        return (
            f"a learning rate of {self.learning_rate:g} is {'above' if above else 'below'} the usual range of "
            f"{self.low:.1e} to {self.high:.1e} for rank {self.rank}, alpha {self.alpha:g} and {self.steps:,} steps: "
            f"{effect}"
        )


@dataclass(frozen=True)
class BatchOverRows(Reason, code="batch_over_rows"):
    """`adapter`: whose rows they are, if each role has its own adapter."""

    fix = "Lower batch_size × gradient_accumulation to {most} or less"
    batch: int
    rows: int
    most: int
    adapter: str = ""

    def sentence(self) -> str:
        whose = f"{named(self.adapter)}: " if self.adapter else ""
        return (
            f"{whose}an effective batch of {self.batch:,} rows is larger than the training set of {self.rows:,}: each "
            "epoch is a single step"
        )


@dataclass(frozen=True)
class RowsTooLong(Reason, code="rows_too_long"):
    """`roles`: each role with its number of rows; `cut`: whether rows are shortened instead of dropped."""

    fix = "Raise curate.max_length if the base and the memory allow it, or log shorter conversations"
    rows: int
    of: int
    limit: int
    roles: str
    cut: bool = False

    def sentence(self) -> str:
        done = "lose their oldest turns" if self.cut else "are dropped"
        return (
            f"{self.rows:,} of {self.of:,} rows are longer than curate.max_length = {self.limit:,} tokens and {done}: "
            f"{self.roles}"
        )


@dataclass(frozen=True)
class OverServedContext(Reason, code="over_served_context"):
    says = (
        "rows of up to {tokens:,} tokens are trained, but a request may only have evaluate.context = {context:,}: such "
        "tasks can be neither evaluated nor served"
    )
    fix = "Raise evaluate.context to at least {tokens}, or lower curate.max_length"
    tokens: int
    context: int


@dataclass(frozen=True)
class AnswersOverLimit(Reason, code="answers_over_limit"):
    """`roles`: each role with its number of rows."""

    says = (
        "{rows:,} of {of:,} training answers are longer than evaluate.max_new_tokens = {limit:,}: a model that learned "
        "them is cut off, and fails ({roles})"
    )
    fix = "Raise evaluate.max_new_tokens to {longest}, the longest answer"
    rows: int
    of: int
    limit: int
    longest: int
    roles: str


@dataclass(frozen=True)
class FewLabels(Reason, code="few_labels"):
    """`share`: of the tokens, that are answers; `roles`: the roles that are below `least`, with their shares."""

    says = (
        "only {share:.1%} of the tokens are answers that the model learns from; the rest of the time goes into reading "
        "prompts ({roles})"
    )
    fix = "Shorten the prompts: a shorter system prompt, less history (data.max_history), shorter tool results"
    share: float
    least: float
    roles: str


@dataclass(frozen=True)
class CannotTell(Reason, code="cannot_tell_success"):
    """`half`: a success rate that fails twice as often as the rule allows; `chance`: that the rows show it; `needed`:
    rows that would, None: more than were tried."""

    says = (
        "{rows} test rows cannot tell a success of {min_success:.0%} from {lower:.0%}: a model with the latter is "
        "recognized with a chance of {chance:.0%} only"
    )
    rows: int
    min_success: float
    lower: float
    chance: float
    needed: int | None

    def what_to_do(self) -> str:
        wanted = "many more test rows" if self.needed is None else f"{self.needed} independent test rows"
        return f"Hold out {wanted} (log more, or raise curate.test_share)"


@dataclass(frozen=True)
class OtherFamily(Reason, code="other_family"):
    """`where`: the setting or log that names the other model."""

    says = "the base is {base} ({family}), but {where} names {other} ({other_family}): they are different models"
    fix = "Find out which one is meant before hours are spent; set base.model, or correct {where}"
    base: str
    family: str
    where: str
    other: str
    other_family: str


@dataclass(frozen=True)
class TemplateOfOtherFamily(Reason, code="template_of_other_family"):
    says = (
        "the chat template {template} is not that of {family}, which was trained with {usual}: the base has to learn "
        "new marks for turns, and answers worse without an adapter"
    )
    fix = "Use the base's own template, or {usual}"
    template: str
    family: str
    usual: str


@dataclass(frozen=True)
class Float32WithoutNeed(Reason, code="float32_without_need"):
    says = "float32 takes twice the memory of bfloat16 and more time, and {device} computes bfloat16 itself"
    fix = "Set train.precision = 'auto' or 'bfloat16'"
    device: str


@dataclass(frozen=True)
class Bfloat16Emulated(Reason, code="bfloat16_emulated"):
    says = "bfloat16 is emulated by {device}, which is several times slower than float32"
    fix = "Set train.precision = 'auto' or 'float32'"
    device: str


@dataclass(frozen=True)
class AttentionOnly(Reason, code="attention_only"):
    """`share`: of the base's matrices in its blocks, that belong to attention."""

    says = (
        "the adapter changes attention only ({targets}), which holds {share:.0%} of the weights of the blocks: an "
        "adapter on all linear layers learns more, even with as many parameters"
    )
    fix = "Add gate_proj, up_proj and down_proj to the targets"
    targets: str
    share: float


@dataclass(frozen=True)
class CoarserThanServed(Reason, code="coarser_than_served"):
    """Bits for each weight, of whole files."""

    says = (
        "the adapter is trained on {base} ({base_bits:.1f} bits per weight), but {served} ({served_bits:.1f}) may "
        "ship: it learns to make up for rounding errors that the served file does not have"
    )
    fix = "Set base.model to the finest file that may ship, and name the coarser ones in evaluate.quantizations"
    base: str
    base_bits: float
    served: str
    served_bits: float
