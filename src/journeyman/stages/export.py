"""export: builds the bundle to deploy. Without a deploy verdict it refuses, unless the user overrides it on record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from journeyman.artifacts import ADAPTER_FILE, clone_or_copy, write_atomic, write_json
from journeyman.config import EvaluateConfig, RedactConfig
from journeyman.errors import InputChanged, NotDeployable
from journeyman.foreign import file_part, markdown, named, shell_word
from journeyman.inference.model_server import ServedFolder
from journeyman.inference.server_bundle import HOW_TO_SERVE, card_line, copy_adapter, write_script
from journeyman.manifests import (
    AdapterManifest,
    BundleManifest,
    DatasetManifest,
    DecisionManifest,
    EvaluationManifest,
    PlanManifest,
    ServedFile,
)
from journeyman.model_files import copy_model, hash_of_model, name_of_model
from journeyman.models.geometry import Geometry
from journeyman.models.opening import geometry_of_file
from journeyman.records import EVERY_ROLE
from journeyman.rendering.settling import Settled
from journeyman.stages.modelfiles import write_modelfiles

BASE_FILE, TEMPLATE_FILE = "base.gguf", "chat_template.jinja"
_BY_THE_ENGINE = (
    "Serve it: `journeyman serve` in the run's folder, `sh llama-server.sh`, or for Ollama "
    "`ollama create NAME -f Modelfile.ROLE`."
)


def export(
    plan: PlanManifest,
    dataset: DatasetManifest,
    adapter: AdapterManifest,
    evaluation: EvaluationManifest,
    decision: DecisionManifest,
    base: Path,
    template: Settled,
    adapter_folder: Path,
    config: EvaluateConfig,
    redact: RedactConfig,
    override: str | None,
    out: Path,
    server: ServedFolder | None = None,
) -> BundleManifest:
    """Builds the bundle.

    Args:
        base: the base's file that ships, as it was evaluated; the first one if the base is split. The bundle
            contains a copy, never a link, so that changes to the bundle cannot affect it. The folder that a server
            serves is not copied.
        template: the chat template that was trained and evaluated.
        redact: what was replaced in the training data; serving replaces the same.
        override: why it is exported despite the verdict; the bundle then has all roles, and records the reason.
        server: the server that the config file names.

    Raises:
        InputChanged: the base changed while it was being copied.
        DiskError: the disk is full.
        NotDeployable: no role has the verdict "deploy", and there is no override.
    """
    roles = decision.deployed_roles
    if override is not None:
        roles = [role for role in decision.roles if role != EVERY_ROLE]
    if not roles:
        raise NotDeployable(
            f"the verdict is {decision.verdict!r}, and no role can be deployed",
            'See 06-decision/decision.md; to export anyway: journeyman export --override "reason"',
        )
    file = evaluation.files[decision.ships]
    prompts = {role: dataset.system_prompts[role] for role in roles if role in dataset.system_prompts}
    names = [name for name in adapter.adapters if name == EVERY_ROLE or name in roles]
    on_server = file.server is not None
    base_file = "" if on_server else _copied(base, file, out)
    bundle = BundleManifest(
        roles=roles,
        override=override,
        base_sha256=file.sha256,
        base_path=file.path,
        adapter_sha256={
            name: file.server.adapter_sha256[name] if file.server is not None else evaluation.adapter_sha256[name]
            for name in names
        },
        adapter_files={
            name: ("adapter" if name == EVERY_ROLE else f"adapter-{file_part(name)}") + ("" if on_server else ".gguf")
            for name in names
        },
        base_file=base_file,
        server=file.server,
        system_prompts=prompts,
        prompts={role: dataset.prompts[role] for role in roles if role in dataset.prompts},
        redact=redact.model_dump(),
        settings={
            "context": config.context,
            "max_new_tokens": config.max_new_tokens,
            "temperature": config.temperature,
            "threads": config.threads,
            "parallel": config.parallel,
        },
        engine=evaluation.engine,
        chat_template=template.name,
        template_file=None if template.own else TEMPLATE_FILE,
        template_variables=dict(template.variables),
    )
    for name, copied in bundle.adapter_files.items():
        folder = adapter_folder / adapter.adapters[name].folder
        copy_adapter(folder, out / copied) if on_server else clone_or_copy(folder / ADAPTER_FILE, out / copied)
    write_json(out / "prompts.json", prompts)
    if bundle.template_file is not None:
        write_atomic(out / bundle.template_file, template.source.encode())
    write_json(out / "base.json", {"sha256": file.sha256, "source": file.path, "chat_template": template.source})
    notes: list[str] = []
    if file.server is not None:
        assert server is not None, "without the server that was evaluated, the evaluation would be stale"
        write_script(bundle, server, file.server, out)
    else:
        without = write_modelfiles(bundle, template, out)
        write_atomic(out / "llama-server.sh", _command_line(bundle).encode())
        (out / "llama-server.sh").chmod(0o755)
        notes = [*_context_lines(geometry_of_file(base), config.context), *_modelfile_lines(bundle, without)]
    write_atomic(out / "README.md", _model_card(bundle, plan, adapter, evaluation, decision, notes).encode())
    return bundle


def _copied(base: Path, file: ServedFile, out: Path) -> str:
    name = copy_model(base, out / BASE_FILE).name
    if hash_of_model(out / name) != file.sha256:
        raise InputChanged(f"{base}: changed while it was being copied to the bundle", "Run it again")
    return name


def _command_line(bundle: BundleManifest) -> str:
    loras = " ".join(f"--lora {shell_word(file)}" for file in bundle.adapter_files.values())
    several, hint, parallel = "", "", bundle.settings["parallel"]
    if EVERY_ROLE not in bundle.adapter_files:
        several = "--lora-init-without-apply "
        numbers = ", ".join(f"{number} is {named(name)}" for number, name in enumerate(bundle.adapter_files))
        hint = f'# Each request names its role\'s adapter, as "lora": [{{"id": N, "scale": 1.0}}]: {numbers}.\n'
    return (
        "#!/bin/sh\n# Serves the tuned model with llama.cpp's server; send the system prompts in prompts.json.\n"
        f'{hint}cd "$(dirname "$0")" || exit 1\n'
        f"exec llama-server --model {bundle.base_file} {loras} {several}"
        f"--parallel {parallel} --ctx-size {bundle.settings['context'] * parallel} {_template_flags(bundle)}"
        '--jinja --host 127.0.0.1 --port 8080 "$@"\n'
    )


def _template_flags(bundle: BundleManifest) -> str:
    flags = "" if bundle.template_file is None else f"--chat-template-file {bundle.template_file} "
    if bundle.template_variables:
        flags += f"--chat-template-kwargs {shell_word(json.dumps(bundle.template_variables))} "
    return flags


def _stay(bundle: BundleManifest, decision: DecisionManifest) -> str:
    others = [
        f"{_name(role)} ({made.verdict})"
        for role, made in decision.roles.items()
        if role not in (EVERY_ROLE, *bundle.roles)
    ]
    return f"Roles that stay with the teacher: {', '.join(others)}." if others else "No role stays with the teacher."


def _name(role: str) -> str:
    return markdown(named(role))


def _file_name(path: str) -> str:
    return markdown(name_of_model(Path(path)))


def _adapter_line(name: str, adapter: AdapterManifest, bundle: BundleManifest) -> str:
    one = adapter.adapters[name]
    return (
        f"- {'adapter' if name == EVERY_ROLE else f'adapter of {_name(name)}'}: `{bundle.adapter_files[name]}`, LoRA, "
        f"{adapter.trainable_parameters:,} parameters, SHA-256 `{bundle.adapter_sha256[name]}`; trained for "
        f"{one.steps} steps on {one.tokens:,} tokens, best step {one.best_step}"
    )


def _template_line(bundle: BundleManifest) -> list[str]:
    """The chat template, if programs must be told to use another one than the base's own, or to give it variables."""
    if bundle.template_file is None and not bundle.template_variables:
        return []
    name = markdown(bundle.chat_template) or "the base's own"
    file = "" if bundle.template_file is None else f", as `{bundle.template_file}` writes it"
    given = f"; its variables: {markdown(json.dumps(bundle.template_variables))}" if bundle.template_variables else ""
    return [f"- chat template: {name}{file}{given}"]


