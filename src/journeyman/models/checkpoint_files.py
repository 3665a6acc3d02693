"""Which files of a Hugging Face folder are the model: the rule of `transformers`, without opening a weight.

The weights are `model.safetensors`, or the shards that `model.safetensors.index.json` names. A repo may contain the
same weights again under other names (`consolidated.safetensors`, `pytorch_model.bin`), which are not needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.model_files import CONFIG, INDEX, WEIGHTS, is_of_checkpoint

_NEVER = (".bin", ".pth", ".pt", ".py", ".onnx", ".pkl", ".h5", ".msgpack")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json")
_MOST_BYTES = 1 << 26


def is_beside(name: str) -> bool:
    """True if a file of this name, in the top folder, belongs to the model without being a weight."""
    return (is_of_checkpoint(name) and name not in (WEIGHTS, INDEX)) or (
        fnmatchcase(name, "LICENSE*") and PurePosixPath(name).suffix not in _NEVER
    )


def has_safetensors(names: Iterable[str]) -> bool:
    """True if the top folder has any weights as safetensors."""
    return any("/" not in name and name.endswith(".safetensors") for name in names)


def shards_in(index: bytes, where: str) -> list[str]:
    """The names of the files that an index of safetensors shards lists, sorted.

    Raises:
        InputError: it is not such an index, or it names something outside the top folder.
    """
    remedy = "Use a .gguf file of this model, or another revision"
    try:
        found = json.loads(index)["weight_map"]
        names = sorted(set(found.values()))
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{where}: {INDEX} is damaged: it has no weight_map", remedy) from error
    for name in names:
        if not isinstance(name, str) or "/" in name or not name.endswith(".safetensors"):
            raise InputError(f"{where}: {INDEX} names {plain(str(name), 80)!r}, not a file next to it", remedy)
    if not names:
        raise InputError(f"{where}: {INDEX} names no files", remedy)
    return names


def is_whole(folder: Path) -> bool:
    """True if a folder has a model's configuration, a tokenizer and all of its weights as safetensors."""
    if not (folder / CONFIG).is_file() or not any((folder / one).is_file() for one in _TOKENIZERS):
        return False
    if (folder / WEIGHTS).is_file():
        return True
    try:
        with (folder / INDEX).open("rb") as file:
            names = shards_in(file.read(_MOST_BYTES), str(folder))
    except (OSError, InputError):
        return False
    return all((folder / name).is_file() for name in names)
