"""What each stage hands to the next: the content of its manifest.json. READ SECOND.

Estimates that could not be made are None, never 0.
"""

from __future__ import annotations

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
    """How an artifact came to be."""

    stage: str
    version: int
    journeyman: str
    fingerprint: str
    inputs: dict[str, str] = Field(description="setting or input → its value or hash: what the fingerprint covers")
    created: str
    files: dict[str, str] = Field(description="file → SHA-256")
    sha256: str | None = Field(None, description="of all else in this manifest; None: made by a version without")


class Durations(Manifest):
    """Seconds over the rows that logged a duration and no failure; None where none did."""

    n: int
    mean_s: float | None
    median_s: float | None
    p95_s: float | None


class LogGroup(Manifest):
    """One role, or one provider and model."""

    rows: int
    successes: int = Field(description="rows that the log calls successes")
    failures: int = Field(0, description="rows that it calls failures; of the rest it does not say")
    durations: Durations


class CountedReason(ReasonRecord):
    """A reason, or a note, and how many rows have it."""

    rows: int


def _counted_texts(value: Any) -> Any:
    """Of a manifest from before reasons had codes: sentence → rows."""
    if not isinstance(value, dict):
        return value
    return [{"code": "text", "details": {"text": text}, "rows": rows} for text, rows in value.items()]


CountedReasons = Annotated[list[CountedReason], BeforeValidator(_counted_texts)]


class IngestManifest(Manifest):
    read: int = Field(
        description="rows of the files, counted where they are read; a conversation gives several answers"
    )
    kept: int
    rejected: int
    rejected_by: dict[str, int] = Field({}, description="code of the reason → rows rejected for it; every reason")
    reasons: CountedReasons = Field(description="why rows were rejected, with details; the 20 most frequent")
    skipped: dict[str, int] = Field({}, description="files in the sources' folders that are no logs by name → bytes")
    notes: CountedReasons = Field(
        [], description="what was not understood or not kept of kept rows; the 20 most frequent"
    )
    redacted: dict[str, int] = Field(description="kind of secret or personal datum → values replaced")
    total: LogGroup
    by_role: dict[str, LogGroup]
    by_teacher: dict[str, LogGroup] = Field(description="provider, or provider/model")


class SplitCounts(Manifest):
    train: int
    val: int
    test: int
    effective_test: float = Field(description="what the test rows count as: see stats.groups")


class CreditFunnel(Manifest):
    """How many rows of a role each step of a credit rule left."""

    role: str
    steps: dict[str, int]
    otherwise: float = Field(description="weight of the rows that fell out; 0: they are dropped")


class RuleCount(Manifest):
    """What one rule found."""

    what: str
    action: str = Field(description="as configured")
    dropped: dict[str, int] = Field(description="role → rows")
    noted: dict[str, int] = Field(description="role → rows that were mended or only noted")


class TeacherQuality(Manifest):
    """One provider and model, by what the rules say of its rows. Shares are of `rows`."""

    rows: int
    failed: int
    truncated: int
    opens_reasoning: int
    never_closes_reasoning: int
    usable: int = Field(description="rows that no rule of single rows dropped")
    mean_output_tokens: float | None


class RoutingQuality(Manifest):
    """How well the check for misrouted roles works on this log; None where it could not be tried."""

    method: str = Field(description="what the tasks were compared with")
    tasks: int = Field(description="distinct tasks that were answered, whatever became of the answers")
    flagged: int
    agreement: float | None = Field(
        description="mean over the roles of the share that the check puts where the log has it"
    )
    guessing: float | None = Field(description="what guessing would give")
    found: float | None = Field(description="share flagged when the role is swapped on purpose")
    note: ReasonRecord | None = Field(description="why nothing is flagged, where that is so")

    @field_validator("note", mode="before")
    @classmethod
    def _without_text(cls, note: Any) -> Any:
        return note or None  # older versions wrote an empty text


class Lengths(Manifest):
    """Tokens of the successful rows, as logged, by the base's tokenizer."""

    rows: int
    mean_prompt: float
    mean_output: float
    mean_total: float
    longest: int
    padding_waste: float = Field(description="share of computed tokens that padding to max_length would waste")


