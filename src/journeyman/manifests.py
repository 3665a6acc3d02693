"""What each stage passes to the next: the content of its manifest.json. READ SECOND.

An estimate that could not be made is None, never 0.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from journeyman.engine_identity import EngineIdentity
from journeyman.reasons import ReasonRecord
from journeyman.reasons.scoring import of_old_text
from journeyman.records import EVERY_ROLE

VerdictName = Literal["deploy", "iterate", "abort", "insufficient"]


class Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Stamp(Manifest):
    """How an artifact was made."""

    stage: str
    version: int
    journeyman: str
    fingerprint: str
    inputs: dict[str, str] = Field(
        description="setting or input → its value or hash; the fingerprint covers all of them"
    )
    created: str
    files: dict[str, str] = Field(description="file → SHA-256")
    sha256: str | None = Field(None, description="of everything else in this manifest; None: made by an older version")


class Durations(Manifest):
    """Seconds, over the rows that logged a duration and no failure; None if there are none."""

    n: int
    mean_s: float | None
    median_s: float | None
    p95_s: float | None


class LogGroup(Manifest):
    """One role, or one provider and model."""

    rows: int
    successes: int = Field(description="rows that are successes according to the log")
    failures: int = Field(0, description="rows that are failures according to the log, which may not know some rows")
    durations: Durations


class CountedReason(ReasonRecord):
    """A reason, or a note, and how many rows have it."""

    rows: int


def _counted_texts(value: Any) -> Any:
    """Reads manifests of older versions, in which reasons had no codes: sentence → rows."""
    if not isinstance(value, dict):
        return value
    return [{"code": "text", "details": {"text": text}, "rows": rows} for text, rows in value.items()]


CountedReasons = Annotated[list[CountedReason], BeforeValidator(_counted_texts)]


class IngestManifest(Manifest):
    read: int = Field(
        description="rows of the files, counted when they are read; a conversation may give several answers"
    )
    kept: int
    rejected: int
    rejected_by: dict[str, int] = Field({}, description="code of the reason → rows rejected for it; all reasons")
    reasons: CountedReasons = Field(description="why rows were rejected, with details; the 20 most frequent reasons")
    skipped: dict[str, int] = Field({}, description="files in the sources' folders that are not logs by name → bytes")
    notes: CountedReasons = Field(
        [], description="what was not understood or not stored of kept rows; the 20 most frequent notes"
    )
    redacted: dict[str, int] = Field(description="kind of secret or personal data → values replaced")
    total: LogGroup
    by_role: dict[str, LogGroup]
    by_teacher: dict[str, LogGroup] = Field(description="provider, or provider/model")


class SplitCounts(Manifest):
    train: int
    val: int
    test: int
    effective_test: float = Field(description="how many independent rows the test rows count as: see stats.groups")


class CreditFunnel(Manifest):
    """How many rows of a role remain after each step of a credit rule."""

    role: str
    steps: dict[str, int]
    otherwise: float = Field(description="weight of the other rows; 0: they are dropped")


class RuleCount(Manifest):
    """What one rule found."""

    what: str
    action: str = Field(description="as configured")
    dropped: dict[str, int] = Field(description="role → rows")
    noted: dict[str, int] = Field(description="role → rows that were fixed or only noted")


class TeacherQuality(Manifest):
    """One provider and model, by what the rules say about its rows."""

    rows: int
    failed: int
    truncated: int
    opens_reasoning: int
    never_closes_reasoning: int
    usable: int = Field(description="rows that no rule for single rows dropped")
    mean_output_tokens: float | None


TermsName = Literal["allow", "deny", "unknown"]


class TermsOfTeacher(Manifest):
    """Whether a teacher's answers may train a model, by the patterns in [curate.teacher_terms]."""

    terms: TermsName
    rows: int = Field(description="its rows in the dataset")


