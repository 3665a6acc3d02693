"""Scripts that serve a bundle's files with other programs. Every name from a log is quoted for the shell."""

from __future__ import annotations

import json
from pathlib import Path

from journeyman.artifacts import write_atomic
from journeyman.foreign import named, shell_word
from journeyman.manifests import BundleManifest
from journeyman.records import EVERY_ROLE

LLAMA_SCRIPT = "llama-server.sh"


def write_program(text: str, path: Path) -> None:
    """Writes a script that can be run; raises as write_atomic does."""
    write_atomic(path, text.encode())
    path.chmod(0o755)


def llama_script(bundle: BundleManifest) -> str:
    """Starts llama.cpp's server with the base and the adapters."""
    hint = ""
    if bundle.adapter_files and EVERY_ROLE not in bundle.adapter_files:
        numbers = ", ".join(f"{number} is {named(name)}" for number, name in enumerate(bundle.adapter_files))
        hint = f'# Each request names its role\'s adapter, as "lora": [{{"id": N, "scale": 1.0}}]: {numbers}.\n'
    return (
        "#!/bin/sh\n# Serves the tuned model with llama.cpp's server; send the system prompts in prompts.json.\n"
        f'{hint}cd "$(dirname "$0")" || exit 1\n'
        f'exec llama-server {llama_flags(bundle)}--host 127.0.0.1 --port 8080 "$@"\n'
    )


def llama_flags(bundle: BundleManifest) -> str:
    """The options of llama.cpp's server that make it answer as it was evaluated; each is followed by a space."""
    loras = "".join(f"--lora {shell_word(file)} " for file in bundle.adapter_files.values())
    several = "--lora-init-without-apply " if loras and EVERY_ROLE not in bundle.adapter_files else ""
    parallel = bundle.settings["parallel"]
    return (
        f"--model {shell_word(bundle.base_file)} {loras}{several}"
        f"--parallel {parallel} --ctx-size {bundle.settings['context'] * parallel} {_template_flags(bundle)}--jinja "
    )


def _template_flags(bundle: BundleManifest) -> str:
    flags = "" if bundle.template_file is None else f"--chat-template-file {bundle.template_file} "
    if bundle.template_variables:
        flags += f"--chat-template-kwargs {shell_word(json.dumps(bundle.template_variables))} "
    return flags