def _modelfile_lines(bundle: BundleManifest, without: Mapping[str, str]) -> list[str]:
    """Exceptions to mention: roles that have another name in file names, and roles that Ollama cannot serve."""
    other = [role for role in bundle.roles if file_part(role) != role]
    return [
        *(f"- {_name(role)} is `{file_part(role)}` in file names" for role in other),
        *(f"- {_name(role)} has no Modelfile: {why}" for role, why in without.items()),
    ]


def _context_lines(geometry: Geometry | None, context: int) -> list[str]:
    """What another context would change."""
    factors = None if geometry is None else geometry.factors(context)
    if geometry is None or factors is None:
        return []
    original = geometry.rotary.long_above
    side = "at most" if factors == "short" else "more than"
    return [
        f"- llama.cpp must give a request a context of {side} {original} tokens: with another, it uses the other of "
        "the base's two sets of rotary factors, with which nothing was trained or evaluated"
    ]


def _model_card(
    bundle: BundleManifest,
    plan: PlanManifest,
    adapter: AdapterManifest,
    evaluation: EvaluationManifest,
    decision: DecisionManifest,
    notes: Sequence[str],
) -> str:
    rows, engine = [], markdown(evaluation.engine.line())
    for role, summary in evaluation.roles.items():
        rates = [
            f"{arm.success.passed} of {arm.success.n} ({arm.success.low:.0%} to {arm.success.high:.0%})"
            if arm.success
            else "not known"
            for arm in (summary.base, summary.arms[decision.ships])
        ]
        rows.append(f"| {_name(role)} | {rates[0]} | {rates[1]} | {decision.roles[role].verdict} |")
    override = [f"**Exported despite the verdict.** Reason: {markdown(bundle.override)}", ""] if bundle.override else []
    return "\n".join(
        [
            "---",
            f"library_name: {'gguf' if bundle.server is None else 'peft'}",
            "tags: [lora, journeyman]",
            "---",
            "# Model card",
            "",
            *override,
            f"Roles: {', '.join(map(_name, bundle.roles))}. {_stay(bundle, decision)}",
            "",
            f"- base: {_file_name(bundle.base_path)}, SHA-256 `{bundle.base_sha256}`; its license applies",
            *([card_line(bundle.server)] if bundle.server is not None else []),
            *(
                [f"- the adapter was trained on {_file_name(plan.base_path)}, SHA-256 `{plan.base_sha256}`"]
                if bundle.base_sha256 != plan.base_sha256
                else []
            ),
            *_template_line(bundle),
            *(_adapter_line(name, adapter, bundle) for name in bundle.adapter_files),
            f"- these files were evaluated on {evaluation.rows} held-out test rows with {engine}",
            "",
            "| role | base | tuned | verdict |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            _BY_THE_ENGINE if bundle.server is None else HOW_TO_SERVE,
            "",
            *([*notes, ""] if notes else []),
        ]
    )
