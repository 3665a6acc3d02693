"""What each stage's fingerprint covers besides the results that it reads: settings, and files from outside the run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from journeyman.artifacts import MANIFEST, hash_of, hash_of_file
from journeyman.config import Config, TeacherTermsConfig, TrainConfig
from journeyman.manifests import PlanManifest, as_set
from journeyman.model_files import hash_of_model
from journeyman.older_runs import SHARE
from journeyman.retention import shipped_prompts
from journeyman.runs import SOURCE, Run, read_result

Settings = Mapping[str, Any]
"""Name of a setting or file → its value or hash, so that a difference can be reported by name."""

PLAN_OF_TRAINING = (
    "base_sha256",
    "trainable_parameters",
    "device",
    "precision",
    "memory",
    "pack_tokens",
    "group_tokens",
)
"""What training takes from the plan."""

_SAFE_TO_CHANGE = {"checkpoint_s", "checkpoint_steps", "gpus"}
"""Keys of [train] that do not change its result: a run may resume with other values."""


def setting_of(config: Config, key: str) -> str:
    """The value of a key, section.key, as --set takes it."""
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return as_set(value)


def settings_of_plan(run: Run) -> list[str]:
    """What --fit changed for the plan that is there and the config of the run does not have, as --set takes it."""
    if not (run.folder("plan") / MANIFEST).is_file():
        return []
    fitted = run.result("plan", PlanManifest).fitted
    return [one.override() for one in fitted if setting_of(run.config, one.key) != one.value]


def of_ingest(run: Run) -> Settings:
    data = {key: value for key, value in run.config.data.model_dump().items() if key != "sources"}
    return {
        **{f"{SOURCE}{name}": hash_of_file(path) if path.is_file() else "missing" for name, path in run.sources},
        **_flat("data", data),
        **_flat("redact", run.config.redact.model_dump()),
    }


def of_curate(run: Run) -> Settings:
    return {
        "base": run.base_sha256,
        **_template(run),
        **_curate(run),
        **_role_settings(run, "system_prompt"),
        **_checks_of_data(run),
    }


def of_plan(run: Run) -> Settings:
    return {
        "base": run.base_sha256,
        **_recipe(run),
        **_flat("decide", run.config.decide.model_dump()),
        **of_judging(run),
        **_files_that_may_ship(run),
        **_merged(run),
        **_rotary_factors(run),
        **_server(run),
        **_planned(run),
    }


def of_train(run: Run) -> Settings:
    return {"base": run.base_sha256, **_recipe(run), **_rotary_factors(run)}


def of_trials(run: Run) -> Settings:
    """What trials depend on besides their own settings and rows, the plan's rules, and [evaluate] with its engine."""
    return {
        "base": run.base_sha256,
        **_general_prompts(run),
        **_template(run),
        **_own_checks(run),
        **_files_that_may_ship(run),
        **_rotary_factors(run),
    }


def of_judging(run: Run) -> Settings:
    """Which answers pass, whoever gave them."""
    return {**_role_settings(run, "checks", "weights", "pass_at"), **_own_checks(run)}


def of_evaluate(run: Run) -> Settings:
    return {"base": run.base_sha256, **_evaluate(run), **_engine(run)}


def of_decide(run: Run) -> Settings:
    return {}


def of_export(run: Run) -> Settings:
    return {
        "override": run.override,
        **_evaluate(run),
        **_flat("redact", run.config.redact.model_dump()),
    }


def _curate(run: Run) -> Settings:
    """[curate], without teacher terms if there are none: earlier versions had no such section."""
    settings = run.config.curate
    without = {"teacher_terms"} if settings.teacher_terms == TeacherTermsConfig() else set()
    return _flat("curate", settings.model_dump(exclude=without))


def _recipe(run: Run) -> Settings:
    """[train]. That no general rows are trained is recorded too, which tells such a run from older ones."""
    return {SHARE: 0.0, **_train(run)}


def _train(run: Run) -> Settings:
    """[train], without keys that earlier versions did not have, if they have their defaults."""
    train = run.config.train
    unset = {
        name
        for name in ("device", "deterministic", "rows")
        if getattr(train, name) == TrainConfig.model_fields[name].default
    }
    if not _trains_general_rows(run):
        unset.add("retention")  # what is not trained changes nothing
    values = train.model_dump(exclude=_SAFE_TO_CHANGE | unset)
    if "device" in values:
        values["device"] = train.device.partition(":")[0]  # another GPU of the machine makes nothing stale
    return {**_flat("train", values), **_general_prompts(run)}


