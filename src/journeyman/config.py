"""journeyman.toml, typed. The defaults, the units and the documentation of every key live on its field.

Strict at the door: an unknown key, a wrong type or a value out of range is a UsageError that names the
key, the value and the nearest valid key.
"""

from __future__ import annotations

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

from journeyman.errors import UsageError
from journeyman.records import ARMS, EVERY_ROLE
from journeyman.renamed import current_config
from journeyman.ruleset import RULESET, Action

CONFIG_NAME = "journeyman.toml"
EMBEDDED = "embedded"


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _no_marker(role: str) -> str:
    if role == EVERY_ROLE:
        raise ValueError(f"no role may be called {EVERY_ROLE!r}, which means every role: name another")
    return role


RoleName = Annotated[str, AfterValidator(_no_marker)]


class BaseConfig(Section):
    """The model that is tuned and served."""

    model: str = Field(EMBEDDED, description="a .gguf file, or 'embedded' for SmolLM2-135M-Instruct Q4_1")


class DataConfig(Section):
    """Where the logged interactions are."""

    sources: list[str] = Field(
        ["interactions.jsonl"], description="files, folders or globs beside the toml; - is stdin"
    )
    format: str = Field("auto", description="auto detects it row by row: see `journeyman doctor` for the names")
    encoding: str = Field(
        "auto",
        description="of text files: auto is UTF-8, or UTF-16 and UTF-32 by their marks; else a name such as cp1252",
    )
    role_field: str = Field("", description="dotted path of the field that names the agent's role, if none is found")
    default_role: str = Field("agent", min_length=1, description="the role of rows that name none")

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, name: str) -> str:
        if name != "auto":
            try:
                "x".encode(name)  # codecs that turn bytes into bytes are none of texts
            except (LookupError, TypeError, UnicodeError) as error:
                raise ValueError(f"no encoding is called {name!r}") from error
        return name

    success_field: str = Field("", description="dotted path of the field that says whether a call succeeded")
    success_at_least: float | None = Field(
        None, description="where that field is a reward or a score: what counts as a success"
    )

    @model_validator(mode="after")
    def _threshold_of_a_field(self) -> DataConfig:
        if self.success_at_least is not None and not self.success_field:
            raise ValueError("success_at_least is the threshold of success_field: set that too")
        return self

    cut_tool_results: int = Field(
        0, ge=0, description="characters of a tool's result that stay: of longer ones the middle is cut; 0: all stays"
    )
    max_history: int = Field(
        100_000,
        ge=1_000,
        description="characters before an answer in a session or trajectory, whose answers all repeat what went "
        "before; answers with more are rejected",
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="for tables and JSON: our field → the column's name, or a dotted path"
    )

    @field_validator("default_role")
    @classmethod
    def _is_a_role(cls, name: str) -> str:
        return _no_marker(name)


class RedactConfig(Section):
    """What is replaced by placeholders before anything is stored, and again at serve time."""

    secrets: bool = Field(True, description="API keys, tokens, private keys, passwords")
    personal: bool = Field(True, description="e-mail, phone, card, IBAN and public IP addresses")


class RuleActions(Section):
    """What happens to the rows that a rule finds. `note` only counts and lists them. The keys come from ruleset.py."""

    def action(self, rule: str) -> Action:
        """What is done with the rows that a rule finds: by its key, or always the same where it has none.

        Raises:
            KeyError: no rule is called so.
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
    """Keeps or weighs a role's rows by what happened later in the same session."""

    role: RoleName = Field(description="the role whose rows are judged")
    needs: list[CreditNeed] = Field(min_length=1, description="all must follow in the session")
    otherwise: float = Field(0.0, ge=0, le=1, description="weight of the rows where they do not; 0 drops them")