class RoutingQuality(Manifest):
    """How well the check for misrouted roles works on this log; None if it could not be tried."""

    method: str = Field(description="what the tasks were compared with")
    tasks: int = Field(description="distinct tasks that were answered, including dropped answers")
    flagged: int
    agreement: float | None = Field(
        description="share of tasks that the check assigns to their logged role; mean over the roles"
    )
    guessing: float | None = Field(description="the agreement that guessing would give")
    found: float | None = Field(description="share flagged after swapping the role on purpose")
    note: ReasonRecord | None = Field(description="why nothing is flagged, if so")

    @field_validator("note", mode="before")
    @classmethod
    def _without_text(cls, note: Any) -> Any:
        return note or None  # older versions wrote an empty text


class Lengths(Manifest):
    """Lengths of the successful rows as logged, in tokens of the base's tokenizer."""

    rows: int
    mean_prompt: float
    mean_output: float
    mean_total: float
    longest: int
    padding_waste: float = Field(description="share of computed tokens that padding to max_length would waste")


class Repetition(Manifest):
    """How much the successful rows repeat each other."""

    rows: int
    distinct_tasks: int
    distinct_ids: int
    random_split_leaks: float = Field(description="test rows whose task is in train as well; mean over random splits")
    worst_random_split_leaks: int = Field(description="the most such rows in any random split that was tried")
    random_split_tests: int


class RolePrompt(Manifest):
    """What a role's system prompts have in common, which decides what is trained and what serving accepts."""

    kind: Literal["fixed", "templated", "free"] = Field(
        description="fixed: the same for all rows; templated: a frame around varying parts; free: each row's own"
    )
    text: str = Field(description="the fixed prompt; '' if the rows keep their own")
    begins: str = Field(description="what every templated prompt begins with")
    ends: str = Field(description="what every templated prompt ends with")
    rows: int
    distinct: int = Field(description="different prompts in the role's logged rows, counting no prompt as one")

    def fits(self, prompt: str) -> bool:
        """Whether a client's prompt is one that the role was trained for."""
        whole = len(prompt) >= len(self.begins) + len(self.ends)
        return self.kind != "templated" or (whole and prompt.startswith(self.begins) and prompt.endswith(self.ends))


class DatasetManifest(Manifest):
    rows_in: int
    kept: int
    dropped: dict[str, int] = Field(description="rule → rows")
    rules: dict[str, RuleCount]
    splits: dict[str, SplitCounts] = Field(description="role → rows of each split")
    train_tokens: int
    longest_row_tokens: int
    system_prompts: dict[str, str] = Field(
        description="role → its prompt in training and serving; absent for roles whose prompts vary"
    )
    prompts: dict[str, RolePrompt] = Field({}, description="role → how its system prompts vary")
    teachers: dict[str, TeacherQuality]
    teacher_terms: dict[str, TermsOfTeacher] = Field(
        {}, description="teacher → its terms and its rows in the dataset; empty: made by an older version"
    )
    lengths: Lengths | None
    repetition: Repetition
    routing: RoutingQuality | None
    credit: list[CreditFunnel]
    leak_check: ReasonRecord = Field(description="what was compared, and what was found")
    notes: list[ReasonRecord]


class CheckRule(Manifest):
    """How a role's answers are scored."""

    checks: list[str]
    weights: dict[str, float] = Field({}, description="check → weight; if not empty, replaces `checks`")
    pass_at: float = Field(1.0, description="share of the weight that must pass")


class Rules(Manifest):
    """The rules of the decision, fixed before any result is seen."""

    max_mean_latency_s: float
    min_success: float
    max_memory_gb: float
    stretch_mean_latency_s: float
    stretch_success: float
    confidence: float
    role_confidence: float = Field(description="of each role's intervals, corrected for the number of roles and files")
    margin: float | None = Field(description="how far a role may be below the teacher; None: not compared")
    regression_margin: float = Field(
        validation_alias=AliasChoices("regression_margin", "probe_margin"),
        description="share of a part of the regression suite that tuning may cost",
    )
    files: list[str] = Field(description="what may ship: names of the base's files, and a server")
    checks: dict[str, CheckRule] = Field(description="role → how its answers are scored")


class PlannedFile(Manifest):
    """A file of the base that may ship, before it is evaluated."""

    path: str
    sha256: str
    size_gb: float = Field(description="10^9 bytes")
    made_by: str = Field("", description="what converted it from the base's folder; '' if it was given")