class Repetition(Manifest):
    """How much the log repeats itself, over the successful rows."""

    rows: int
    distinct_tasks: int
    distinct_ids: int
    random_split_leaks: float = Field(description="test rows of a random split whose task is in train as well; mean")
    worst_random_split_leaks: int = Field(description="of the random splits that were tried")
    random_split_tests: int


class RolePrompt(Manifest):
    """What a role's system prompts have in common: what is trained, and what serving accepts."""

    kind: Literal["fixed", "templated", "free"] = Field(
        description="fixed: one for all rows; templated: a frame around varying parts; free: each row's own"
    )
    text: str = Field(description="the fixed prompt; '' where the rows keep their own")
    begins: str = Field(description="what every templated prompt begins with")
    ends: str = Field(description="what every templated prompt ends with")
    rows: int
    distinct: int = Field(description="different prompts that the role's rows were logged with, none included")

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
        description="role → the one prompt that is trained and must be served; roles whose prompts vary have none"
    )
    prompts: dict[str, RolePrompt] = Field({}, description="role → how its system prompts vary")
    teachers: dict[str, TeacherQuality]
    lengths: Lengths | None
    repetition: Repetition
    routing: RoutingQuality | None
    credit: list[CreditFunnel]
    leak_check: ReasonRecord = Field(description="what was compared, and what was found")
    notes: list[ReasonRecord]


class CheckRule(Manifest):
    """How a role's answers are judged."""

    checks: list[str]
    weights: dict[str, float] = Field({}, description="check → weight; where there are any, they stand for `checks`")
    pass_at: float = Field(1.0, description="share of the weight that must pass")


class Rules(Manifest):
    """The decision rules, fixed before any result."""

    max_mean_latency_s: float
    min_success: float
    max_memory_gb: float
    stretch_mean_latency_s: float
    stretch_success: float
    confidence: float
    role_confidence: float = Field(
        description="of each role's intervals: corrected for how many roles and files are judged"
    )
    margin: float | None = Field(description="what a role may lie below the teacher; None: not asked")
    regression_margin: float = Field(
        validation_alias=AliasChoices("regression_margin", "probe_margin"),
        description="how much of a part of the regression suite tuning may cost",
    )
    files: list[str] = Field(description="files of the base that may ship, the one that is trained on first")
    checks: dict[str, CheckRule] = Field(description="role → how its answers are judged")


class PlanManifest(Manifest):
    base_path: str
    base_sha256: str
    base_parameters: int
    trainable_parameters: int
    steps_per_epoch: int
    total_steps: int
    tokens_per_epoch: int
    total_tokens: int
    precision: str
    matrix_gflops: float = Field(description="this machine's measured rate in the chosen precision")
    memory: Literal["keep", "recompute", "stream"] = Field(description="how training uses memory: see train.memory")
    pack_tokens: int = Field(description="tokens computed at a time")
    group_tokens: int = Field(description="tokens whose gradients are made at a time")
    estimated_train_s: float
    estimated_train_memory_gb: float
    estimated_serve_memory_gb: float
    rules: Rules
    power: dict[str, float] = Field(description="role → chance that its test rows suffice at power_rate")
    power_rate: float
    warnings: list[ReasonRecord]


class ValidationPoint(Manifest):
    step: int
    loss: float


class TrainedAdapter(Manifest):
    """One training run."""

    folder: str = Field(description="below the stage's folder; '' is that folder itself")
    steps: int
    total_steps: int
    stopped_early: bool
    best_step: int
    validations: list[ValidationPoint]
    train_loss: float | None = Field(None, description="over the last steps; None where no step was made")
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
    peak_memory_gb: float | None

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
    """A share with its Wilson interval."""

    passed: int
    n: int
    low: float
    high: float
    effective_n: float = Field(description="what the rows count as: rows of one group say less than as many apart")


class Speed(Manifest):
    """How fast an arm answers, at one number of requests at a time."""

    n: int = Field(description="answers that were timed")
    load: int | None = Field(description="requests that were answered at a time; None: not known, as logged")
    mean_s: float
    mean_high_s: float | None = Field(description="the upper end of the mean's bootstrap interval; None: too few")
    p50_s: float
    p95_s: float
    first_token_s: float | None = Field(description="mean time to the first token")
    tokens_per_s: float | None = Field(description="answer tokens a second of one answer, after the first")
    latencies_s: list[float] = Field(description="the times themselves, or 200 evenly ranked ones")


