"""A base model's files on disk: one .gguf, or a set NAME-00001-of-0000N.gguf that is named by its first file.

llama.cpp loads a split model by the same rule: it is given the first file and derives the names of the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from journeyman.artifacts import clone_or_copy, hash_of, hash_of_file

_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


def split_place(path: Path) -> tuple[int, int] | None:
    """(number, count) if the file's name is that of a part of a split model, counted from 1; otherwise None."""
    found = _PART.fullmatch(path.name)
    number, count = (int(found[2]), int(found[3])) if found else (0, 0)
    return (number, count) if 1 <= number <= count > 1 else None


def parts_of(path: Path) -> list[Path]:
    """All files of the model, in order; they need not exist. Any other than the first part stands for itself."""
    number, count = split_place(path) or (0, 0)
    return [renamed_part(path, path, part) for part in range(1, count + 1)] if number == 1 else [path]


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

    It depends on no file name, so that a copy under another name is the same model.

    Raises:
        OSError: a file is missing or cannot be read.
    """
    hashes = [hash_of_file(part) for part in parts_of(path)]
    return hashes[0] if len(hashes) == 1 else hash_of(hashes)


def size_of_model(path: Path) -> int:
    """The size of all files of the model, in bytes."""
    return sum(part.stat().st_size for part in parts_of(path))


def copy_model(path: Path, target: Path) -> Path:
    """Copies all files of a model; returns the copy's first file, whose name is `target`'s if the model is one file.

    Raises:
        DiskError: the disk is full or the folder cannot be written to.
    """
    parts = parts_of(path)
    copies = [target] if len(parts) == 1 else [renamed_part(target, path, n) for n in range(1, len(parts) + 1)]
    for part, copy in zip(parts, copies, strict=True):
        clone_or_copy(part, copy)
    return copies[0]


def find_by_hash(sha256: str, places: Iterable[Path]) -> Path | None:
    """The first of these models that is complete and has this hash (see hash_of_model)."""
    return next((path for path in places if is_complete(path) and hash_of_model(path) == sha256), None)
