"""journeyman.toml as typed models. Each field has its key's default, unit and documentation.

Validation is strict: an unknown key, a wrong type or a value out of range raises a UsageError that names the
key, the value and the nearest valid key.
"""

from __future__ import annotations

import datetime
import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from journeyman.durations import PATTERN as DURATION
from journeyman.errors import UsageError
from journeyman.reasons import kinds
from journeyman.records import ARMS, EVERY_ROLE
from journeyman.renamed import current_config
from journeyman.ruleset import RULESET, Action

CONFIG_NAME = "journeyman.toml"
EMBEDDED = "embedded"


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _not_reserved(role: str) -> str:
    if role == EVERY_ROLE:
        raise ValueError(f"a role cannot be called {EVERY_ROLE!r}, which means every role: choose another name")
    return role


RoleName = Annotated[str, AfterValidator(_not_reserved)]


class BaseConfig(Section):
    """The model that is tuned and served."""

    model: str = Field(
        EMBEDDED,
        description="a .gguf file (of a split model, the first one), a folder with one, ollama:NAME:TAG, a model on "
        "Hugging Face's hub as PUBLISHER/REPO[@REVISION][:QUANTIZATION], which is downloaded unless a program has done "
        "so, or 'embedded' for SmolLM2-135M-Instruct Q4_1; see docs/bases.md",
    )
    chat_template: str = Field(
        "",
        description="the chat template to train and serve with instead of the base's own: chatml, gemma, granite, "
        "llama-2, llama-3, mistral, phi-3, phi-4, zephyr, or a .jinja file relative to the config file's folder; "
        "required if the base has none",
    )
    template_options: dict[str, bool | int | str] = Field(
        default_factory=dict,
        description="values of the chat template's own variables, such as { enable_thinking = false }, in training "
        "and serving",
    )
    template_date: datetime.date | None = Field(
        None,
        description="what a chat template that writes today's date gets, in training and serving; unset: the date "
        "that the template contains, or 2025-01-01",
    )


class DataConfig(Section):
    """Where the logged interactions are."""

    sources: list[str] = Field(
        ["interactions.jsonl"],
        description="files, folders or globs, relative to the config file's folder; - is stdin",
    )
    format: str = Field("auto", description="auto detects it for each row; `journeyman doctor` lists the names")
    encoding: str = Field(
        "auto",
        description="of text files, such as cp1252; auto: UTF-8, or UTF-16 or UTF-32 if the file has a byte order mark",
    )
    role_field: str = Field(
        "", description="dotted path of the field that names the agent's role, if it is not found automatically"
    )
    default_role: str = Field("agent", min_length=1, description="the role of rows that name none")

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, name: str) -> str:
        if name != "auto":
            try:
                "x".encode(name)  # refuses codecs from bytes to bytes as well
            except (LookupError, TypeError, UnicodeError) as error:
                raise ValueError(f"no encoding is called {name!r}") from error
        return name

    success_field: str = Field("", description="dotted path of the field that says whether a call succeeded")
    success_at_least: float | None = Field(
        None, description="if that field is a reward or a score: the least value that counts as a success"
    )

    @model_validator(mode="after")
    def _threshold_of_a_field(self) -> DataConfig:
        if self.success_at_least is not None and not self.success_field:
            raise ValueError("success_at_least is the threshold for success_field: set that as well")
        return self

    cut_tool_results: int = Field(
        0, ge=0, description="characters to keep of a tool's result; longer ones are cut in the middle; 0: keep all"
    )
    max_history: int = Field(
        100_000,
        ge=1_000,
        description="characters that may precede an answer in a session or trajectory; answers with more are "
        "rejected (each answer is stored with all that precedes it)",
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="for tables and JSON: journeyman's field → the column's name or a dotted path"
    )

    @field_validator("default_role")
    @classmethod
    def _is_a_role(cls, name: str) -> str:
        return _not_reserved(name)


class RedactConfig(Section):
    """What is replaced by placeholders, both before anything is stored and when serving."""

    secrets: bool = Field(True, description="API keys, tokens, private keys, passwords")
    personal: bool = Field(True, description="e-mail, phone, card, IBAN and public IP addresses")


class RuleActions(Section):
    """What happens to the rows that each rule finds; `note` only counts and lists them. ruleset.py defines the keys."""

    def action(self, rule: str) -> Action:
        """The action for the rows that a rule finds: the value of its key, or its default if it has no key.

        Raises:
            KeyError: there is no rule of that name.
        """
        found = RULESET[rule]
        key = found.key or rule
        chosen: Action = getattr(self, key) if RULESET[key].actions else found.default
        return chosen


if TYPE_CHECKING:
    RulesConfig = RuleActions
else:
    RulesConfig = create_model(
        "RulesConfig",
        __base__=RuleActions,
        __module__=__name__,
        **{
            name: (Literal[rule.actions], Field(rule.default, description=rule.doc or rule.what))
            for name, rule in RULESET.items()
            if rule.actions
        },
    )


class CreditNeed(Section):
    """A later row that must exist."""

    role: RoleName = Field(description="the role of the later row")
    matches: str = Field(description="a regular expression that its answer must match somewhere")