class RulePower(Manifest):
    """What the held-out rows can show about one rule of the decision, with a chance of 80 %: see stats.power."""

    rule: Literal["success", "teacher", "regression"]
    of: str = Field(description="the role, 'all' roles, or a part of the regression suite")
    rows: float = Field(description="independent rows that the rows count as, or questions")
    shown: float | None = Field(
        description="success: the smallest true rate that is shown to be enough; teacher: the smallest margin; "
        "regression: the smallest loss that is found. None: nothing is shown by so few rows"
    )
    refuted: float | None = Field(None, description="success: the largest true rate that is shown to be too low")
    rows_needed: int | None = Field(
        None, description="success: rows that a true rate of power_rate needs; None: more than were tried"
    )


class DiskPlan(Manifest):
    """What the run writes from here on, in bytes at most, and what was free when the plan was made."""

    needs: dict[str, int]
    there: dict[str, int] = Field({}, description="what is on the disk already")
    free: int


class TrainTime(Manifest):
    """Seconds of training on the plan's device, as the machine was when the plan was made. Early stopping may end it
    sooner."""

    source: Literal["measured", "formula"] = Field(
        description="measured: extrapolated from steps that were tried; formula: from the rate of matrix products"
    )
    why: ReasonRecord | None = Field(None, description="why no steps were tried")
    seconds: float = Field(description="of computing: steps and validations, without loading and checkpoints")
    low: float
    high: float
    epochs: list[float] = Field(description="`seconds` by epoch")
    validation_s: float = Field(description="the part of `seconds` that validations take")
    load_s: float | None = Field(None, description="before the first step: loading the base and rendering the rows")
    checkpoint_s: float | None = Field(None, description="to save one checkpoint")
    measured_s: float | None = Field(None, description="how long steps were tried")
    groups: int = Field(0, description="different groups of packs that were tried")
    repetitions: int = Field(0, description="of all groups")
    spread: float | None = Field(None, description="relative standard deviation of repetitions")
    residual: float | None = Field(None, description="relative error with which groups are predicted from the others")
    others: float | None = Field(None, description="share of the cores that other processes used before")
    waiting: float | None = Field(None, description="share of that time in which some task waited for a core")
    stolen: float | None = Field(None, description="share of processor time that the host took meanwhile")


class StageTime(Manifest):
    """Predicted seconds of a stage after training."""

    seconds: float | None = Field(None, description="None: not known")
    low: float | None = None
    high: float | None = None
    why: ReasonRecord | None = Field(None, description="why it is not known")
    without: ReasonRecord | None = Field(None, description="what `seconds` leaves out, because it is not known")
    parts: dict[str, float] = Field({}, description="`seconds` by what takes them: arms, loading")
    start_s: float | None = Field(None, description="measured: to start the engine and load the file")
    prompt_tokens_per_s: float | None = Field(None, description="measured, one request at a time")
    tokens_per_s: float | None = Field(None, description="measured after the first token, one request at a time")
    tokens_per_s_loaded: float | None = Field(None, description="measured, of `load` concurrent requests together")
    load: int | None = None


class MemoryFree(Manifest):
    """What was free when the plan was made, in 10^9 bytes, without swap."""

    limit_gb: float = Field(description="what training may use")
    limit_from: Literal["max_memory_gb", "free"]
    free_gb: float = Field(description="of the GPU with least, or what this process may use")
    total_gb: float = Field(description="of the GPU, or of the machine")
    group_limit_gb: float | None = Field(None, description="of the container or control group; None: there is none")
    group_used_gb: float | None = None


def as_set(value: Any) -> str:
    """A value as `--set` takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def set_flags(overrides: Iterable[str]) -> str:
    """Overrides as on a shell's command line."""
    return " ".join(f"--set {shlex.quote(one)}" for one in overrides)


class FittedSetting(Manifest):
    """A setting that `--fit` changed; values as --set takes them."""

    key: str
    value: str
    instead_of: str

    def override(self) -> str:
        """What follows --set."""
        return f"{self.key}={self.value}"


