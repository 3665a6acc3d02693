"""Reads from a GGUF header how many experts a base has, with the rules of llama.cpp (src/llama-model.cpp)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from journeyman.errors import InputError
from journeyman.models.families import FAMILIES
from journeyman.models.geometry import Experts

if TYPE_CHECKING:
    from journeyman.models.gguf_file import GgufFile

_MOST = 512
"""llama.cpp's limit; newer versions allow 1,024."""


def experts_of(file: GgufFile, architecture: str) -> Experts | None:
    """The experts of a base; None: it is dense.

    Raises:
        InputError: numbers that llama.cpp would refuse, or experts that the decoder does not compute.
    """
    family = FAMILIES[architecture].mixture
    count, used, groups = (
        _read(file, f"{architecture}.{name}") for name in ("expert_count", "expert_used_count", "expert_group_count")
    )
    if family is None and count:
        raise InputError(f"{file.path}: a mixture of experts of the family {architecture}", "Use another base model")
    if count == used == groups == 0 and (family is None or not family.always):
        return None
    if not 0 < used <= count <= _MOST:
        raise InputError(
            f"{file.path}: {used} of {count} experts are used, not between 1 and all of at most {_MOST}",
            "Use a complete GGUF file",
        )
    if groups > 1:
        raise InputError(f"{file.path}: experts in {groups} groups are not supported", "Use another base model")
    return Experts(count, used)


def _read(file: GgufFile, key: str) -> int:
    value, kind = file.metadata.get(key, 0), file.kinds.get(key, "u32")
    if kind != "u32":
        raise InputError(f"{file.path}: {key} is of type {kind}, not u32", "Use a complete GGUF file")
    return int(value)