class CurateConfig(Section):
    """What becomes training and test data."""

    max_length: int = Field(2048, ge=16, description="tokens of prompt and answer; see rules.too_long")
    drop_providers: list[str] = Field(["mock", "test"], description="answers of these providers are not learned")
    teachers: list[str] = Field(
        default_factory=list, description="learn from these only, as provider or provider/model; empty: from all"
    )
    near_duplicate: float = Field(0.7, gt=0, le=1, description="Jaccard similarity of task trigrams, from 0 to 1")
    group_by: str = Field("", description="dotted path of a field in a row's extra; equal values share a split")
    val_share: float = Field(0.1, ge=0, lt=1, description="share of the rows for validation")
    test_share: float = Field(0.1, ge=0, lt=1, description="share of the rows sealed for evaluation")
    split_by_time: bool = Field(False, description="the newest groups are sealed, instead of random ones")
    seed: int = Field(0, ge=0, description="of the split")
    rules: RulesConfig = RulesConfig()
    credit: list[CreditConfig] = Field(default_factory=list, description="outcome credit, as [[curate.credit]]")

    @model_validator(mode="after")
    def _shares_leave_training_rows(self) -> CurateConfig:
        if self.val_share + self.test_share >= 1:
            raise ValueError(f"val_share {self.val_share} and test_share {self.test_share} leave nothing to train on")
        return self


class RoleConfig(Section):
    """One agent role."""

    system_prompt: str | None = Field(None, description="trained and served in place of the logged one")
    checks: list[str] = Field(
        ["answered"],
        min_length=1,
        description="all must pass: see `journeyman doctor`; or your own as file.py:function",
    )
    weights: dict[str, float] = Field(default_factory=dict, description="check → weight, in place of checks")
    pass_at: float = Field(1.0, gt=0, le=1, description="with weights: the share of the weight that must pass")

    @field_validator("weights")
    @classmethod
    def _weights_are_positive(cls, weights: dict[str, float]) -> dict[str, float]:
        if any(weight <= 0 for weight in weights.values()):
            raise ValueError("every weight must be above 0")
        return weights


class LoraConfig(Section):
    """Which layers get a low-rank update, and how large."""

    rank: int = Field(16, ge=1, le=512, description="r, the inner dimension of the update")
    alpha: float = Field(32, gt=0, description="the update is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="on the input of A, in training only")
    targets: list[Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]] = Field(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        min_length=1,
        description="the linear layers that are adapted, in every block",
    )


class TrainConfig(Section):
    """The training recipe."""

    adapters: Literal["shared", "per-role"] = Field("shared", description="one adapter for all roles, or one for each")
    preset: Literal["default", "attention-r8"] = Field("default", description="where unset keys take their values from")
    lora: LoraConfig = LoraConfig()
    epochs: int = Field(3, ge=1, description="passes over the training rows")
    batch_size: int = Field(8, ge=1, description="rows of a batch")
    gradient_accumulation: int = Field(1, ge=1, description="batches of one optimizer step")
    learning_rate: float = Field(5e-4, gt=0, description="peak; small bases take more (the demo: 1e-3)")
    warmup_steps: int = Field(5, ge=0, description="optimizer steps from 0 to the peak")
    schedule: Literal["cosine", "linear"] = Field("cosine", description="from the peak down to zero")
    weight_decay: float = Field(0.0, ge=0, description="of AdamW, decoupled")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    patience: int = Field(2, ge=1, description="validations without gain before the run ends early")
    min_gain: float = Field(0.0, ge=0, description="nats by which the validation loss must fall to count as gain")
    pack_tokens: int | None = Field(
        None, ge=16, description="tokens computed at a time; unset: 2048, or up to 8192 where prompts are long"
    )
    checkpoint_s: float = Field(60, gt=0, description="seconds between checkpoints")
    checkpoint_steps: int = Field(100, ge=1, description="optimizer steps between checkpoints, if they come sooner")
    memory: Literal["auto", "keep", "recompute", "stream"] = Field(
        "auto",
        description="keep activations; or recompute them; or also stream the weights from the file, a layer at a time. "
        "auto: the first that fits",
    )
    max_memory_gb: float | None = Field(
        None, gt=0, description="what training may take, 10^9 bytes; unset: 90 % of what is free"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 where it is fast")
    threads: int | None = Field(None, ge=1, description="processor threads; unset: all physical cores")
    seed: int = Field(0, ge=0, description="of the adapter's start, the order and the dropout")

    @property
    def rows_per_step(self) -> int:
        return self.batch_size * self.gradient_accumulation


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
            "it holds a user's name, a password or a query, and a URL is shown in reports; put the key into an "
            "environment variable and name that in key_env"
        )
    return url


