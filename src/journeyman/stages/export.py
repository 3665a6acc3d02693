"""export: builds the bundle to deploy. Without a deploy verdict it refuses, unless the user overrides it on record."""

from __future__ import annotations

from pathlib import Path

from journeyman.artifacts import ADAPTER_FILE, clone_or_copy, write_atomic, write_json
from journeyman.bundling.bill import write_bill
from journeyman.bundling.card import adapter_lines, context_lines, how_to_serve, model_card, modelfile_lines
from journeyman.bundling.modelfiles import write_modelfiles
from journeyman.bundling.results import Results
from journeyman.bundling.scripts import LLAMA_SCRIPT, llama_script, write_program
from journeyman.config import EvaluateConfig, RedactConfig
from journeyman.errors import InputChanged, NotDeployable
from journeyman.foreign import file_part
from journeyman.inference.model_server import ServedFolder
from journeyman.inference.server_bundle import copy_adapter, write_script
from journeyman.manifests import BundleManifest, ServedFile
from journeyman.model_files import copy_model, hash_of_model
from journeyman.models.license import license_of
from journeyman.models.opening import geometry_of_file
from journeyman.records import EVERY_ROLE
from journeyman.rendering.settling import Settled

BASE_FILE, TEMPLATE_FILE = "base.gguf", "chat_template.jinja"


def export(
    results: Results,
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
    dataset, adapter, evaluation, decision = results.dataset, results.adapter, results.evaluation, results.decision
    roles = decision.deployed_roles
    if override is not None:
        roles = [role for role in decision.roles if role != EVERY_ROLE]
    if not roles:
        raise NotDeployable(
            f"the verdict is {decision.verdict!r}, and no role can be deployed",
            'See 06-decision/decision.md; to export anyway: journeyman export --override "reason"',
        )
    file = results.file
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
        redact={**redact.model_dump(), "system_apart": True},
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
        verdicts={role: decision.roles[role].verdict for role in roles},
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
        write_program(llama_script(bundle), out / LLAMA_SCRIPT)
        context = context_lines(geometry_of_file(base), config.context)
        notes = [*context, *adapter_lines(bundle), *modelfile_lines(bundle, without)]
    license = license_of(base)
    write_bill(results, bundle, license, out)
    card = model_card(bundle, results, license, how_to_serve(bundle), notes)
    write_atomic(out / "README.md", card.encode())
    return bundle


def _copied(base: Path, file: ServedFile, out: Path) -> str:
    name = copy_model(base, out / BASE_FILE).name
    if hash_of_model(out / name) != file.sha256:
        raise InputChanged(f"{base}: changed while it was being copied to the bundle", "Run it again")
    return name