class PlannedRecipe(Manifest):
    """The settings of training that the plan's page shows."""

    adapters: Literal["shared", "per-role"]
    preset: str
    rank: int
    alpha: float
    targets: list[str]
    rows_per_step: int
    retention_share: float
    retention_max_tokens: int


class NearestConfiguration(Manifest):
    """Settings with which what does not fit into memory does."""

    of: Literal["training", "serving"]
    settings: dict[str, str] = Field(description="config key → value, as --set takes it; none: see costs")
    memory_gb: float
    train_s: float | None = Field(description="None: not known, or not different")
    costs: list[ReasonRecord]
    needs_other_model: bool

    def overrides(self) -> list[str]:
        """What follows each --set."""
        return [f"{key}={value}" for key, value in self.settings.items()]

    def flags(self) -> str:
        """The settings as on a shell's command line."""
        return set_flags(self.overrides())


class PlanManifest(Manifest):
    base_path: str = Field(description="what is trained on: a file, or a Hugging Face folder")
    base_sha256: str
    base_parameters: int
    trainable_parameters: int
    steps_per_epoch: int
    total_steps: int
    tokens_per_epoch: int
    total_tokens: int
    general_rows: int = Field(
        0,
        description="of the base's own answers, in each epoch: see train.retention; counted in steps, and in tokens "
        "as if each were as long as it may be",
    )
    general_prompts: int = Field(0, description="that the base answers for them")
    device: str | None = Field(None, description="cuda: a GPU trains; None: the processor")
    device_name: str | None = Field(None, description="the GPUs, with their memory when the plan was made")
    sharded: bool = Field(False, description="each of several GPUs keeps a part of the base only")
    precision: str
    matrix_gflops: float = Field(description="the device's measured rate of matrix products")
    served: list[PlannedFile] = Field([], description="what may ship; the first file also answers without an adapter")
    memory: Literal["keep", "recompute", "stream"] = Field(description="memory mode of training: see train.memory")
    pack_tokens: int = Field(description="tokens computed at once")
    group_tokens: int = Field(description="tokens whose gradients are computed at once")
    estimated_train_s: float
    train_time: TrainTime | None = Field(None, description="None: made by an older version")
    general_time: StageTime | None = Field(
        None, description="of the base's answers to general prompts, before the first step; None: it is not asked"
    )
    evaluate_time: StageTime | None = Field(None, description="None: made by an older version; as the next two")
    bisect_time: StageTime | None = None
    export_time: StageTime | None = None
    estimated_train_memory_gb: float
    measured_train_memory_gb: float | None = Field(
        None, description="peak of the steps that were tried, with the largest pack; None: not measured"
    )
    estimated_serve_memory_gb: float | None = Field(description="of this machine's engine; None if it serves nothing")
    rules: Rules
    power: dict[str, float] = Field(
        description="role → chance that its test rows are enough if its true success is power_rate"
    )
    power_rate: float
    warnings: list[ReasonRecord]
    errors: list[ReasonRecord] = Field([], description="lints with which training is not started: see plan.allow")
    rule_power: list[RulePower] = Field([], description="what the held-out rows can show, by rule")
    disk: DiskPlan | None = Field(None, description="None: made by an older version")
    train_memory_parts: dict[str, float] = Field({}, description="what the computed peak consists of, in 10^9 bytes")
    memory_free: MemoryFree | None = Field(None, description="None: made by an older version")
    nearest: list[NearestConfiguration] = Field([], description="that fit, if this one does not; see --fit")
    fitted: list[FittedSetting] = Field([], description="what --fit changed; other commands need the same settings")
    recipe: PlannedRecipe | None = Field(None, description="None: made by an older version")
    teachers: dict[str, int] = Field({}, description="teacher → its rows in the logs")
    rows: dict[str, SplitCounts] = Field({}, description="role → rows of each split")
    license: str | None = Field(None, description="what the base says of itself")
    serving: str = Field("", description="which program will serve it")
    looked_at: dict[str, str] = Field({}, description="settings of later stages that lints looked at → their values")

    @property
    def countable_train_memory_gb(self) -> float:
        """The estimate without what AdapterManifest.peak_memory_gb does not count: on a GPU, its context and kernels,
        because torch counts only what it has allocated itself."""
        apart = self.train_memory_parts.get("runtime", 0.0) if self.device is not None else 0.0
        return self.estimated_train_memory_gb - apart

    @property
    def is_go(self) -> bool:
        """Whether training may start."""
        return not self.errors