class CreditConfig(Section):
    """Keeps or weights a role's rows by what happened later in the same session."""

    role: RoleName = Field(description="the role whose rows are judged")
    needs: list[CreditNeed] = Field(min_length=1, description="rows that must all follow in the session")
    otherwise: float = Field(0.0, ge=0, le=1, description="weight of rows for which they do not; 0 drops these rows")


class TeacherTermsConfig(Section):
    """Whose answers may train a model, by the terms of use of who provides them."""

    allow: list[str] = Field(
        default_factory=list,
        description="patterns such as acme/*, compared with provider/model and with each of its parts",
    )
    deny: list[str] = Field(
        default_factory=list, description="patterns of teachers whose answers are dropped; they prevail over allow"
    )
    unknown: Literal["warn", "drop", "refuse"] = Field(
        "warn", description="for teachers that no pattern names; warn: keep, and say so if there are any patterns"
    )

    @field_validator("allow", "deny")
    @classmethod
    def _are_patterns(cls, patterns: list[str]) -> list[str]:
        if any(not pattern.strip() for pattern in patterns):
            raise ValueError("an empty pattern names no teacher")
        return patterns


class CurateConfig(Section):
    """How training and test data are selected."""

    max_length: int = Field(2048, ge=16, description="limit for prompt plus answer, in tokens; see rules.too_long")
    drop_providers: list[str] = Field(
        ["mock", "test"], description="providers whose answers are not used; see rules.mock_provider"
    )
    teachers: list[str] = Field(
        default_factory=list, description="use only answers of these, as provider or provider/model; empty: of all"
    )
    near_duplicate: float = Field(
        0.7, gt=0, le=1, description="Jaccard similarity of trigrams from which two tasks are near duplicates, 0 to 1"
    )
    group_by: str = Field(
        "", description="dotted path of a field in a row's extra; rows with equal values share a split"
    )
    val_share: float = Field(0.1, ge=0, lt=1, description="share of the rows for validation")
    test_share: float = Field(0.1, ge=0, lt=1, description="share of the rows for the held-out test set")
    split_by_time: bool = Field(False, description="hold out the newest groups for testing instead of random ones")
    seed: int = Field(0, ge=0, description="random seed of the split")
    rules: RulesConfig = RulesConfig()
    teacher_terms: TeacherTermsConfig = TeacherTermsConfig()
    credit: list[CreditConfig] = Field(
        default_factory=list, description="rules that keep or weight rows by outcome, as [[curate.credit]]"
    )

    @model_validator(mode="after")
    def _shares_leave_training_rows(self) -> CurateConfig:
        if self.val_share + self.test_share >= 1:
            raise ValueError(f"val_share {self.val_share} and test_share {self.test_share} leave nothing to train on")
        return self


class RoleConfig(Section):
    """One agent role."""

    system_prompt: str | None = Field(None, description="used in training and serving instead of the logged one")
    checks: list[str] = Field(
        ["answered"],
        min_length=1,
        description="all must pass; `journeyman doctor` lists them; your own: file.py:function",
    )
    weights: dict[str, float] = Field(default_factory=dict, description="check → weight; replaces `checks`")
    pass_at: float = Field(1.0, gt=0, le=1, description="with weights: the share of the weight that must pass")

    @field_validator("weights")
    @classmethod
    def _weights_are_positive(cls, weights: dict[str, float]) -> dict[str, float]:
        if any(weight <= 0 for weight in weights.values()):
            raise ValueError("every weight must be above 0")
        return weights


class LoraConfig(Section):
    """Which layers get a low-rank update, and its size."""

    rank: int = Field(16, ge=1, le=512, description="r, the inner dimension of the update")
    alpha: float = Field(32, gt=0, description="the update is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the input of A, in training only")
    targets: list[Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]] = Field(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        min_length=1,
        description="the linear layers that are adapted, in every block",
    )


class TrainRowsConfig(Section):
    """Which training rows are used. Unlike a rule of [curate], this leaves the split and all other rows as they are."""

    cut_answers: Literal["keep", "drop"] = Field(
        "keep", description="training rows whose answer is cut off; kept ones are trained without a terminator"
    )
    weights: Literal["curated", "equal"] = Field(
        "curated", description="curated: rows weigh in the loss as curate.credit says; equal: all alike"
    )


class RetentionConfig(Section):
    """What is trained beside the rows, so that the model keeps its general abilities."""

    share: float = Field(
        0.1,
        ge=0,
        le=4,
        description="general rows beside the training rows, as a share of their number (0.1: one for every ten); "
        "each is a general prompt with the base's own answer; 0: none",
    )
    max_tokens: int = Field(96, ge=1, le=4096, description="limit for each of the base's answers, in tokens")
    prompts: str = Field(
        "",
        description="a file of your own general prompts, relative to the config file's folder: .txt with one on each "
        "line, or .jsonl with `task` and perhaps `tools`, all of which the base's chat template must support; empty: "
        "those that are shipped with journeyman",
    )


