"""The parts of a bundle whose base is on a server: the adapters in peft's format, and a script that starts vLLM."""

from __future__ import annotations

from pathlib import Path

from journeyman.artifacts import clone_or_copy, write_atomic
from journeyman.foreign import markdown, named
from journeyman.inference.model_server import PEFT_FILES, ServedFolder
from journeyman.inference.vllm import defaults_of
from journeyman.manifests import BundleManifest, ServerUsed

VLLM_SCRIPT = "vllm.sh"
HOW_TO_SERVE = f"Serve it: `sh {VLLM_SCRIPT}`, or a server with the same folder and adapters."


def copy_adapter(folder: Path, target: Path) -> None:
    """Copies an adapter in peft's format to a new folder.

    Raises:
        DiskError: the disk is full or the folder cannot be written to.
    """
    target.mkdir()
    for name in PEFT_FILES:
        clone_or_copy(folder / name, target / name)


def write_script(bundle: BundleManifest, served: ServedFolder, server: ServerUsed, out: Path) -> None:
    """Writes the script that starts vLLM with the adapters of the bundle."""
    command = served.command(
        {name: f"./{folder}" for name, folder in bundle.adapter_files.items()}, defaults_of(bundle)
    )
    names = ", ".join(f"{server.tuned_models[name]} is {named(name)}" for name in bundle.adapter_files)
    text = (
        "#!/bin/sh\n# Serves the tuned model with vLLM; send the system prompts in prompts.json.\n"
        f'# Models: {names}.\ncd "$(dirname "$0")" || exit 1\nexec {command} "$@"\n'
    )
    write_atomic(out / VLLM_SCRIPT, text.encode())
    (out / VLLM_SCRIPT).chmod(0o755)


def card_line(server: ServerUsed) -> str:
    """What the model card says about the server."""
    models = ", ".join(f"{markdown(model)} ({markdown(named(name))})" for name, model in server.tuned_models.items())
    return f"- evaluated on the server {markdown(server.url)}, models {markdown(server.base_model)} and {models}"
