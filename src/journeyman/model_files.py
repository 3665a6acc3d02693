"""A base model's files on disk: one .gguf, a set NAME-00001-of-0000N.gguf that is named by its first file, or a folder.

llama.cpp loads a split model by the same rule: it is given the first file and derives the names of the others. A folder
has Hugging Face's layout; to the model belong what transformers and vLLM read of it, and not its README.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from journeyman.artifacts import clone_or_copy, disk_error, hash_of, hash_of_file

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
"""In a folder: the model's configuration, its weights in one file, or the list of files with its weights."""

_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
_OF_FOLDER = (
    CONFIG, WEIGHTS, INDEX, "generation_config.json", "tokenizer*.json", "tokenizer.model", "tekken.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "chat_template*.jinja",
    "chat_template*.json",
)  # fmt: skip
_MOST_INDEX = 1 << 26


def split_place(path: Path) -> tuple[int, int] | None:
    """(number, count) if the file's name is that of a part of a split model, counted from 1; otherwise None."""
    found = _PART.fullmatch(path.name)
    number, count = (int(found[2]), int(found[3])) if found else (0, 0)
    return (number, count) if 1 <= number <= count > 1 else None


def is_checkpoint(folder: Path) -> bool:
    """True if this is a folder with a model in Hugging Face's layout, complete or not."""
    return (folder / CONFIG).is_file()


def name_of_model(path: Path) -> str:
    """What a model is called: PUBLISHER/REPO in Hugging Face's cache, otherwise the name of its file or folder."""
    repo = path.parent.parent.name.removeprefix("models--")
    in_cache = path.parent.name == "snapshots" and repo != path.parent.parent.name
    return repo.replace("--", "/") if in_cache else path.name


def parts_of(path: Path) -> list[Path]:
    """All files of the model, in order; they need not exist. Any other than the first part stands for itself."""
    if is_checkpoint(path):
        return _files_of(path)
    number, count = split_place(path) or (0, 0)
    return [renamed_part(path, path, part) for part in range(1, count + 1)] if number == 1 else [path]


def is_of_checkpoint(name: str) -> bool:
    """True if a file of this name in such a folder belongs to the model, apart from the shards that its index names."""
    return any(fnmatchcase(name, one) for one in _OF_FOLDER)


def _files_of(folder: Path) -> list[Path]:
    names = {path.name for path in folder.iterdir() if is_of_checkpoint(path.name)}
    if INDEX in names:
        names |= _indexed(folder / INDEX)
    return [folder / name for name in sorted(names) if not (folder / name).is_dir()]


def _indexed(index: Path) -> set[str]:
    """The files with weights next to an index; opening the base refuses one that is damaged."""
    try:
        with index.open("rb") as file:
            found = json.loads(file.read(_MOST_INDEX))["weight_map"].values()
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return set()
    return {name for name in found if isinstance(name, str) and Path(name).name == name}


def first_part(path: Path) -> Path:
    """The first file of the split model that the file belongs to; the file itself if the model is not split."""
    return path if split_place(path) is None else renamed_part(path, path, 1)


def renamed_part(path: Path, like: Path, number: int) -> Path:
    """The name of a part of the model `path`, which is split as `like` is; next to `path`."""
    _, count = split_place(like) or (0, 0)
    named = _PART.fullmatch(path.name)
    return path.with_name(f"{named[1] if named else path.stem}-{number:05d}-of-{count:05d}.gguf")


def is_complete(path: Path) -> bool:
    """True if all files of the model exist."""
    return all(part.is_file() for part in parts_of(path))


def hash_of_model(path: Path) -> str:
    """The hash that identifies a base: the SHA-256 of its file, or of the list of its parts' SHA-256 in order.

    It depends on no file name, so that a copy under another name is the same model; in a folder, on the names in it.

    Raises:
        OSError: a file is missing or cannot be read.
    """
    parts = parts_of(path)
    if is_checkpoint(path):
        return hash_of({part.name: hash_of_file(part) for part in parts})
    hashes = [hash_of_file(part) for part in parts]
    return hashes[0] if len(hashes) == 1 else hash_of(hashes)


def size_of_model(path: Path) -> int:
    """The size of all files of the model, in bytes."""
    return sum(part.stat().st_size for part in parts_of(path))


def copy_model(path: Path, target: Path) -> Path:
    """Copies all files of a model; returns the copy's first file, whose name is `target`'s if the model is one file.

    A folder is copied to the folder `target`, which is made.

    Raises:
        DiskError: the disk is full or the folder cannot be written to.
    """
    parts = parts_of(path)
    if is_checkpoint(path):
        try:
            target.mkdir(exist_ok=True)
        except OSError as error:
            raise disk_error(error, target) from error
        for part in parts:
            clone_or_copy(part, target / part.name)
        return target
    copies = [target] if len(parts) == 1 else [renamed_part(target, path, n) for n in range(1, len(parts) + 1)]
    for part, copy in zip(parts, copies, strict=True):
        clone_or_copy(part, copy)
    return copies[0]


def find_by_hash(sha256: str, places: Iterable[Path]) -> Path | None:
    """The first of these models that is complete and has this hash (see hash_of_model)."""
    return next((path for path in places if is_complete(path) and hash_of_model(path) == sha256), None)