class TrainConfig(Section):
    """The training recipe."""

    adapters: Literal["shared", "per-role"] = Field(
        "shared",
        description="one adapter for all roles, or one for each; on a processor, those of several roles are trained at "
        "the same time where that is faster and there is memory",
    )
    preset: Literal["default", "attention-r8"] = Field(
        "default", description="defaults for the keys of [train] that are not set"
    )
    lora: LoraConfig = LoraConfig()
    rows: TrainRowsConfig = TrainRowsConfig()
    retention: RetentionConfig = RetentionConfig()
    epochs: int = Field(3, ge=1, description="passes over the training rows")
    batch_size: int = Field(8, ge=1, description="rows per batch")
    gradient_accumulation: int = Field(1, ge=1, description="batches per optimizer step")
    learning_rate: float = Field(
        5e-4, gt=0, description="peak learning rate; small bases tolerate more (the demo: 1e-3)"
    )
    warmup_steps: int = Field(
        5, ge=0, description="optimizer steps in which the learning rate rises from 0 to the peak"
    )
    schedule: Literal["cosine", "linear"] = Field("cosine", description="decay of the learning rate from peak to zero")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay of AdamW")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    patience: int = Field(2, ge=1, description="validations without improvement after which training stops early")
    min_gain: float = Field(0.0, ge=0, description="nats by which the validation loss must fall to count as improved")
    pack_tokens: int | None = Field(
        None, ge=16, description="tokens per pack, computed at once; unset: 2048, or up to 8192 if prompts are long"
    )
    checkpoint_s: float = Field(60, gt=0, description="seconds between checkpoints")
    checkpoint_steps: int = Field(100, ge=1, description="optimizer steps between checkpoints, if this comes sooner")
    memory: Literal["auto", "keep", "recompute", "stream"] = Field(
        "auto",
        description="keep activations, recompute them, or also leave the weights quantized, in the file (or in the "
        "GPU's memory), and dequantize them layer by layer; auto: the first that fits in memory",
    )
    max_memory_gb: float | None = Field(
        None, gt=0, description="memory limit for training, in 10^9 bytes; unset: 90 % of free memory"
    )
    device: str = Field(
        "auto",
        description="where to train: cpu, cuda, or cuda:N for the GPU of that number; auto: the GPU with most free "
        "memory if there is one that can train this base, otherwise the processor",
    )
    gpus: int = Field(
        1, ge=1, description="GPUs of this machine that train together, each on a part of the rows of every step"
    )
    deterministic: bool = Field(
        False,
        description="the same bits in every run on a GPU, also for rows of 3072 tokens and more, whose attention then "
        "takes twice as long; shorter rows, and the processor, give the same bits anyway, except for adapters that are "
        "trained at the same time, which this key prevents",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 if the device computes it fast"
    )
    threads: int | None = Field(None, ge=1, description="processor threads; unset: all physical cores")
    seed: int = Field(0, ge=0, description="random seed of initialization, row order and dropout")

    @field_validator("device")
    @classmethod
    def _device_is_known(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", device):
            raise ValueError("must be auto, cpu, cuda, or cuda:N with the number of a GPU")
        return device

    @property
    def rows_per_step(self) -> int:
        return self.batch_size * self.gradient_accumulation


class ExpectConfig(Section):
    """What you expect of the run. The plan compares it with what it computes; unset: not compared."""

    steps: float | None = Field(None, gt=0, description="optimizer steps of the run")
    steps_per_epoch: float | None = Field(None, gt=0, description="optimizer steps of an epoch")
    trainable_parameters: float | None = Field(None, gt=0, description="parameters of one adapter")
    base_parameters: float | None = Field(None, gt=0, description="parameters of the base")
    base_gb: float | None = Field(
        None, gt=0, description="the base's weights in the precision of training, in 10^9 bytes"
    )
    train_memory_gb: float | None = Field(None, gt=0, description="peak memory of training, in 10^9 bytes")
    serve_memory_gb: float | None = Field(None, gt=0, description="memory of serving, in 10^9 bytes")
    train_hours: float | None = Field(None, gt=0, description="time of training, in hours")
    train_rows: float | None = Field(None, gt=0, description="training rows")
    test_rows: float | None = Field(None, gt=0, description="held-out test rows")
    disk_gb: float | None = Field(None, gt=0, description="what the run writes at most, in 10^9 bytes")

    def stated(self) -> dict[str, float]:
        """The figures that are set."""
        return {key: value for key, value in self.model_dump().items() if value is not None}


class PlanConfig(Section):
    """What the plan measures and is compared with, and which of its errors are accepted."""

    allow: list[str] = Field(
        default_factory=list,
        description="codes of the plan's errors that do not prevent training; they become warnings. "
        "`journeyman plan --explain CODE` says what one means",
    )
    measure_s: float = Field(
        20.0,
        ge=0,
        description="seconds for which the plan tries steps of training (of long runs a hundredth of their time, at "
        "most six times this), and half as long answers of the serving engine; 0: it measures only the rate of matrix "
        "products, and its times are rough",
    )
    expect: ExpectConfig = ExpectConfig()

    @field_validator("allow")
    @classmethod
    def _are_codes(cls, codes: list[str]) -> list[str]:
        for code in codes:
            if code not in kinds():
                near = difflib.get_close_matches(code, kinds(), n=1)
                raise ValueError(f"{code!r} is no code of the plan" + (f": did you mean {near[0]}?" if near else ""))
        return codes


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "attention-r8": {
        "lora": {"rank": 8, "alpha": 32, "dropout": 0.1, "targets": ["q_proj", "k_proj", "v_proj", "o_proj"]},
        "epochs": 3,
        "batch_size": 2,
        "gradient_accumulation": 8,
        "learning_rate": 2e-4,
        "warmup_steps": 50,
        "schedule": "linear",
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
    },
}
"""`attention-r8` is the recipe of most LoRA tutorials: rank 8 on the attention projections."""


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError(
            "contains a user name, password or query, but URLs are shown in reports; put the key in an "
            "environment variable and set key_env to the variable's name"
        )
    return url


