"""Reads the headers of a split GGUF model as one: the metadata of the first part, the tensors of all.

Source: gguf-split and llama_model_loader in llama.cpp, which writes and checks the same keys. Sets that llama.cpp
refuses are refused here, because it serves them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.model_files import first_part, parts_of, split_place

if TYPE_CHECKING:
    from journeyman.models.gguf_file import TensorInfo

_NUMBER, _COUNT, _TENSORS = "split.no", "split.count", "split.tensors.count"
_KINDS = {_NUMBER: "u16", _COUNT: "u16", _TENSORS: "i32"}
_AGAIN = "Download or copy all parts of the model again, into one folder"
_MOST_NAMED = 5


class Header(NamedTuple):
    """What a file's header says: see GgufFile."""

    metadata: Mapping[str, Any]
    kinds: Mapping[str, str]
    tensors: Mapping[str, TensorInfo]


def read_parts(path: Path, read: Callable[[Path], Header]) -> tuple[Sequence[Path], Header]:
    """The files of the model that `path` names, and their headers as one.

    Args:
        path: the model's only file, or the first one of a split model.
        read: reads the header of one file.

    Raises:
        InputError: a part cannot be read, is missing or belongs to another model, or `path` is not the first one.
    """
    first = read(path)
    count = _split_key(path, first, _COUNT) if _COUNT in first.metadata else 1
    if count <= 1:
        if split_place(path) is not None:
            raise InputError(
                f"{path}: named as a part of a split model, but its header has no {_COUNT}, so it is a whole model",
                "Rename it: remove -0000x-of-0000y from its name",
            )
        return [path], first
    _check_first(path, _split_key(path, first, _NUMBER), count)
    parts = parts_of(path)
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        raise InputError(
            f"{path}: {len(missing)} of its {count} parts are missing: {', '.join(missing[:_MOST_NAMED])}{more}", _AGAIN
        )
    return parts, _joined(parts, [first, *map(read, parts[1:])])


def _check_first(path: Path, number: int, count: int) -> None:
    place = split_place(path)
    if place is None:
        raise InputError(
            f"{path}: part {number + 1} of a model that is split into {count} files, but its name does not say so",
            f"Rename the parts to NAME-00001-of-{count:05d}.gguf and so on, by which llama.cpp finds them",
        )
    if place != (number + 1, count):
        raise InputError(
            f"{path}: named part {place[0]} of {place[1]}, but its header says part {number + 1} of {count}", _AGAIN
        )
    if number:
        raise InputError(
            f"{path}: part {number + 1} of a model that is split into {count} files",
            f"Name the first one: {first_part(path).name}",
        )


def _joined(parts: Sequence[Path], headers: Sequence[Header]) -> Header:
    """The headers of all parts as one, after checking that they belong together."""
    first, tensors = headers[0], dict[str, Any]()
    total = _split_key(parts[0], first, _TENSORS)
    for number, (part, header) in enumerate(zip(parts, headers, strict=True)):
        expected = {_NUMBER: number, _COUNT: len(parts), _TENSORS: total}
        for key, value in expected.items():
            if (found := _split_key(part, header, key)) != value:
                raise InputError(f"{part}: {key} is {found}, not {value} as in {parts[0].name}", _AGAIN)
        # Only the first part needs the metadata. If another part repeats some of it, it must be the same model's.
        for key in header.metadata.keys() & first.metadata.keys() - expected.keys() - {"general.alignment"}:
            if header.metadata[key] != first.metadata[key]:
                raise InputError(f"{part}: of another model than {parts[0].name}: {plain(key, 80)} differs", _AGAIN)
        for name, info in header.tensors.items():
            if name in tensors:
                other = parts[tensors[name].part].name
                raise InputError(f"{part}: tensor {plain(name, 80)!r} is also in {other}", _AGAIN)
            tensors[name] = replace(info, part=number)
    if len(tensors) != total:
        raise InputError(
            f"{parts[0]}: {_TENSORS} is {total}, but its {len(parts)} parts have {len(tensors)} tensors", _AGAIN
        )
    return Header(first.metadata, first.kinds, tensors)


def _split_key(path: Path, header: Header, key: str) -> int:
    value, kind = header.metadata.get(key), header.kinds.get(key, "no value")
    if kind != _KINDS[key] or not isinstance(value, int):
        raise InputError(f"{path}: {key} is {kind}, not {_KINDS[key]}, as parts of a split model have it", _AGAIN)
    return value