def _names_a_variable(name: str) -> str:
    """A key written here by mistake would stand in every manifest."""
    mixed = any(sign.islower() for sign in name) and any(sign.isdigit() for sign in name) and len(name) >= 16
    solid = len(name) >= 20 and "_" not in name
    if name and (not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or mixed or solid):
        raise ValueError(
            "not the name of an environment variable, and it may be a key; put the key into a variable (export NAME=…) "
            "and write its NAME here"
        )
    return name


_Url = Annotated[str, AfterValidator(_without_credentials)]
_Variable = Annotated[str, AfterValidator(_names_a_variable)]
_NEVER_QUOTED = ("url", "key_env")


class EndpointConfig(Section):
    """An OpenAI-compatible endpoint that is asked the sealed rows, as an arm of its own."""

    url: _Url = Field(min_length=1, description="up to and including /v1")
    model: str = Field(min_length=1, description="the model's name there; {role} stands for the row's role")
    key_env: _Variable = Field("", description="the environment variable that holds its key; empty: no key is sent")
    roles: list[RoleName] = Field(
        default_factory=list, description="only rows of these roles are asked there; empty: all"
    )


class JudgeConfig(Section):
    """The model that the check `judge` asks."""

    url: _Url = Field(
        "", description="an OpenAI-compatible endpoint, up to and including /v1; needed by the check judge"
    )
    model: str = Field("", description="the judge's name there")
    key_env: _Variable = Field("JOURNEYMAN_JUDGE_KEY", description="the environment variable that holds its key")


class EvaluateConfig(Section):
    """How the sealed rows are asked. The tuned role is served with the same values."""

    max_new_tokens: int = Field(512, ge=1, description="the answer's limit, in tokens")
    temperature: float = Field(0.0, ge=0, le=2, description="0 is greedy")
    threads: int | None = Field(None, ge=1, description="processor threads; unset: all physical cores")
    context: int = Field(4096, ge=128, description="tokens of prompt and answer that the engine holds for a request")
    parallel: int = Field(
        4, ge=1, le=64, description="requests that the engine answers at a time, here and when serving"
    )
    timed_rows: int = Field(
        10, ge=1, description="rows of each role that are asked once more, one at a time, to judge the latency"
    )
    few_shot: int = Field(2, ge=0, description="training rows that the few-shot arm shows the base; 0: no such arm")
    quantizations: list[str] = Field(
        default_factory=list,
        description="other .gguf files of the same base: the adapter is evaluated on each, and one may ship",
    )
    regression_suite: bool = Field(True, description="run the regression suite: what did tuning cost")
    endpoints: dict[str, EndpointConfig] = Field(
        default_factory=dict,
        description="name → a further arm; one named teacher is asked in place of what the logs hold",
    )
    judge: JudgeConfig = JudgeConfig()
    check_timeout_s: float = Field(
        60.0, gt=0, le=3600, description="seconds that a check of your own may take for one answer; then it is unscored"
    )
    unsafe_exec: bool = Field(False, description="run model-written code even where no sandbox can be had")

    @field_validator("endpoints")
    @classmethod
    def _names_are_free(cls, endpoints: dict[str, EndpointConfig]) -> dict[str, EndpointConfig]:
        taken = sorted(name for name in endpoints if name in ARMS[1:] or "@" in name)
        if taken:
            raise ValueError(f"{taken[0]!r} is the name of another arm")
        return endpoints