class Failures(Manifest):
    """Answers that a check failed for one reason."""

    check: str = Field(description="the check that decided, or 'weights'")
    code: str = Field(description="the reason's code; of weights, that of the failed check that matters most")
    n: int
    example: ReasonRecord | None = Field(description="the reason of the first of them, with its details")

    def sentence(self) -> str:
        return self.check if self.example is None else f"{self.check}: {self.example.sentence()}"


class ArmSummary(Manifest):
    success: Rate | None = Field(description="None where no row could be scored")
    unscored: int
    failures: list[Failures] = Field([], description="why answers failed, by check and code; most first")
    speed: Speed | None = Field(None, description="one request at a time, nothing kept; the teacher's as logged")
    under_load: Speed | None = Field(None, description="several requests at a time, prompts kept, as when serving")

    @field_validator("failures", mode="before")
    @classmethod
    def _from_sentences(cls, value: Any) -> Any:
        """Older manifests hold "check: sentence" → answers."""
        if not isinstance(value, dict):
            return value
        parts = [(*why.partition(": ")[::2], n) for why, n in value.items()]
        read = [(check, of_old_text(text) if text else None, n) for check, text, n in parts]
        return [
            {"check": check, "code": reason.code if reason else "", "n": n, "example": reason}
            for check, reason, n in read
        ]


class Paired(Manifest):
    """An arm against another one, row by row; rows that either could not be judged on count in none of these."""

    wins: int = Field(description="rows that the arm passes and the other fails")
    losses: int = Field(description="rows that the other passes and the arm fails")
    ties: int
    both: int = Field(description="rows that both pass: a part of the ties")
    p_value: float | None = Field(
        description="exact McNemar test of wins against losses; by groups where rows share one"
    )
    difference: float | None = Field(description="the arm's success less the other's, on rows judged for both")
    low: float | None = Field(description="the interval of the difference")
    high: float | None


class RoleSummary(Manifest):
    rows: int
    groups: int = Field(description="of rows that belong together: a session, or nearly the same task")
    arms: dict[str, ArmSummary] = Field(description="arm → result, in the order in which they are shown")
    versus: dict[str, dict[str, Paired]] = Field(
        description="arm that may ship → other arm → the one against the other"
    )

    @property
    def base(self) -> ArmSummary:
        return self.arms["base"]

    @property
    def tuned(self) -> ArmSummary:
        return self.arms["tuned"]


class ServedFile(Manifest):
    """A file of the base as it was evaluated: one that may ship."""

    path: str
    sha256: str
    size_gb: float = Field(description="10^9 bytes")
    load_s: float
    warm_up_s: float = Field(description="the first request after loading; counted nowhere else")
    peak_memory_gb: float | None = Field(
        description="of the serving process, 10^9 bytes, at the load of the evaluation"
    )
    identical_prompts: int = Field(description="prompts whose token ids equal those of training")


class RegressionResult(Manifest):
    """The tuned model against the base, on questions that have nothing to do with what was tuned."""

    n: int
    base: int = Field(description="answers that pass")
    tuned: int
    wins: int
    losses: int
    p_value: float | None = Field(description="one-sided: how likely such a fall is if nothing was lost")
    note: ReasonRecord | None = Field(None, description="why it was not asked, where n is 0")

    @field_validator("note", mode="before")
    @classmethod
    def _none_of_nothing(cls, value: Any) -> Any:
        return None if value == "" else value  # as older manifests say that there is none

    @property
    def fall(self) -> float:
        """The share that tuning cost; below 0 where it gained."""
        return (self.losses - self.wins) / self.n if self.n else 0.0


class JudgeAgreement(Manifest):
    """A judge against the other checks of the same answers, where both decide."""

    role: str
    n: int
    agree: int
    too_kind: int = Field(description="passed by the judge, failed by another check")
    too_strict: int = Field(description="failed by the judge, passed by all other checks")
    unscored: int = Field(description="answers on which the judge decides nothing")
    low: float | None = Field(description="the interval of the share that agrees")
    high: float | None
    kappa: float | None = Field(description="agreement beyond chance (Cohen, 1960); None where it is not defined")


