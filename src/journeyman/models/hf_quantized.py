"""Which tensors of a checkpoint are quantized, and how: `quantization_config` in config.json.

The methods in models.hf_dequantized and models.hf_integers are read; every other one is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.models.hf_config import HfConfig
from journeyman.models.hf_dequantized import Bitsandbytes4, Scaled
from journeyman.models.hf_integers import Awq, Gptq, PackedIntegers
from journeyman.models.hf_values import FLOATS, Readable, Unquantized
from journeyman.models.safetensors_file import StoredTensor

Stored = dict[str, StoredTensor]
Reader = Callable[[HfConfig, Mapping[str, Any], Stored], dict[str, Readable]]
_STRATEGIES = ("tensor", "channel", "block")
"""What has a scale of its own; channels are rows."""
_REMEDY = "Use the checkpoint in BF16 that it was made from"


def readable_tensors(config: HfConfig, stored: Mapping[str, StoredTensor]) -> dict[str, Readable]:
    """The weights of a checkpoint, quantized or not, by their names in transformers.

    Raises:
        InputError: an unknown method, settings of a known one that are not read, or tensors that do not fit it.
    """
    left, found = dict(stored), dict[str, Readable]()
    if config.quantization is not None:
        method = config.quantization.get("quant_method")
        reader = _READERS.get(method) if isinstance(method, str) else None
        if reader is None:
            raise _refusal(config, f"weights quantized by {plain(str(method), 40)!r}, which are not read")
        found = reader(config, config.quantization, left)
    for name, tensor in left.items():
        if tensor.dtype not in FLOATS:
            raise _refusal(
                config,
                f"tensor {plain(name, 120)!r} has type {tensor.dtype}"
                + ("" if config.quantization else ", and config.json has no quantization_config"),
            )
        found[name] = Unquantized(tensor)
    return found


def _fp8(config: HfConfig, settings: Mapping[str, Any], stored: Stored) -> dict[str, Readable]:
    """transformers' FP8: the product of each weight and its block's `weight_scale_inv` (DeepSeek-V3, Qwen3-FP8)."""
    _leave_out(stored, ".activation_scale")
    return _scaled(config, stored, "_scale_inv", _block_of(config, settings, "weight_block_size"))


def _compressed(config: HfConfig, settings: Mapping[str, Any], stored: Stored) -> dict[str, Readable]:
    """compressed-tensors: float8 or int8 with scales of tensors, rows or blocks, or integers packed in 32 bits."""
    groups, layout, sparsity = (settings.get(key) for key in ("config_groups", "format", "sparsity_config"))
    group = next(iter(groups.values())) if isinstance(groups, dict) and len(groups) == 1 else None
    how = group.get("weights") if isinstance(group, dict) else None
    is_dense = not sparsity or (isinstance(sparsity, dict) and sparsity.get("format") == "dense")
    if not isinstance(how, dict) or settings.get("transform_config") or not is_dense:
        raise _refusal(config, "weights of compressed-tensors in several groups, transformed or sparse")
    _leave_out(stored, ".input_scale", ".input_zero_point", ".q_scale", ".k_scale", ".v_scale")
    strategy = how.get("strategy")
    if layout == "pack-quantized":
        return _packed(config, how, stored)
    if layout not in ("float-quantized", "int-quantized", "naive-quantized") or strategy not in _STRATEGIES:
        raise _refusal(config, f"weights of compressed-tensors as {plain(str(layout), 40)!r}")
    block = _block_of(config, how, "block_structure") if strategy == "block" else None
    return _scaled(config, stored, "_scale", block)


def _packed(config: HfConfig, how: Mapping[str, Any], stored: Stored) -> dict[str, Readable]:
    bits, group = how.get("num_bits"), how.get("group_size")
    is_known = how.get("strategy") in ("group", "channel") and (group is None or type(group) is int)
    if type(bits) is not int or bits not in (4, 8) or not is_known or how.get("actorder"):
        raise _refusal(config, f"weights of compressed-tensors in {plain(str(bits), 10)} bits, or reordered")
    return _by_suffix(
        config, stored, "weight_packed",
        lambda part: PackedIntegers(
            part("_packed"), part("_scale"), part("_shape"), part("_zero_point", optional=True), bits, group
        ),
    )  # fmt: skip


def _gptq(config: HfConfig, settings: Mapping[str, Any], stored: Stored) -> dict[str, Readable]:
    bits, group = settings.get("bits"), settings.get("group_size", 128)
    version = settings.get("checkpoint_format", "gptq")
    if bits not in (2, 4, 8) or version not in ("gptq", "gptq_v2") or type(group) is not int:
        raise _refusal(config, f"weights of GPTQ in {plain(str(bits), 10)} bits as {plain(str(version), 20)!r}")
    offset = 1 if version == "gptq" else 0
    return _by_suffix(
        config, stored, "qweight",
        lambda part: Gptq(
            part("qweight"), part("qzeros"), part("scales"), part("g_idx", optional=True), bits, group, offset
        ),
    )  # fmt: skip


def _awq(config: HfConfig, settings: Mapping[str, Any], stored: Stored) -> dict[str, Readable]:
    bits, group = settings.get("bits", settings.get("w_bit")), settings.get("group_size", settings.get("q_group_size"))
    version = str(settings.get("version", "gemm")).lower()
    if bits != 4 or version != "gemm" or type(group) is not int:
        raise _refusal(config, f"weights of AWQ in {plain(str(bits), 10)} bits as {plain(version, 20)!r}")
    return _by_suffix(
        config, stored, "qweight", lambda part: Awq(part("qweight"), part("qzeros"), part("scales"), group)
    )


def _bitsandbytes(config: HfConfig, settings: Mapping[str, Any], stored: Stored) -> dict[str, Readable]:
    if settings.get("load_in_8bit") or settings.get("_load_in_8bit"):
        raise _refusal(config, "weights of bitsandbytes in 8 bits")
    found: dict[str, Readable] = {}
    marks = [(name, name.partition(".quant_state.bitsandbytes__")) for name in stored]
    for mark, (weight, sign, _) in marks:
        if not sign:
            continue
        parts = {
            name.removeprefix(weight + "."): stored.pop(name) for name in [*stored] if name.startswith(weight + ".")
        }
        if weight not in stored:
            raise _refusal(config, f"tensor {plain(mark, 120)!r} without its weight")
        found[weight] = Bitsandbytes4.of(stored.pop(weight), parts)
    return found


def _scaled(config: HfConfig, stored: Stored, ending: str, block: tuple[int, ...] | None) -> dict[str, Readable]:
    """Weights that are multiplied by a scale for each block, row or tensor."""
    found: dict[str, Readable] = {}
    for name in [name for name in stored if name.endswith("weight" + ending)]:
        weight = name.removesuffix(ending)
        if weight not in stored:
            raise _refusal(config, f"tensor {plain(name, 120)!r} without its weight")
        found[weight] = Scaled.of(stored.pop(weight), stored.pop(name), block)
    return found


def _by_suffix(config: HfConfig, stored: Stored, suffix: str, make: Callable[[Any], Readable]) -> dict[str, Readable]:
    """Weights that are stored in several tensors, whose names differ in the end."""
    found: dict[str, Readable] = {}
    for name in [name for name in stored if name.endswith("." + suffix)]:
        start = name.removesuffix(suffix) + ("weight" if suffix == "weight_packed" else "")

        def part(ending: str, *, optional: bool = False, start: str = start) -> StoredTensor | None:
            tensor = stored.pop(start + ending, None)
            if tensor is None and not optional:
                raise _refusal(config, f"tensor {plain(start + ending, 120)!r} is missing")
            return tensor

        found[start if suffix == "weight_packed" else start + "weight"] = make(part)
    return found


def _block_of(config: HfConfig, settings: Mapping[str, Any], key: str) -> tuple[int, int] | None:
    block = settings.get(key)
    if block is None:
        return None
    if not isinstance(block, list) or len(block) != 2 or not all(_is_size(one) for one in block):
        raise _refusal(config, f"{key} is {plain(repr(block), 40)}")
    return block[0], block[1]


def _leave_out(stored: Stored, *endings: str) -> None:
    """Removes tensors that only the engine needs, for its activations and its cache."""
    for name in [name for name in stored if name.endswith(endings)]:
        del stored[name]


def _is_size(value: Any) -> bool:
    return type(value) is int and value > 0


def _refusal(config: HfConfig, what: str) -> InputError:
    return InputError(f"{config.path.parent}: {what}", _REMEDY)


_READERS: Mapping[str, Reader] = {
    "fp8": _fp8, "compressed-tensors": _compressed, "gptq": _gptq, "awq": _awq, "bitsandbytes": _bitsandbytes,
}  # fmt: skip