class ValidationPoint(Manifest):
    step: int
    loss: float


class TrainedAdapter(Manifest):
    """One training run."""

    folder: str = Field(description="relative to the stage's folder; '' is that folder itself")
    steps: int
    total_steps: int
    stopped_early: bool
    best_step: int
    validations: list[ValidationPoint]
    train_loss: float | None = Field(None, description="over the last steps; None if no step was made")
    train_s: float
    tokens: int

    @property
    def best_loss(self) -> float | None:
        return min((point.loss for point in self.validations), default=None)


class AdapterManifest(Manifest):
    base_sha256: str
    trainable_parameters: int = Field(description="of one adapter")
    adapters: dict[str, TrainedAdapter] = Field(description="'all', or one for each role")
    precision: str
    engine: str = Field("", description="what trained it; '' in versions up to 0.6.0")
    peak_memory_gb: float | None = Field(
        description="if a GPU trained, what torch allocated of its memory, which its context and kernels add to"
    )
    at_once: int = Field(
        1, description="how many adapters were trained at the same time at most; their seconds are counted apart"
    )

    @property
    def train_s(self) -> float:
        return sum(one.train_s for one in self.adapters.values())

    @property
    def tokens(self) -> int:
        return sum(one.tokens for one in self.adapters.values())

    def of(self, role: str) -> TrainedAdapter | None:
        """The role's adapter, or the one that all roles share."""
        return self.adapters.get(role) or self.adapters.get(EVERY_ROLE)


class Rate(Manifest):
    """A success rate with its Wilson interval."""

    passed: int
    n: int
    low: float
    high: float
    effective_n: float = Field(description="how many independent rows the rows count as: see stats.groups")


class Speed(Manifest):
    """How fast an arm answers at a given number of concurrent requests."""

    n: int = Field(description="answers that were timed")
    load: int | None = Field(
        description="number of concurrent requests; None: not known, because the times were logged"
    )
    mean_s: float
    mean_high_s: float | None = Field(description="upper end of the mean's bootstrap interval; None: too few values")
    p50_s: float
    p95_s: float
    first_token_s: float | None = Field(description="mean time to the first token")
    tokens_per_s: float | None = Field(description="tokens per second of one answer, after its first token")
    latencies_s: list[float] = Field(description="the individual times, or 200 evenly ranked ones")


class Failures(Manifest):
    """Answers that failed a check for the same reason."""

    check: str = Field(description="the check that decided, or 'weights'")
    code: str = Field(description="the reason's code; for weights, that of the failed check with the most weight")
    n: int
    example: ReasonRecord | None = Field(description="the first answer's reason, with its details")

    def sentence(self) -> str:
        return self.check if self.example is None else f"{self.check}: {self.example.sentence()}"


class ArmSummary(Manifest):
    success: Rate | None = Field(description="None if no row could be scored")
    unscored: int
    failures: list[Failures] = Field([], description="why answers failed, by check and code; most frequent first")
    speed: Speed | None = Field(
        None, description="one request at a time, without prompt cache; the teacher's as logged"
    )
    under_load: Speed | None = Field(None, description="concurrent requests with prompt cache, as in serving")

    @field_validator("failures", mode="before")
    @classmethod
    def _from_sentences(cls, value: Any) -> Any:
        """Reads older manifests, which have "check: sentence" → answers."""
        if not isinstance(value, dict):
            return value
        parts = [(*why.partition(": ")[::2], n) for why, n in value.items()]
        read = [(check, of_old_text(text) if text else None, n) for check, text, n in parts]
        return [
            {"check": check, "code": reason.code if reason else "", "n": n, "example": reason}
            for check, reason, n in read
        ]