class Sandbox(Manifest):
    """What stood between model-written code and the machine."""

    kind: Literal["bubblewrap", "namespaces", "none", "unavailable"] = Field(
        description="none: code ran without walls, as configured; unavailable: none could be had, and no code was run"
    )
    description: str


class EvidenceFile(Manifest):
    """A file that later evaluations add lines to, as this one left it."""

    file: str = Field(description="its place in the run's folder")
    lines: int
    sha256: str = Field(description="of these lines; whatever follows came later")


class EvaluationManifest(Manifest):
    engine: EngineIdentity = Field(description="which engine answered; of older versions a name alone")
    sandbox: Sandbox | None = Field(description="None where no check runs code")
    adapter_sha256: dict[str, str] = Field(description="'all' or role → SHA-256 of its adapter")
    rows: int
    look: int = Field(description="how many times these sealed rows have judged an adapter, this one included")
    looks: int | None = Field(None, description="all looks at them so far, later ones than a repeated one included")
    sealed_sha256: str | None = Field(None, description="SHA-256 of the sealed rows that the looks were at")
    evidence: list[EvidenceFile] = Field([], description="the record of looks and the response cache")
    confidence: float = Field(description="of the intervals over all rows, after what earlier looks have used up")
    role_confidence: float = Field(description="of each role's intervals, likewise")
    roles: dict[str, RoleSummary] = Field(description="role → result; 'all' pools them")
    files: dict[str, ServedFile] = Field(description="arm that may ship → its file of the base")
    repeated: int = Field(description="tuned answers that were asked for again, one at a time")
    repeated_alike: int = Field(description="of these, those that came out the same")
    regressions: dict[str, dict[str, RegressionResult]] = Field(
        validation_alias=AliasChoices("regressions", "probes"), description="adapter → part of the suite → result"
    )
    judge: list[JudgeAgreement]
    endpoints: dict[str, str] = Field(description="arm → URL and model that was asked")

    @field_validator("sandbox", mode="before")
    @classmethod
    def _sandbox_of_text(cls, value: Any) -> Any:
        """Older manifests describe it in words, "" for none."""
        if not isinstance(value, str):
            return value
        if not value:
            return None
        begins = {"none:": "none", "bubblewrap ": "bubblewrap", "namespaces and seccomp": "namespaces"}
        kind = next((kind for start, kind in begins.items() if value.startswith(start)), "unavailable")
        return {"kind": kind, "description": value}


class BisectLink(Manifest):
    """One way of computing the tuned model, at the same places of the same answers."""

    name: str
    agreement: float = Field(description="share of the places where it chooses the token that the first link chooses")
    mean_nats: float = Field(description="mean difference of log probabilities from the first link's")
    most_nats: float
    step_agreement: float = Field(description="the same against the link before")
    step_nats: float


class BisectResult(Manifest):
    role: str
    places: int
    links: list[BisectLink]
    parts_at: str | None = Field(description="the first link that parts from the one before; None: none does")


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
    """The verdicts on the file that is to ship, and beside it those on the others."""

    verdict: VerdictName
    roles: dict[str, RoleDecision]
    deployed_roles: list[str]
    ships: str = Field(description="the arm whose file the verdicts are about: most roles to deploy, then the smallest")
    others: dict[str, dict[str, VerdictName]] = Field(description="arm of another file → role → verdict")
    notes: list[ReasonRecord] = Field(description="what a reader must know of how the verdict came about")


class BundleManifest(Manifest):
    roles: list[str]
    override: str | None
    base_sha256: str
    adapter_sha256: dict[str, str] = Field(description="'all' or role → SHA-256 of its adapter")
    adapter_files: dict[str, str] = Field(description="'all' or role → its adapter in the bundle")
    base_file: str
    base_path: str = Field(description="where the base's file came from")
    system_prompts: dict[str, str]
    prompts: dict[str, RolePrompt] = Field({}, description="role → how its system prompts vary")
    redact: dict[str, bool] = Field(description="what is replaced in requests, as it was in training")
    settings: dict[str, Any]
    engine: EngineIdentity | None = Field(None, description="the engine that was evaluated; None: an older version's")
