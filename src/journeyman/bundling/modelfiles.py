"""The bundle's Modelfiles, with which Ollama serves it: https://docs.ollama.com/modelfile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from journeyman.artifacts import write_atomic
from journeyman.foreign import file_part, ollama_text
from journeyman.manifests import BundleManifest
from journeyman.model_files import parts_of
from journeyman.records import EVERY_ROLE
from journeyman.rendering.named import NAMED
from journeyman.rendering.settling import Settled


def write_modelfiles(bundle: BundleManifest, template: Settled, out: Path) -> dict[str, str]:
    """Writes a Modelfile for each role, and returns role → why it has none."""
    without, count = {}, len(parts_of(out / bundle.base_file))
    if count > 1:
        merge = f"`llama-gguf-split --merge {bundle.base_file} base.gguf`"
        return dict.fromkeys(bundle.roles, f"Ollama does not load a base that is split into {count} files; see {merge}")
    try:
        chat = _ollama_template(template)
    except ValueError as reason:
        return dict.fromkeys(bundle.roles, f"{reason}, so Ollama would make other prompts than those that were trained")
    for role in bundle.roles:
        try:
            text = modelfile(role, bundle, chat)
        except ValueError as reason:
            without[role] = f"{reason}, so Ollama would not send the system prompt that was trained"
        else:
            write_atomic(out / f"Modelfile.{file_part(role)}", text.encode())
    return without


def _ollama_template(template: Settled) -> list[str]:
    """The lines of a Modelfile that give Ollama the chat template; none if it is the base's own.

    Raises:
        ValueError: Ollama, which knows neither Jinja nor its variables, cannot make the same prompts.
    """
    if template.own and not template.chosen:
        return []
    if template.replaces:  # Ollama takes the one of the two that knows more, such as tools (server/images.go)
        raise ValueError(
            "the base's file has a chat template of its own, which Ollama may use instead of the chosen one"
        )
    if template.name in NAMED and not template.variables:
        written = NAMED[template.name].for_ollama(template.end_token)
        end = NAMED[template.name].end or template.end_token
        return [f"TEMPLATE {ollama_text(written)}", f"PARAMETER stop {ollama_text(end)}"]
    raise ValueError("the chat template is in Jinja" if not template.own else "the chat template has options")


def modelfile(role: str, bundle: BundleManifest, template: Sequence[str] = ()) -> str:
    """An Ollama Modelfile: https://docs.ollama.com/modelfile.

    Args:
        template: see _ollama_template.

    Raises:
        ValueError: a Modelfile cannot express the role's prompt.
    """
    prompt = bundle.system_prompts.get(role)
    file = bundle.adapter_files.get(role) or bundle.adapter_files.get(EVERY_ROLE)
    lines = [
        f"FROM ./{bundle.base_file}",
        *([f"ADAPTER ./{file}"] if file else []),
        *template,
        f"PARAMETER temperature {bundle.settings['temperature']}",
        f"PARAMETER num_ctx {bundle.settings['context']}",
        f"PARAMETER num_predict {bundle.settings['max_new_tokens']}",
        *([f"SYSTEM {ollama_text(prompt)}"] if prompt is not None else []),
    ]
    return "\n".join(lines) + "\n"