class DecideConfig(Section):
    """The rules. They are fixed in the plan before any result is seen."""

    max_mean_latency_s: float = Field(12.0, gt=0, description="the mean answer must be faster")
    min_success: float = Field(0.98, gt=0, le=1, description="the whole interval must reach it, from 0 to 1")
    max_memory_gb: float = Field(10.0, gt=0, description="peak of the serving process, 10^9 bytes")
    stretch_mean_latency_s: float = Field(10.0, gt=0, description="reported where it is met too")
    stretch_success: float = Field(0.99, gt=0, le=1, description="reported where it is met too")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of all roles' intervals together")
    margin: float | None = Field(
        None, ge=0, lt=1, description="a role's success may lie so much below the teacher's; unset: not asked"
    )
    regression_margin: float = Field(
        0.1,
        ge=0,
        le=1,
        description="how much of the regression suite tuning may cost; a larger, significant loss blocks a deployment",
    )


class ServeConfig(Section):
    """The OpenAI-compatible port."""

    host: str = Field("127.0.0.1", description="a loopback address")
    port: int = Field(8011, ge=0, le=65535, description="0 takes a free one")
    allow_hosts: list[str] = Field(
        default_factory=list, description="names in Host that are answered beside loopback's, as behind a proxy"
    )
    key_env: str = Field("", description="environment variable with the key that clients must send; empty: none")


class Config(Section):
    """The whole of journeyman.toml."""

    base: BaseConfig = BaseConfig()
    data: DataConfig = DataConfig()
    redact: RedactConfig = RedactConfig()
    curate: CurateConfig = CurateConfig()
    roles: dict[str, RoleConfig] = Field(default_factory=dict)
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    decide: DecideConfig = DecideConfig()
    serve: ServeConfig = ServeConfig()

    @field_validator("roles")
    @classmethod
    def _are_roles(cls, roles: dict[str, RoleConfig]) -> dict[str, RoleConfig]:
        return {_no_marker(name): section for name, section in roles.items()}

    _warnings: tuple[str, ...] = PrivateAttr(())

    @property
    def warnings(self) -> tuple[str, ...]:
        """Old names in the config file, and what they are called now."""
        return self._warnings

    def role(self, name: str) -> RoleConfig:
        """The role's settings; the defaults where the toml does not name it."""
        return self.roles.get(name, RoleConfig())


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Reads journeyman.toml.

    Args:
        path: the toml file.
        overrides: "section.key=value" strings; the value is TOML, or a bare string.

    Raises:
        UsageError: no such file, not TOML, an unknown key, or a value out of range.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file", "Make one: journeyman init") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}", "Mend that line and run the command again") from error
    for override in overrides:
        _apply_override(data, override)
    return parse_config(data, str(path))


def parse_config(data: dict[str, Any], where: str) -> Config:
    """Validates a parsed toml; `where` names it in errors."""
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
            raise UsageError(f"--set {key}: {section!r} is no section", "Write --set train.epochs=2")
    data[last] = value


def _as_usage_error(error: ValidationError, where: str) -> UsageError:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    name = ".".join(place)
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(place[-1], _known_keys(place[:-1]), n=1)
        hint = f"Did you mean {'.'.join([*place[:-1], near[0]])}?" if near else "See the reference for the valid keys"
        return UsageError(f"{where}: unknown key {name}", hint)
    value = (
        ""
        if isinstance(first["input"], dict) or place[-1:] in ([key] for key in _NEVER_QUOTED)
        else f" = {first['input']!r}"
    )
    return UsageError(f"{where}: {name or 'config'}{value}: {first['msg']}", "Mend the value and run the command again")


def _known_keys(place: Sequence[str]) -> list[str]:
    """The keys of the section at `place`; none where the parts are names that a person chooses."""
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
