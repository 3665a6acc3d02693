"""Finds the files of base models in folders."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.model_files import CONFIG, INDEX, first_part, is_complete, size_of_model, split_place

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
    """The only model in a folder: its .gguf file, otherwise the folder itself if it has Hugging Face's layout.

    llama.cpp's script writes its .gguf file into the folder of the original weights, so a .gguf file comes first, as it
    is what is served; the folder's config.json names the original weights (see checkpoint).

    Raises:
        InputError: the folder contains no model, or several.
    """
    found = models_in(folder)
    if len(found) == 1:
        return found[0]
    original = folder / CONFIG
    if found:
        more = f", or {original} for the original weights" if original.is_file() else ""
        raise InputError(
            f"base.model: {folder} contains {len(found)} models: {listed(found)}",
            f"Name one: {folder / found[0].name}{more}",
        )
    if original.is_file():
        return folder
    for name, what, remedy in _NO_CONFIG:
        if any(folder.glob(name)):
            raise InputError(f"base.model: {folder} contains {what}", remedy)
    raise InputError(f"base.model: {folder} contains no .gguf file and no {CONFIG}", SET_BASE)


_NO_CONFIG = (
    (
        "adapter_config.json",
        "an adapter and no model",
        "Name the model that it was trained on (base_model_name_or_path)",
    ),
    ("model_index.json", "a pipeline that makes pictures", SET_BASE),
    (
        "*.safetensors",
        f"safetensors, but no {CONFIG}",
        "Download or copy all files of the model again, into one folder",
    ),
    ("*.bin", f"pickled weights, but no {CONFIG}", SET_BASE),
)
"""A file of a folder without config.json → what the folder contains, and what to do."""


def checkpoint(path: Path) -> Path:
    """The folder that is meant if one of its files is named: its config.json names all of it.

    Raises:
        InputError: a file with weights, which is not the model alone.
    """
    if path.name == CONFIG:
        return path.parent
    if path.suffix == ".safetensors" or path.name == INDEX:
        raise InputError(f"base.model: {path} is a part of a model", f"Name its folder: {path.parent}")
    return path


def listed(models: Sequence[Path], root: Path | None = None) -> str:
    """The models' names, or their paths below `root`, with their sizes, for a message; a long list is cut."""
    more = f" and {len(models) - _MOST_NAMED} more" if len(models) > _MOST_NAMED else ""
    return ", ".join(f"{plain(_shown(path, root), 160)} ({_size(path)})" for path in models[:_MOST_NAMED]) + more


def _shown(path: Path, root: Path | None) -> str:
    return path.name if root is None else str(path.relative_to(root))


def _size(path: Path) -> str:
    return f"{size_of_model(path) / 1e9:.2f} GB" if is_complete(path) else "incomplete"