class Paired(Manifest):
    """An arm compared with another one row by row; only rows on which both were scored are counted."""

    wins: int = Field(description="rows that the arm passes and the other fails")
    losses: int = Field(description="rows that the other passes and the arm fails")
    ties: int
    both: int = Field(description="rows that both pass; these are ties")
    p_value: float | None = Field(description="exact McNemar test of wins against losses; by groups if rows share one")
    difference: float | None = Field(description="the arm's success minus the other's, on rows scored for both")
    low: float | None = Field(description="lower end of the difference's interval")
    high: float | None


class RoleSummary(Manifest):
    rows: int
    groups: int = Field(description="groups of related rows: of one session, or with nearly the same task")
    arms: dict[str, ArmSummary] = Field(description="arm → result, in display order")
    versus: dict[str, dict[str, Paired]] = Field(description="arm that may ship → other arm → their comparison")

    @property
    def base(self) -> ArmSummary:
        return self.arms["base"]

    @property
    def tuned(self) -> ArmSummary:
        return self.arms["tuned"]


class ComparedWeights(Manifest):
    """What a server computes, compared with what was trained."""

    tokens: int = Field(description="tokens whose log probabilities were compared, with the base and with the adapter")
    base_nats: float = Field(description="mean difference with the base")
    tuned_nats: float = Field(description="mean difference with the adapters")


class ServerUsed(Manifest):
    """A server that serves the base's folder and the adapters, as it was evaluated."""

    url: str
    base_model: str = Field(description="the base's name in requests")
    tuned_models: dict[str, str] = Field(description="'all' or role → its adapter's name in requests")
    version: str = Field(description="'' if the server does not say")
    adapter_sha256: dict[str, str] = Field(description="'all' or role → hash of its adapter in peft's format")
    weights: ComparedWeights | None = Field(description="None if the server returns no log probabilities of prompts")


def merged_name(kind: str) -> str:
    """The file, in the evaluation's folder, with the adapter merged into weights of this format."""
    return f"merged-{kind}.gguf"


class ServedFile(Manifest):
    """A file that may ship, as it was evaluated: of the base, or with the adapter merged; or the base on a server."""

    path: str
    sha256: str
    size_gb: float = Field(description="10^9 bytes")
    load_s: float | None = Field(description="None: a server had loaded it")
    warm_up_s: float | None = Field(description="the first request after loading; not counted elsewhere")
    peak_memory_gb: float | None = Field(
        description="of the serving process, 10^9 bytes, at the load of the evaluation"
    )
    identical_prompts: int | None = Field(
        description="prompts whose token ids equal those of training; None: the server does not say which it makes"
    )
    server: ServerUsed | None = Field(None, description="None: this machine's engine served the file")
    merged: str | None = Field(
        None, description="the format of the adapter's merged weights in it; None: the adapter was beside it"
    )

    @property
    def shown(self) -> str:
        """For people: the file's name, or the server."""
        return Path(self.path).name if self.server is None else f"{Path(self.path).name} at {self.server.url}"


class RegressionResult(Manifest):
    """The tuned model compared with the base on questions unrelated to the roles."""

    n: int
    base: int = Field(description="answers that pass")
    tuned: int
    wins: int
    losses: int
    p_value: float | None = Field(description="one-sided: how likely such a loss is by chance")
    note: ReasonRecord | None = Field(None, description="why the questions were not asked, if n is 0")

    @field_validator("note", mode="before")
    @classmethod
    def _none_of_nothing(cls, value: Any) -> Any:
        return None if value == "" else value  # older manifests have "" for none

    @property
    def fall(self) -> float:
        """The share that tuning cost; negative if it gained."""
        return (self.losses - self.wins) / self.n if self.n else 0.0


class JudgeAgreement(Manifest):
    """A judge compared with the other checks on the answers that both decide."""

    role: str
    n: int
    agree: int
    too_kind: int = Field(description="passed by the judge, failed by another check")
    too_strict: int = Field(description="failed by the judge, passed by all other checks")
    unscored: int = Field(description="answers that the judge could not decide")
    low: float | None = Field(description="lower end of the interval of the agreement")
    high: float | None
    kappa: float | None = Field(description="agreement beyond chance (Cohen, 1960); None if it is undefined")


class Sandbox(Manifest):
    """What isolated code written by models from the machine."""

    kind: Literal["bubblewrap", "namespaces", "none", "unavailable"] = Field(
        description="none: code ran without a sandbox, as configured; unavailable: no sandbox worked, so no code ran"
    )
    description: str