def _trains_general_rows(run: Run) -> bool:
    """Whether there is a share of them, and a file with which the engine can answer: see general_rows."""
    return bool(run.config.train.retention.share and run.served)


def _general_prompts(run: Run) -> Settings:
    """The hash of the prompts that are trained beside the rows, if any are."""
    if not _trains_general_rows(run):
        return {}
    retention = run.config.train.retention
    own = run.root / retention.prompts if retention.prompts else None
    shipped = hashlib.sha256(shipped_prompts().encode()).hexdigest()
    return {"general prompts": shipped if own is None else hash_of_file(own) if own.is_file() else "missing"}


def _evaluate(run: Run) -> Settings:
    """[evaluate], without a server or merged files if there are none: earlier versions had no such keys.

    The path of a llama-server is not part of it: what it is decides (see _engine)."""
    settings = run.config.evaluate
    without = {"llama_server"} | ({"server"} if settings.server is None else set())
    return _flat("evaluate", settings.model_dump(exclude=without | (set() if settings.merged else {"merged"})))


def _planned(run: Run) -> Settings:
    """[plan], if anything is set there: earlier versions had no such section."""
    plan = run.config.plan
    return {**({"plan.allow": plan.allow} if plan.allow else {}), **_flat("plan.expect", plan.expect.stated())}


def _merged(run: Run) -> Settings:
    merged = run.config.evaluate.merged
    return {"evaluate.merged": merged} if merged else {}


def _server(run: Run) -> Settings:
    server = run.config.evaluate.server
    return {} if server is None else {"server": server.url}


def _template(run: Run) -> Settings:
    """The chosen chat template; nothing for the base's own, which the base's hash covers."""
    choice = run.base.tokenizer.choice
    if choice is None:
        return {}
    chosen = {
        "base.chat_template": choice.source and hash_of(choice.source),
        "base.template_options": dict(choice.options),
        "base.template_date": choice.date and choice.date.isoformat(),
    }
    return {key: value for key, value in chosen.items() if value}


def _engine(run: Run) -> Settings:
    """The serving engine: the installed one, or the recorded one if a different engine is allowed; none if only a
    server may ship."""
    from journeyman.inference.engines import ENGINE, engine_inputs

    if not run.served:
        return {}
    if run.allow_other_engine and (run.folder("evaluate") / MANIFEST).is_file():
        recorded = read_result(run.root, "evaluate")[0].inputs
        return {key: value for key, value in recorded.items() if key.startswith(ENGINE)}
    return engine_inputs(run.config.evaluate, run.root)


def _role_settings(run: Run, *names: str) -> Settings:
    return {
        f"roles.{role}.{name}": getattr(section, name)
        for role, section in sorted(run.config.roles.items())
        for name in names
    }


def _files_that_may_ship(run: Run) -> Settings:
    others = run.served[1:] if run.served[:1] == [run.base.path] else run.served
    return {f"quantization {path.name}": hash_of_model(path) for path in others}


def _rotary_factors(run: Run) -> Settings:
    """Of a base with two sets: training uses those with which the engine serves evaluate.context."""
    return {} if run.factors is None else {"rotary factors for evaluate.context": run.factors}


def _checks_of_data(run: Run) -> Settings:
    """The checks that need data from a role's rows, and so decide which rows can be tested."""
    from journeyman.scoring.row_data import looks_at_data

    named = {role: looks_at_data((*one.checks, *one.weights)) for role, one in sorted(run.config.roles.items())}
    return {f"roles.{role} checks of rows' data": names for role, names in named.items() if names}


def _own_checks(run: Run) -> Settings:
    """The hashes of the files with the user's own checks."""
    from journeyman.scoring.checks import own_files

    names = {name for section in run.config.roles.values() for name in (*section.checks, *section.weights)}
    return {f"check {file}": hash_of_file(run.root / file) for file in own_files(names)}


def _flat(prefix: str, value: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(f"{prefix}.{key}", inner) if isinstance(inner, dict) else {f"{prefix}.{key}": inner}
    return flat
