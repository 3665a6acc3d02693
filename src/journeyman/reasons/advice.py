"""What to try next if a role is not deployed, with the figures that each suggestion is based on."""

from __future__ import annotations

from dataclasses import dataclass

from journeyman.reasons.base import Reason

FIRST_SHARE = 0.1
"""Of general rows, where there were none."""

# --- more rows, other checks ---


@dataclass(frozen=True)
class MoreTestRows(Reason, code="more_test_rows"):
    """`needed` is None if no number of rows would be enough, because none can be scored."""

    needed: int | None
    rows: int

    def sentence(self) -> str:
        if self.needed is None:
            return "more test rows of this role, or checks that can score them"
        missing = f", {self.needed - self.rows} too few" if self.needed > self.rows else ""
        return (
            f"at the success rate seen so far, {self.needed} test rows of this role would be enough; "
            f"there are {self.rows}{missing}"
        )


@dataclass(frozen=True)
class TimeMoreRows(Reason, code="time_more_rows"):
    says = "raise evaluate.timed_rows: the mean latency is not known precisely enough"


@dataclass(frozen=True)
class TooFewRows(Reason, code="too_few_training_rows"):
    says = "more training rows of this role: there are {rows}, and with fewer than {least} a role learns little"
    rows: int
    least: int


@dataclass(frozen=True)
class RowsMemorized(Reason, code="training_rows_memorized"):
    says = (
        "more training rows of this role than {rows}: they are memorized (training loss {train_loss:.3f}, validation "
        "loss {validation_loss:.3f})"
    )
    rows: int
    train_loss: float
    validation_loss: float


@dataclass(frozen=True)
class MoreTrainingRows(Reason, code="more_training_rows"):
    says = "more training rows of this role than {rows}, then a larger base"
    rows: int


# --- what the answers and the other arms show ---


@dataclass(frozen=True)
class KeepTeacher(Reason, code="keep_teacher"):
    says = "keep the teacher, or try a larger base: tuning improved nothing"


@dataclass(frozen=True)
class TrainOnWholeAnswers(Reason, code="train_on_whole_answers"):
    says = (
        "most failures ({answers}) are answers that were cut off: train only on complete answers "
        "(curate.rules.truncated = 'drop', and a teacher with a higher token limit), or raise evaluate.max_new_tokens"
    )
    answers: int


@dataclass(frozen=True)
class LookForRefusals(Reason, code="look_for_refusals"):
    says = "most failures ({answers}) are refusals: look for refusals in the training rows, or use another base"
    answers: int


@dataclass(frozen=True)
class LookAtTeacher(Reason, code="look_at_teacher"):
    says = (
        "look at the teacher first: it passes {passed} of these {rows} rows, and the model cannot learn what the "
        "teacher cannot do; fix the checks, or train only on rows that pass"
    )
    passed: int
    rows: int


@dataclass(frozen=True)
class FewShotIsBetter(Reason, code="few_shot_is_better"):
    says = (
        "train longer or at a higher learning rate: the untuned base with examples in its prompt passes {lost} rows "
        "that the tuned model fails, and fails only {won} that the tuned model passes"
    )
    lost: int
    won: int


@dataclass(frozen=True)
class OtherQuantization(Reason, code="other_quantization"):
    says = "another quantization: {arm} passes {lost} rows that this one fails, and fails {won} that this one passes"
    arm: str
    lost: int
    won: int


# --- what the loss curves show ---


@dataclass(frozen=True)
class HigherLearningRate(Reason, code="higher_learning_rate"):
    says = (
        "a higher learning rate than {rate:g}, or better data: the validation loss hardly fell (from {first:.3f} to "
        "{best:.3f})"
    )
    rate: float
    first: float
    best: float


@dataclass(frozen=True)
class LowerLearningRate(Reason, code="lower_learning_rate"):
    says = (
        "a lower learning rate than {rate:g}, some train.lora.dropout, or more rows: the validation loss rose from "
        "{best:.3f} at step {best_step} to {last:.3f} at step {last_step}"
    )
    rate: float
    best: float
    best_step: int
    last: float
    last_step: int


@dataclass(frozen=True)
class MoreEpochs(Reason, code="more_epochs"):
    says = (
        "more epochs than {epochs}: the validation loss was still falling at the end, from {before:.3f} at step "
        "{before_step} to {last:.3f} at step {last_step}"
    )
    epochs: int
    before: float
    before_step: int
    last: float
    last_step: int


@dataclass(frozen=True)
class HigherRank(Reason, code="higher_rank"):
    says = (
        "a higher rank than {rank}, then a larger base: the validation loss has leveled off at {best:.3f}, and the "
        "rows are not memorized, so the model is too small for them"
    )
    rank: int
    best: float


# --- speed, memory, regressions ---


@dataclass(frozen=True)
class ShorterPrompts(Reason, code="shorter_prompts"):
    says = "shorter prompts: {first_token_s:.1f} of {mean_s:.1f} s are spent before the first token"
    first_token_s: float
    mean_s: float


@dataclass(frozen=True)
class FasterBase(Reason, code="faster_base"):
    mean_s: float
    tokens_per_s: float | None

    def sentence(self) -> str:
        rate = f" at {self.tokens_per_s:.0f} tokens/s" if self.tokens_per_s else ""
        return (
            "a smaller or more quantized base, or shorter answers in the training rows: "
            f"{self.mean_s:.1f} s per answer{rate}"
        )


@dataclass(frozen=True)
class SmallerInMemory(Reason, code="smaller_in_memory"):
    says = "a smaller or more quantized base, or a smaller evaluate.context or evaluate.parallel"


@dataclass(frozen=True)
class GentlerTuning(Reason, code="gentler_tuning"):
    """`share`: train.retention.share of the run."""

    rate: float
    epochs: int
    share: float = 0.0

    def sentence(self) -> str:
        fewer = f"fewer epochs than {self.epochs}, " if self.epochs > 1 else ""
        beside = f"general rows with the base's own answers (train.retention.share = {FIRST_SHARE:g})"
        if self.share:
            beside = f"more general rows than now (train.retention.share is {self.share:g})"
        return (
            f"{beside}; if that does not suffice, a lower learning rate than {self.rate:g}, {fewer}or fewer "
            "train.lora.targets: too many answers of the regression suite got worse"
        )