class EvidenceFile(Manifest):
    """The state in which an evaluation left a file to which later evaluations append lines."""

    file: str = Field(description="its path in the run's folder")
    lines: int
    sha256: str = Field(description="of these lines, without later ones")


class EvaluationManifest(Manifest):
    engine: EngineIdentity = Field(description="the engine that answered; older versions recorded only its name")
    sandbox: Sandbox | None = Field(description="None if no check runs code")
    adapter_sha256: dict[str, str] = Field(description="'all' or role → SHA-256 of its adapter")
    rows: int
    look: int = Field(description="number of this look at the held-out test set, counted from 1")
    looks: int | None = Field(None, description="all looks so far; more than `look` if an earlier look was repeated")
    sealed_sha256: str | None = Field(None, description="SHA-256 of the held-out test set of these looks")
    evidence: list[EvidenceFile] = Field([], description="the record of looks and the response cache")
    confidence: float = Field(description="of the intervals over all rows, corrected for earlier looks")
    role_confidence: float = Field(description="of each role's intervals, likewise")
    roles: dict[str, RoleSummary] = Field(description="role → result; 'all' pools them")
    files: dict[str, ServedFile] = Field(description="arm that may ship → its file of the base")
    repeated: int = Field(description="tuned answers that were repeated one at a time")
    repeated_alike: int = Field(description="repeated answers that were identical")
    regressions: dict[str, dict[str, RegressionResult]] = Field(
        validation_alias=AliasChoices("regressions", "probes"), description="adapter → part of the suite → result"
    )
    judge: list[JudgeAgreement]
    endpoints: dict[str, str] = Field(description="arm → URL and model that was asked")

    @property
    def merged_into(self) -> ServedFile:
        """The file of the base with whose weights the adapter was merged for files with merged weights: the first."""
        return next(one for one in self.files.values() if one.merged is None)

    @field_validator("sandbox", mode="before")
    @classmethod
    def _sandbox_of_text(cls, value: Any) -> Any:
        """Reads older manifests, which describe it in words, with "" for none."""
        if not isinstance(value, str):
            return value
        if not value:
            return None
        begins = {"none:": "none", "bubblewrap ": "bubblewrap", "namespaces and seccomp": "namespaces"}
        kind = next((kind for start, kind in begins.items() if value.startswith(start)), "unavailable")
        return {"kind": kind, "description": value}


class BisectLink(Manifest):
    """One way of computing the tuned model, evaluated at the same positions of the same answers as the others."""

    name: str
    agreement: float = Field(description="share of the positions at which it chooses the same token as the first link")
    mean_nats: float = Field(description="mean difference of log probabilities from the first link")
    most_nats: float
    step_agreement: float = Field(description="like agreement, with the previous link")
    step_nats: float


class BisectResult(Manifest):
    role: str
    places: int
    links: list[BisectLink]
    parts_at: str | None = Field(description="the first link that differs from the previous one; None: none does")


class RuleResult(Manifest):
    rule: str
    outcome: Literal["pass", "fail", "unknown"]
    reason: ReasonRecord


class RoleDecision(Manifest):
    verdict: VerdictName
    stretch: bool
    reasons: list[RuleResult]
    rows_needed: int | None = Field(description="test rows that would settle it, at the rate observed")
    next_steps: list[ReasonRecord]


class DecisionManifest(Manifest):
    """The verdicts on the file that ships, and on the other files."""

    verdict: VerdictName
    roles: dict[str, RoleDecision]
    deployed_roles: list[str]
    ships: str = Field(description="the arm whose file ships: the one with most deployable roles, then the smallest")
    others: dict[str, dict[str, VerdictName]] = Field(description="arm of another file → role → verdict")
    notes: list[ReasonRecord] = Field(description="what a reader must know about how the verdict was reached")