def _names_a_variable(name: str) -> str:
    """Refuses what may be a key: written here by mistake, it would end up in every manifest."""
    mixed = any(char.islower() for char in name) and any(char.isdigit() for char in name) and len(name) >= 16
    solid = len(name) >= 20 and "_" not in name
    if name and (not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or mixed or solid):
        raise ValueError(
            "not the name of an environment variable; it may be a key: put that in a variable (export NAME=…) "
            "and write NAME here"
        )
    return name


_Url = Annotated[str, AfterValidator(_without_credentials)]
_Variable = Annotated[str, AfterValidator(_names_a_variable)]
_NEVER_QUOTED = ("url", "key_env", "webhook", "webhook_key_env")


class EndpointConfig(Section):
    """An OpenAI-compatible endpoint that answers the held-out test set, as its own arm."""

    url: _Url = Field(min_length=1, description="base URL, up to and including /v1")
    model: str = Field(min_length=1, description="the model's name there; {role} is replaced by the row's role")
    key_env: _Variable = Field("", description="environment variable with its key; empty: no key is sent")
    roles: list[RoleName] = Field(
        default_factory=list, description="send only rows of these roles; empty: of all roles"
    )


def _names_the_adapter(name: str) -> str:
    if "{adapter}" not in name:
        raise ValueError(
            "must contain {adapter}: a server that still has an earlier adapter must not answer for this one"
        )
    return name


class ServerConfig(Section):
    """An OpenAI-compatible server, such as vLLM, that serves base.model's folder and the adapters, and may ship."""

    url: _Url = Field(min_length=1, description="base URL, up to and including /v1")
    base_model: str = Field("", description="the base's name there; empty: its repo on the hub, or its folder")
    tuned_model: Annotated[str, AfterValidator(_names_the_adapter)] = Field(
        "journeyman-{adapter}",
        description="the adapter's name there; {adapter} is replaced by the first 12 digits of its SHA-256",
    )
    key_env: _Variable = Field("", description="environment variable with its key; empty: no key is sent")


class JudgeConfig(Section):
    """The model that the check `judge` asks."""

    url: _Url = Field(
        "",
        description="base URL of an OpenAI-compatible endpoint, up to and including /v1; required by the check `judge`",
    )
    model: str = Field("", description="the judge's name there")
    key_env: _Variable = Field("JOURNEYMAN_JUDGE_KEY", description="environment variable with its key")


MergedFormat = Literal[
    "F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S",
    "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "IQ4_NL", "IQ4_XS",
]  # fmt: skip


class EvaluateConfig(Section):
    """How answers are generated and scored. Serving uses the same values."""

    max_new_tokens: int = Field(512, ge=1, description="limit for the answer, in tokens")
    temperature: float = Field(0.0, ge=0, le=2, description="sampling temperature; 0 is greedy")
    threads: int | None = Field(None, ge=1, description="processor threads; unset: all physical cores")
    context: int = Field(4096, ge=128, description="context length of a request: prompt plus answer, in tokens")
    parallel: int = Field(4, ge=1, le=64, description="requests answered concurrently, in evaluation and serving")
    timed_rows: int = Field(
        10, ge=1, description="rows of each role that are repeated one at a time to measure latency"
    )
    few_shot: int = Field(2, ge=0, description="training rows in the few-shot arm's prompt; 0: no such arm")
    quantizations: list[str] = Field(
        default_factory=list,
        description="other .gguf files of the same base, named as in base.model; if that is a Hugging Face folder, "
        "also formats to be made of it: F32, F16, BF16, Q8_0, and with llama-quantize Q4_K_M etc. (empty: Q8_0, unless "
        "there is a server); the adapter is evaluated on each, and the best one ships",
    )
    merged: list[MergedFormat] = Field(
        default_factory=list,
        description="formats to which the first file and the adapter are merged, to evaluate the merged file as well: "
        "F32, F16, BF16, Q8_0, Q5_1, Q5_0, Q4_1, Q4_0, and with llama-quantize Q4_K_M etc.; `export --target gguf` can "
        "then ship it; requires train.adapters = 'shared'",
    )
    regression_suite: bool = Field(True, description="run the regression suite, which measures what tuning cost")
    endpoints: dict[str, EndpointConfig] = Field(
        default_factory=dict,
        description="name → another arm; one named `teacher` replaces the logged answers",
    )
    llama_server: str = Field(
        "",
        description="your own llama-server (a name on PATH or a path), such as a build for CUDA, that answers "
        "instead of the engine in the wheel, in evaluation and, unless `serve.llama_server` names another one, in "
        "serving; its other settings are llama.cpp's environment variables, such as LLAMA_ARG_N_GPU_LAYERS",
    )
    server: ServerConfig | None = Field(
        None,
        description="for a Hugging Face folder: a server, such as vLLM, that serves it and the adapter, and may ship",
    )
    judge: JudgeConfig = JudgeConfig()
    check_timeout_s: float = Field(
        60.0, gt=0, le=3600, description="seconds that your own check may take per answer; after that it is unscored"
    )
    unsafe_exec: bool = Field(False, description="run code written by a model even if no sandbox is available")

    @field_validator("merged")
    @classmethod
    def _each_once(cls, merged: list[str]) -> list[str]:
        if len(set(merged)) < len(merged):
            raise ValueError("names a format twice")
        return merged

    @field_validator("endpoints")
    @classmethod
    def _names_are_free(cls, endpoints: dict[str, EndpointConfig]) -> dict[str, EndpointConfig]:
        taken = sorted(name for name in endpoints if name in ARMS[1:] or "@" in name)
        if taken:
            raise ValueError(f"{taken[0]!r} is the name of another arm")
        return endpoints


