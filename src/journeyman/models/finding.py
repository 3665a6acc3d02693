"""Finds the files of base models in folders."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.model_files import first_part, is_complete, size_of_model, split_place

_NO_MODELS = ("mmproj", "imatrix")
"""Words in the names of .gguf files next to a model that are not one: image projectors, statistics for quantizing."""
_MOST_NAMED = 12
SET_BASE = "Set base.model to a .gguf file, to 'embedded', or to a name that docs/bases.md describes"


def settled(path: Path) -> Path:
    """The absolute path of an existing model file, with links resolved if the file keeps a name that says what it is.

    Hugging Face's cache links `snapshots/…/NAME.gguf` to a file named by its hash, and the parts of a split model are
    found by their names; in these cases only the folder's links are resolved.
    """
    resolved = path.resolve()
    if split_place(path) is None and (resolved.suffix == ".gguf" or path.suffix != ".gguf"):
        return resolved
    return path.parent.resolve() / path.name


def models_in(folder: Path) -> list[Path]:
    """The models directly in a folder, sorted: each .gguf file, a split one by its first part (which may be missing).

    Raises:
        InputError: the folder cannot be read.
    """
    try:
        found = [path for path in folder.iterdir() if path.suffix == ".gguf" and not path.is_dir()]
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}", "Make the folder readable, or name a .gguf file") from error
    return models_among(found)


def models_among(files: Iterable[Path]) -> list[Path]:
    """The models that these .gguf files are, sorted: a split one by its first part, and no file that is no model."""
    return sorted({first_part(path) for path in files if not any(word in path.name.lower() for word in _NO_MODELS)})


def only_model(folder: Path) -> Path:
    """The only model in a folder.

    Raises:
        InputError: the folder contains no model, or several.
    """
    found = models_in(folder)
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"base.model: {folder} contains {len(found)} models: {listed(found)}", f"Name one: {folder / found[0].name}"
        )
    if any(folder.glob("*.safetensors")):
        raise InputError(f"base.model: {folder} contains safetensors and no .gguf file", not_converted(folder))
    raise InputError(f"base.model: {folder} contains no .gguf file", SET_BASE)


def not_converted(folder: Path) -> str:
    """The remedy for a folder with the original weights of a model."""
    convert = f"python convert_hf_to_gguf.py {shlex.quote(str(folder))} --outfile base.gguf"
    return f"Convert it to GGUF with llama.cpp's script, and set base.model to the result: {convert}"


def listed(models: Sequence[Path], root: Path | None = None) -> str:
    """The models' names, or their paths below `root`, with their sizes, for a message; a long list is cut."""
    more = f" and {len(models) - _MOST_NAMED} more" if len(models) > _MOST_NAMED else ""
    return ", ".join(f"{plain(_shown(path, root), 160)} ({_size(path)})" for path in models[:_MOST_NAMED]) + more


def _shown(path: Path, root: Path | None) -> str:
    return path.name if root is None else str(path.relative_to(root))


def _size(path: Path) -> str:
    return f"{size_of_model(path) / 1e9:.2f} GB" if is_complete(path) else "incomplete"