class GoldenAnswer(Manifest):
    """A prompt, and the tokens with which the evaluated files answer it if each is the likeliest one."""

    adapter: str = Field(description="'all' or a role: the adapter that answers")
    role: str
    prompt: str = Field(description="as the chat template writes it")
    prompt_ids: list[int]
    answer_ids: list[int] = Field(description="up to 16 tokens, with the one that ends the answer if it is shorter")
    base_nats: float | None = Field(
        None, description="by which the base alone prefers another token, at most; None: the adapter is merged"
    )


class GoldenAnswers(Manifest):
    """golden.json of a target."""

    engine: str = Field(description="the engine that answered")
    answers: list[GoldenAnswer]


class Trial(Manifest):
    """What a program that loaded a target's files answered to the golden prompt of an adapter."""

    adapter: str = Field(description="'all' or a role")
    program: str = Field(description="with its version, if it was tried")
    outcome: Literal["same", "near", "not_tried"] = Field(
        description="same: the golden tokens; near: others where two tokens are about equally likely"
    )
    tokens: int = Field(0, description="golden tokens that were compared")
    differing: int = Field(0, description="tokens that are others")
    most_nats: float = Field(0.0, description="by which another token was likelier than the golden one")
    base_nats: float | None = Field(None, description="by which the base alone would differ; None: it was not asked")
    why: ReasonRecord | None = Field(None, description="why it was not tried")


class Target(Manifest):
    """What `export --target` made of a bundle for another program."""

    name: str
    merged: str | None = Field(None, description="the format of weights with the adapter in them; None: not merged")
    evaluated: bool = Field(description="the files with the weights are those that were evaluated")
    deployable: bool = Field(description="evaluated, and the verdict on every role in it is deploy")
    why_not: ReasonRecord | None = Field(None, description="why it is not evaluated")
    allowed: str | None = Field(None, description="the user's reason to serve it although it was not evaluated")
    trials: list[Trial]


class BundleManifest(Manifest):
    roles: list[str]
    override: str | None
    base_sha256: str
    adapter_sha256: dict[str, str] = Field(description="'all' or role → SHA-256 of its adapter")
    adapter_files: dict[str, str] = Field(description="'all' or role → its adapter in the bundle")
    base_file: str = Field(description="the base's file in the bundle; '' if a server has the base")
    base_path: str = Field(description="the original path of the base's file, or of its folder")
    server: ServerUsed | None = Field(None, description="what serves the bundle; None: this machine's engine")
    system_prompts: dict[str, str]
    prompts: dict[str, RolePrompt] = Field({}, description="role → how its system prompts vary")
    redact: dict[str, bool] = Field(description="what is replaced in requests, as in the training data")
    settings: dict[str, Any]
    engine: EngineIdentity | None = Field(
        None, description="the engine that was evaluated; None: made by an older version"
    )
    chat_template: str = Field("", description="the chosen chat template's name; '' is the base's own")
    template_file: str | None = Field(
        None, description="the chat template in the bundle; None: the one in the base's file is used as it is"
    )
    template_variables: dict[str, Any] = Field({}, description="values that every prompt's template gets")
    verdicts: dict[str, VerdictName] = Field({}, description="role → verdict; empty: made by an older version")
    target: Target | None = Field(None, description="None: the bundle that `export` makes without a target")

    @property
    def not_deployable(self) -> dict[str, VerdictName]:
        """The roles, with their verdicts, that the evidence does not allow to deploy."""
        return {role: verdict for role, verdict in self.verdicts.items() if verdict != "deploy"}


class ReleaseEvent(Manifest):
    """What changed which release is current."""

    at: str = Field(description="time, in ISO 8601")
    who: str = Field(description="user@host")
    action: Literal["promote", "rollback"]
    number: int = Field(description="the release that became current")
    before: int | None = Field(description="the one that was; None: the first promotion")
    why: str = Field("", description="as the user said")
    override: str | None = Field(None, description="the user's reason to promote it without a deploy verdict")
    sha256: str = Field(description="of the bundle's result and of the hashes of its files")
    roles: list[str]
    verdicts: dict[str, VerdictName] = Field({}, description="role → verdict; empty: the bundle does not record it")


class ReleaseRecord(Manifest):
    """releases.json: which release is current, and how it came to be."""

    format: Literal[1] = 1
    current: int | None
    events: list[ReleaseEvent]