class DecideConfig(Section):
    """The rules of the decision. The plan fixes them before any result is seen."""

    max_mean_latency_s: float = Field(
        12.0, gt=0, description="limit for the mean latency, in seconds; the whole interval must be below"
    )
    min_success: float = Field(
        0.98, gt=0, le=1, description="required success rate, 0 to 1; the whole interval must be at or above"
    )
    max_memory_gb: float = Field(10.0, gt=0, description="limit for the serving process's peak memory, in 10^9 bytes")
    stretch_mean_latency_s: float = Field(10.0, gt=0, description="a stricter latency limit, for the report only")
    stretch_success: float = Field(0.99, gt=0, le=1, description="a stricter success rate, for the report only")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="confidence level of all roles' intervals together")
    margin: float | None = Field(
        None, ge=0, lt=1, description="how far a role's success may be below the teacher's; unset: not compared"
    )
    regression_margin: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share of the regression suite that tuning may cost; a larger, significant loss blocks deployment",
    )


PromptPolicy = Literal["replace", "warn", "refuse"]


class ServeConfig(Section):
    """The server, which speaks OpenAI's and Anthropic's APIs."""

    host: str = Field(
        "127.0.0.1",
        description="address to listen on; any but a loopback address needs a key, and one is made if none is",
    )
    port: int = Field(8011, ge=0, le=65535, description="0 picks a free one")
    allow_hosts: list[str] = Field(
        default_factory=list, description="Host names to accept in addition to loopback's, e.g. behind a proxy"
    )
    key_env: str = Field(
        "", description="environment variable with a key that clients may send; `journeyman keys` adds more"
    )
    engine_url: str = Field(
        "",
        description="a llama-server, vLLM or other OpenAI-compatible server that answers instead of the engine in the "
        "wheel, asked without proxies; `journeyman serve --engine-url`",
    )
    llama_server: str = Field(
        "",
        description="your own llama-server (a name on PATH or a path), such as a build for CUDA, that is started "
        "instead of the engine in the wheel; its other settings are llama.cpp's environment variables, such as "
        "LLAMA_ARG_N_GPU_LAYERS; `journeyman serve --llama-server`; empty: that of `evaluate.llama_server`",
    )
    engine_key_env: _Variable = Field("", description="environment variable with its key; empty: no key is sent")
    engine_model: str = Field(
        "{adapter}",
        description="the models' names there, if each adapter is a model; {adapter} is replaced by `all`, by the role, "
        "or by `base` for roles without an adapter",
    )
    prompts: PromptPolicy = Field(
        "replace",
        description="what happens to prompts that differ from those of the training, which are counted and named in a "
        "header. `replace`: the trained system prompt replaces another one, one outside the trained frame is refused; "
        "`warn`: the same, but one outside the frame is served; `refuse`: every difference is refused",
    )
    max_body_mib: int = Field(4, ge=1, le=64, description="largest request, in MiB")
    body_s: float = Field(
        30.0,
        gt=0,
        description="seconds that a client may take to send the headers of a request, and again for its body; "
        "connections that take longer are closed",
    )
    queue: int = Field(64, ge=0, description="requests that may wait for the engine; further ones get status 429")
    queue_s: float = Field(120.0, gt=0, description="seconds that a request may wait for the engine")
    answer_s: float = Field(600.0, gt=0, description="seconds that an answer may take")
    restart_s: float = Field(10.0, ge=0, description="seconds that requests wait for an engine that is being restarted")
    hang_s: float = Field(
        60.0,
        gt=0,
        description="seconds after which an engine that has requests, but does not compute, is started again; one that "
        "computes without getting further, after `answer_s`",
    )
    shutdown_s: float = Field(
        10.0, ge=1, description="seconds from the signal to the end of the server; answers in progress get half of them"
    )
    log: str = Field("", description="file for one JSON line per request; `-` is standard output; empty: none")
    log_contents: bool = Field(
        False,
        description="write conversations and answers into the log too, redacted as `redact` says, which finds only "
        "what has a recognizable form: the file then holds what people said and needs their consent and protection",
    )


