"""Scripts that serve a bundle's files with other programs. Every name from a log is quoted for the shell."""

from __future__ import annotations

import json
from pathlib import Path

from journeyman.artifacts import write_atomic
from journeyman.foreign import file_part, named, shell_word
from journeyman.inference.vllm import defaults_of, vllm_command
from journeyman.manifests import BundleManifest
from journeyman.models.base import PeftBase
from journeyman.records import EVERY_ROLE

LLAMA_SCRIPT, VLLM_SCRIPT, LMSTUDIO_SCRIPT = "llama-server.sh", "vllm.sh", "lmstudio.sh"


def write_program(text: str, path: Path) -> None:
    """Writes a script that can be run; raises as write_atomic does."""
    write_atomic(path, text.encode())
    path.chmod(0o755)


def llama_script(bundle: BundleManifest) -> str:
    """Starts llama.cpp's server with the base and the adapters."""
    hint = "".join(f"# {line}\n" for line in adapter_hint(bundle))
    flags = " ".join(map(shell_word, llama_arguments(bundle)))
    return (
        "#!/bin/sh\n# Serves the tuned model with llama.cpp's server; send the system prompts in prompts.json.\n"
        f'{hint}cd "$(dirname "$0")" || exit 1\n'
        f'exec llama-server {flags} --host 127.0.0.1 --port 8080 "$@"\n'
    )


def adapter_hint(bundle: BundleManifest) -> list[str]:
    """A sentence about how a request to llama.cpp's server gets its role's adapter; none if there is one for all."""
    if not bundle.adapter_files or EVERY_ROLE in bundle.adapter_files:
        return []
    numbers = ", ".join(f"{number} is {named(name)}" for number, name in enumerate(bundle.adapter_files))
    return [
        f'Each request names its role\'s adapter, as "lora": [{{"id": N, "scale": 1.0}}]: {numbers}. Without it, the '
        "base answers untuned."
    ]


def llama_arguments(bundle: BundleManifest) -> list[str]:
    """What makes llama.cpp's server answer as the files were evaluated, without address and port."""
    loras = [word for file in bundle.adapter_files.values() for word in ("--lora", file)]
    several = ["--lora-init-without-apply"] if loras and EVERY_ROLE not in bundle.adapter_files else []
    parallel = bundle.settings["parallel"]
    template = [] if bundle.template_file is None else ["--chat-template-file", bundle.template_file]
    if bundle.template_variables:
        template += ["--chat-template-kwargs", json.dumps(bundle.template_variables)]
    return [
        "--model", bundle.base_file, *loras, *several, "--parallel", str(parallel),
        "--ctx-size", str(bundle.settings["context"] * parallel), *template, "--jinja",
        "--temp", str(bundle.settings["temperature"]), "--predict", str(bundle.settings["max_new_tokens"]),
    ]  # fmt: skip


def vllm_script(bundle: BundleManifest, base: PeftBase, base_name: str, rank: int) -> str:
    """Starts vLLM with the base's Hugging Face folder; each role is a model.

    Raises:
        InputError: vLLM does not serve adapters of this rank.
    """
    modules = {
        file_part(role): f"./{bundle.adapter_files.get(role) or bundle.adapter_files[EVERY_ROLE]}"
        for role in bundle.roles
    }
    command = vllm_command(
        base.name, base.revision, base_name, modules, rank, bundle.settings["context"], "", defaults_of(bundle)
    )
    return (
        "#!/bin/sh\n# Serves the tuned model with vLLM; send the system prompts in prompts.json.\n"
        f"# Base: SHA-256 {bundle.base_sha256}, see base.json.\n"
        f'cd "$(dirname "$0")" || exit 1\nexec {command} "$@"\n'
    )


def lmstudio_script(bundle: BundleManifest, name: str) -> str:
    """Copies the merged file to LM Studio, loads it and starts its server.

    Source: https://lmstudio.ai/docs/cli (import, load, server start). LM Studio loads no adapters.
    """
    model = shell_word(name)
    return (
        "#!/bin/sh\n# Serves the merged model with LM Studio; send the system prompts in prompts.json.\n"
        'set -e\ncd "$(dirname "$0")"\n'
        f"lms import --copy --yes --user-repo journeyman/{model} {shell_word(bundle.base_file)}\n"
        f"lms load journeyman/{model} --identifier {model} --context-length {bundle.settings['context']} --yes\n"
        'exec lms server start "$@"\n'
    )
