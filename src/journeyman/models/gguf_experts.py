"""Reads from a GGUF header how many experts a base has, with the rules of llama.cpp (src/llama-model.cpp)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gguf import ExpertGatingFuncType

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.models.families import FAMILIES
from journeyman.models.geometry import Experts

if TYPE_CHECKING:
    from journeyman.models.gguf_file import GgufFile

_MOST = 512
"""llama.cpp's limit; newer versions allow 1,024."""
_READ = ("expert_count", "expert_used_count", "expert_group_count", "expert_feed_forward_length")
_NEUTRAL = {
    "expert_gating_func": (0, ExpertGatingFuncType.SOFTMAX),
    "expert_weights_scale": (0, 1),
    "expert_group_used_count": (0, 1),
}


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
    _refuse_other_keys(file, architecture)
    return Experts(count, used)


def _refuse_other_keys(file: GgufFile, architecture: str) -> None:
    """llama.cpp reads these keys for other families only, and would serve another model than the file describes."""
    for key, value in file.metadata.items():
        name = key.removeprefix(f"{architecture}.")
        if name == key or not name.startswith("expert_") or name in _READ or value in _NEUTRAL.get(name, (0,)):
            continue
        raise InputError(
            f"{file.path}: {plain(key, 80)} is {plain(str(value), 40)}, which llama.cpp does not "
            f"compute for {architecture}",
            "Use another base model",
        )


def _read(file: GgufFile, key: str) -> int:
    value, kind = file.metadata.get(key, 0), file.kinds.get(key, "u32")
    if kind != "u32":
        raise InputError(f"{file.path}: {key} is of type {kind}, not u32", "Use a complete GGUF file")
    return int(value)