SECRET_HEADERS = frozenset(
    ("authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "journeyman-key")
)
"""Request headers with keys, whose values are never written."""


class RoleRule(Section):
    """A rule of `record.roles`: all of its conditions must hold."""

    role: RoleName = Field(min_length=1, description="the role of requests that match")
    path: str = Field("", description="path of the request, with * and ?, such as /v1/messages*")
    header: str = Field("", description="`Name` or `Name: value`, the value with * and ?")
    key: str = Field("", description="name of the port's key, or 8 or more digits of the SHA-256 of the client's key")
    model: str = Field("", description="name of the model, with * and ?")
    system: str = Field("", description="regular expression that is found in the system prompt")

    @model_validator(mode="after")
    def _has_a_condition(self) -> RoleRule:
        if not (self.path or self.header or self.key or self.model or self.system):
            raise ValueError("a rule needs a condition: path, header, key, model or system")
        if self.header.partition(":")[0].strip().lower() in SECRET_HEADERS:
            raise ValueError("the values of this header are secret and not recorded: use key")
        try:
            re.compile(self.system)
        except re.error as error:
            raise ValueError(f"system is not a regular expression: {error}") from error
        return self


class RecordConfig(Section):
    """The recorder: a port in front of a teacher's API that records every exchange."""

    upstream: str = Field(
        "", description="base URL of the API that answers, with or without /v1; `journeyman record --upstream`"
    )
    folder: str = Field("recorded", description="where the rows go, relative to the config file's folder")
    host: str = Field("127.0.0.1", description="address to listen on; any but a loopback address needs a key")
    port: int = Field(8012, ge=0, le=65535, description="0 picks a free one")
    allow_hosts: list[str] = Field(
        default_factory=list, description="Host names to accept in addition to loopback's, e.g. behind a proxy"
    )
    roles: list[RoleRule] = Field(
        default_factory=list,
        description="rules that say which role a request belongs to; the first that matches counts, and without any it "
        "is the name of the model; `journeyman record --learn` proposes rules",
    )
    max_body_mib: int = Field(64, ge=1, le=512, description="largest request, in MiB")
    body_s: float = Field(60.0, gt=0, description="seconds that a client may take to send a request")
    silent_s: float = Field(
        1800.0, gt=0, description="seconds for which the upstream may send nothing before it counts as failed"
    )
    shutdown_s: float = Field(10.0, ge=0, description="seconds that answers in progress get when the recorder stops")
    rows_mib: int = Field(
        64, ge=1, le=4096, description="size at which a file of rows is closed and compressed, in MiB"
    )
    journal: str = Field(
        "",
        description="existing folder for exchanges that are not rows yet, which holds them as they were sent; it "
        "should be in memory. Empty: /dev/shm or XDG_RUNTIME_DIR, else beside the rows, which is said",
    )
    journal_mib: int = Field(
        1024, ge=1, description="most that the journal may hold while rows cannot be written, in MiB"
    )


RouteMode = Literal["teacher", "shadow", "canary", "fallback", "student"]


class RoleRoute(Section):
    """Who answers one role's requests; `journeyman route` changes it too, and the later of both counts."""

    mode: RouteMode = Field(
        "teacher",
        description="teacher; shadow: the student is asked too, and compared; canary: the student answers a share of "
        "the conversations; fallback: it answers all, and the teacher where it fails; student: it answers all",
    )
    share: float = Field(0.1, gt=0, lt=1, description="share of the conversations in a canary")


class RouteConfig(Section):
    """A student beside the teacher: `journeyman record` asks both, compares them, and moves roles by evidence."""

    folder: str = Field("routing", description="where its state goes, relative to the config file's folder")
    student: str = Field(
        "", description="base URL of `journeyman serve`, with or without /v1; empty: the teacher alone"
    )
    student_key_env: str = Field("", description="variable of the environment with a key of the student's port")
    roles: dict[str, RoleRoute] = Field(default_factory=dict, description="role → who answers it")
    first_s: float = Field(
        12.0, gt=0, description="seconds in which the student must begin a streamed answer; then the teacher"
    )
    whole_s: float = Field(
        60.0, gt=0, description="seconds in which an answer must be complete that is not streamed, or held"
    )
    hold: bool = Field(
        False,
        description="hold streamed answers of the student until they are complete and checked; else their beginning",
    )
    most_s: float | None = Field(
        None, gt=0, description="an answer that takes longer counts as failed, the teacher's too"
    )
    shadow_parallel: int = Field(1, ge=1, le=64, description="requests that the student gets at a time in shadow")
    shadow_waiting: int = Field(
        100, ge=1, le=10_000, description="how many more may wait, and 64 MiB in all; the rest is left out, and counted"
    )
    conversation_s: float = Field(
        600.0, gt=0, description="seconds without a request after which a conversation is over, and counts"
    )
    conversation_most_s: float = Field(
        3600.0, gt=0, description="so long after its beginning, a conversation counts as it is then"
    )
    margin: float = Field(
        0.05, gt=0, lt=1, description="the student may fail in so much more of a conversation than the teacher"
    )
    alpha: float = Field(0.05, gt=0, lt=0.5, description="probability of a wrong decision about a canary, at any time")
    least: int = Field(50, ge=1, description="conversations of the student before which a canary is not promoted")


class ModelPrice(Section):
    """What a teacher's model costs, in dollars for a million tokens."""

    prompt: float = Field(ge=0, description="tokens of prompts")
    answer: float = Field(ge=0, description="tokens of answers")


class AskAgainConfig(Section):
    """`journeyman ask-again`: the teacher that is asked anew for rows that were cut, failed or have no answer."""

    url: _Url = Field("", description="base URL of its OpenAI-compatible API, up to and including /v1; `--endpoint`")
    model: str = Field("", description="the model's name there; {role} is replaced by the row's role; `--model`")
    key_env: _Variable = Field("", description="environment variable with its key; empty: no key is sent")
    max_tokens: int | None = Field(
        None, ge=1, description="the most tokens that it accepts as the limit of an answer; unset: not known"
    )
    temperature: float = Field(0.0, ge=0, le=2, description="sampling temperature; 0 is greedy")
    parallel: int = Field(4, ge=1, le=64, description="requests that it gets at a time")
    prices: ModelPrice | None = Field(
        None, description="what it costs, in dollars for a million tokens; unset: the price is not known"
    )


class SearchConfig(Section):
    """`journeyman search`: which settings are tried, and how sure a recommendation must be."""

    budget: str = Field(
        "30m",
        pattern=DURATION,
        description="computing time, such as 90s, 30m or 1h30m; `--budget`",
    )
    seed: int = Field(0, ge=0, description="random seed of the candidates, and of the rows of early rungs")
    confidence: float = Field(
        0.9,
        gt=0.5,
        lt=1,
        description="confidence level of the intervals of all candidates' differences from the default together; one "
        "is recommended if its interval is above 0, so chance alone leads to another recipe in at most "
        "(1 - confidence) / 2 of all searches",
    )
    most: int = Field(32, ge=1, le=256, description="candidates besides the default, if the budget allows more")


AlertKind = Literal["rolled_back", "promoted", "not_recording", "fallback_share", "drift", "train_again"]


def _is_a_webhook(url: str) -> str:
    parts = urlsplit(url)
    if url and (parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None):
        raise ValueError("not a URL such as https://HOST/PATH, without a user name and password")
    return url


def _has_a_program(command: list[str]) -> list[str]:
    if command and not command[0].strip():
        raise ValueError("the first element must name a program")
    return command


MOST_HOURS = 10 * 365 * 24.0
"""Ten years, which no folder of rows reaches back; the times of some longer spans cannot be written."""


class MonitorConfig(Section):
    """`journeyman monitor`: what it shows of recorded traffic, and when it raises an alert."""

    folder: str = Field(
        "monitoring", description="where the state of alerts goes, relative to the config file's folder"
    )
    hours: float = Field(
        24.0, gt=0, le=MOST_HOURS, description="what is shown, back from now; `journeyman monitor --since`"
    )
    prices: dict[str, ModelPrice] = Field(
        default_factory=dict,
        description="model's name, with * and ? → its price; the first that matches counts. Without a price, nothing "
        "is said about costs",
    )
    teachers: dict[str, str] = Field(
        default_factory=dict,
        description="role → the model that would have answered; otherwise the one that answered most of its requests",
    )
    sample: int = Field(
        2000, ge=50, le=20_000, description="conversations of each role whose prompts are compared with the training's"
    )
    alpha: float = Field(0.01, gt=0, lt=0.5, description="probability that a look finds drift in a role that has none")
    fallback_share: float = Field(
        0.1, gt=0, lt=1, description="share of requests to the student that the teacher may answer in its place"
    )
    success: float | None = Field(
        None,
        gt=0,
        le=1,
        description="success that a student must have; unset: what its canary allowed, if there was one",
    )
    failed_rows: int = Field(
        200, ge=1, description="new answers of the teacher where the student failed that are worth another training"
    )
    alerts: list[AlertKind] = Field(
        ["rolled_back", "promoted", "not_recording", "fallback_share", "drift", "train_again"],
        description="what `journeyman monitor --alert` tells",
    )
    webhook: Annotated[str, AfterValidator(_is_a_webhook)] = Field(
        "", description="URL that gets each alert as JSON in a POST; it is never shown"
    )
    webhook_key_env: _Variable = Field("", description="environment variable with a bearer token for the webhook")
    command: Annotated[list[str], AfterValidator(_has_a_program)] = Field(
        default_factory=list, description="program and arguments, without a shell; gets each alert as JSON on stdin"
    )
    timeout_s: float = Field(10.0, gt=0, le=300, description="seconds that the webhook or the command may take")
    every_s: float = Field(60.0, ge=1, le=86_400, description="seconds between two looks with --watch")
    drift_every_s: float = Field(3600.0, ge=1, description="seconds between two looks for drift with --watch")


class ClusterConfig(Section):
    """The Ray cluster that does the work, in place of this machine alone. It changes no result."""

    address: str | None = Field(
        None,
        description="'auto' for the cluster that runs on this machine or that RAY_ADDRESS names (`--ray` is the same), "
        "HOST:PORT, or ray://HOST:PORT; unset: this machine alone. Needs `pip install 'journeyman[ray]'`; see "
        "docs/scale.md",
    )


class Config(Section):
    """The whole of journeyman.toml."""

    base: BaseConfig = BaseConfig()
    data: DataConfig = DataConfig()
    redact: RedactConfig = RedactConfig()
    curate: CurateConfig = CurateConfig()
    roles: dict[str, RoleConfig] = Field(default_factory=dict)
    train: TrainConfig = TrainConfig()
    plan: PlanConfig = PlanConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    decide: DecideConfig = DecideConfig()
    serve: ServeConfig = ServeConfig()
    record: RecordConfig = RecordConfig()
    route: RouteConfig = RouteConfig()
    monitor: MonitorConfig = MonitorConfig()
    ask_again: AskAgainConfig = AskAgainConfig()
    search: SearchConfig = SearchConfig()
    cluster: ClusterConfig = ClusterConfig()

    @field_validator("roles")
    @classmethod
    def _are_roles(cls, roles: dict[str, RoleConfig]) -> dict[str, RoleConfig]:
        return {_not_reserved(name): section for name, section in roles.items()}

    @model_validator(mode="after")
    def _can_merge(self) -> Config:
        asked = self.evaluate
        if asked.merged and self.train.adapters != "shared":
            raise ValueError("evaluate.merged needs one adapter for all roles: train.adapters = 'shared'")
        if asked.merged and asked.server is not None and not asked.quantizations:
            raise ValueError("evaluate.merged needs a GGUF file to merge into: set evaluate.quantizations")
        return self

    _warnings: tuple[str, ...] = PrivateAttr(())

    @property
    def warnings(self) -> tuple[str, ...]:
        """Old names in the config file, with the current ones."""
        return self._warnings

    def role(self, name: str) -> RoleConfig:
        """The role's settings; the defaults if the config file does not name it."""
        return self.roles.get(name, RoleConfig())


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Reads journeyman.toml.

    Args:
        path: the config file.
        overrides: "section.key=value" strings; the value is TOML, or a bare string.

    Raises:
        UsageError: the file is missing or not TOML, a key is unknown, or a value is out of range.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file", "Create one: journeyman init") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}", "Fix that line and run the command again") from error
    for override in overrides:
        _apply_override(data, override)
    return parse_config(data, str(path))


