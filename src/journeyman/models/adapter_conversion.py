"""Adapters of architectures for which we have no table: llama.cpp's own script converts them, in a separate process.

It knows what the engine calls an architecture, and how the rows of its matrices are ordered.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import gguf

from journeyman.artifacts import remove_quietly, sync
from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.models.llama_converter import scripts_folder

_TIMEOUT_S = 1800
_NAME_OF = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/gguf-py"]
import gguf
from conversion import get_model_class
try:
    print("known", gguf.MODEL_ARCH_NAMES[get_model_class(sys.argv[2]).model_arch])
except NotImplementedError:
    print("unknown")
"""


@cache
def engine_architecture(name: str) -> str | None:
    """The engine's name (`general.architecture`) for a class of `transformers`; None if the converter has none.

    Raises:
        InputError: the converter is not installed or does not work.
    """
    scripts = str(scripts_folder())
    answer = _run([sys.executable, "-c", _NAME_OF, scripts, name], name).split()
    return answer[1] if answer[:1] == ["known"] else None


def convert_adapter(adapter: Path, base: Path, path: Path) -> None:
    """Converts an adapter in `peft`'s format to a GGUF adapter, in float32.

    Args:
        adapter: the folder with adapter_config.json and adapter_model.safetensors.
        base: the Hugging Face folder on which it was trained; only its config is read.
        path: the file to write; it is complete or absent.

    Raises:
        InputError: the converter is not installed, or cannot convert every tensor.
    """
    script, staged = scripts_folder() / "convert_lora_to_gguf.py", path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        command = [sys.executable, str(script), "--base", str(base), "--outtype", "f32", "--outfile", str(staged)]
        _run([*command, str(adapter)], str(base))
        sync(staged)
        staged.replace(path)
    finally:
        remove_quietly(staged)


def elements_of_b(adapter: Path) -> int:
    """The number of elements of all B in a GGUF adapter. The converter may split and reorder them; none may be lost."""
    return sum(int(one.n_elements) for one in gguf.GGUFReader(adapter).tensors if one.name.endswith(".lora_b"))


def _run(command: Sequence[str], what: str) -> str:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "USE_HUB_KERNELS": "0"}
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, env=environment, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{what}: llama.cpp's converter did not end in {_TIMEOUT_S} s", "Run it again") from error
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or [f"it ended with code {ended.returncode}"]
        raise InputError(f"{what}: llama.cpp's converter failed: {plain(lines[-1], 300)}", "Use another base")
    return ended.stdout