def config_in(folder: Path) -> Config:
    """The settings that apply in a folder; the defaults if it has no config file.

    Raises:
        UsageError: the config file is not valid.
    """
    path = folder / CONFIG_NAME
    return load_config(path) if path.is_file() else Config()


def parse_config(data: dict[str, Any], where: str) -> Config:
    """Validates a parsed config file, which errors call `where`."""
    data, warnings = current_config(data)
    train = data.get("train")
    if isinstance(train, dict):
        preset = PRESETS.get(str(train.get("preset", "default")), {})
        data = {**data, "train": _merge(preset, train)}
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise _as_usage_error(error, where) from error
    config._warnings = tuple(warnings)
    return config


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        merged[key] = _merge(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return merged


def _apply_override(data: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UsageError(f"--set {override!r} is not key=value", "Write --set train.epochs=2")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *sections, last = key.split(".")
    for section in sections:
        data = data.setdefault(section, {})
        if not isinstance(data, dict):
            raise UsageError(f"--set {key}: {section!r} is not a section", "Write --set train.epochs=2")
    data[last] = value


def _as_usage_error(error: ValidationError, where: str) -> UsageError:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    name = ".".join(place)
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(place[-1], _known_keys(place[:-1]), n=1)
        hint = (
            f"Did you mean {'.'.join([*place[:-1], near[0]])}?" if near else "See docs/reference.md for the valid keys"
        )
        return UsageError(f"{where}: unknown key {name}", hint)
    value = (
        ""
        if isinstance(first["input"], dict) or place[-1:] in ([key] for key in _NEVER_QUOTED)
        else f" = {first['input']!r}"
    )
    return UsageError(f"{where}: {name or 'config'}{value}: {first['msg']}", "Fix the value and run the command again")


def _known_keys(place: Sequence[str]) -> list[str]:
    """The keys of the section at `place`; none if its parts are names that the user chooses."""
    section: type[BaseModel] = Config
    parts = iter(place)
    for part in parts:
        annotation = section.model_fields[part].annotation
        if get_origin(annotation) in (dict, list):  # its next part is a name or a number
            annotation = get_args(annotation)[-1]
            if next(parts, None) is None:
                return []
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        section = annotation
    return list(section.model_fields)
