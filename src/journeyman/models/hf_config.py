"""Reads config.json of a Hugging Face folder, with the defaults that `transformers` has for its kind of model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.model_files import CONFIG
from journeyman.models.hf_model_types import MODEL_TYPES, ModelType

_MOST_BYTES = 4 << 20
_MOST, _MOST_NUMBER = 1 << 31, 3.4e38
_TIES = "tie_word_embeddings"
TEXT_CONFIG = {"gemma3": "gemma3_text", "mistral3": "mistral"}
"""`model_type` of models of texts and pictures → that of the model of texts in them, if `text_config` does not say."""


@dataclass(frozen=True)
class HfConfig:
    """config.json, with defaults; raises InputError with the file's name where a value cannot be used.

    Attributes:
        path: of the file.
        values: what the file says of the model of texts; of `text_config` if it has one.
        quantization: what it says about quantized weights; None: nothing.
        has_pictures: the model also has parts for pictures, which are left out.
    """

    path: Path
    model_type: str
    kind: ModelType
    values: Mapping[str, Any]
    quantization: Mapping[str, Any] | None = None
    has_pictures: bool = False

    def get(self, key: str) -> Any:
        """The value, unchecked: the file's, or the default; null in the file counts as the default of null keys."""
        return self.values[key] if key in self.values else self.kind.defaults.get(key)

    def number(self, key: str) -> float:
        """A positive finite number."""
        value = self.get(key)
        if not is_number(value) or value <= 0:
            raise self.refusal(key, value, "not a positive number")
        return float(value)

    def count(self, key: str, default: int | None = None) -> int:
        """A positive integer; `default` in place of null."""
        value = self.get(key)
        value = default if value is None else value
        if type(value) is not int or not 0 < value < _MOST:
            raise self.refusal(key, value, "not a positive integer")
        return int(value)

    def flag(self, key: str) -> bool:
        value = self.get(key)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise self.refusal(key, value, "neither true nor false")

    def texts(self, key: str, count: int) -> list[Any] | None:
        """A list with one entry per layer; None if there is none."""
        value = self.get(key)
        if value is not None and (not isinstance(value, list) or len(value) < count):
            raise self.refusal(key, value, f"not a list for {count} layers")
        return value

    def refusal(self, key: str, value: Any, why: str) -> InputError:
        return InputError(
            f"{self.path}: {key} is {plain(repr(value), 60)}, {why}", "Use a complete, unchanged checkpoint"
        )


def is_number(value: Any) -> TypeGuard[int | float]:
    """True for a number that single precision can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MOST_NUMBER


def read_config(folder: Path) -> HfConfig:
    """Reads and checks the file; executes nothing.

    Raises:
        InputError: no such file, not JSON, or of a model that is not one of MODEL_TYPES.
    """
    path = folder / CONFIG
    values = read_object(path)
    outer, text = values.get("model_type"), values.get("text_config")
    nested = outer if isinstance(outer, str) and outer in TEXT_CONFIG else None
    if nested is not None:
        text = text if isinstance(text, dict) else {}
        inner = text.get("model_type", TEXT_CONFIG[nested])
    else:
        inner = outer if text is None else None
    kind = MODEL_TYPES.get(inner) if isinstance(inner, str) else None
    if kind is None or not isinstance(inner, str):
        raise _not_supported(path, values)
    _check_class(path, values, kind.class_name, nested=nested is not None)
    if nested is None or not isinstance(text, dict):
        return HfConfig(path, inner, kind, values, _quantization(path, values))
    kind = replace(kind, defaults={**kind.defaults, _TIES: True})
    shown = {**text, **({_TIES: values[_TIES]} if _TIES in values else {})}
    return HfConfig(path, inner, kind, shown, _quantization(path, values, text), has_pictures=True)


def _check_class(path: Path, values: Mapping[str, Any], wanted: str, *, nested: bool) -> None:
    found = values.get("architectures")
    name = found[0] if isinstance(found, list) and found else None
    if name is None or name == wanted or (nested and str(name).endswith("ForConditionalGeneration")):
        return
    raise InputError(
        f"{path}: architectures is {plain(str(name), 60)!r}, which is no model that writes texts as {wanted} does",
        "Use the model that this one was made from, or another base",
    )


def _quantization(path: Path, *places: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for values in places:
        for key in ("quantization_config", "quantization", "compression_config"):
            if (found := values.get(key)) is not None:
                if not isinstance(found, dict):
                    raise InputError(f"{path}: {key} is not an object", "Use a complete, unchanged checkpoint")
                return {"quant_method": "mlx", **found} if key == "quantization" else found
    return None


def _not_supported(path: Path, values: Mapping[str, Any]) -> InputError:
    name = values.get("architectures")
    shown = plain(str(name[0] if isinstance(name, list) and name else values.get("model_type")), 60)
    code = ". Its code is in the folder (auto_map) and is never executed" if values.get("auto_map") else ""
    return InputError(
        f"{path}: a model {shown!r} (model_type {plain(str(values.get('model_type')), 40)!r}) is not supported{code}",
        f"Use a base with one of these values of model_type: {', '.join([*MODEL_TYPES, *TEXT_CONFIG])}",
    )


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a folder from elsewhere.

    Raises:
        InputError: no such file, too large, or not a JSON object with finite numbers.
    """
    remedy = "Download or copy the file again"
    if not path.is_file():
        raise InputError(f"{path}: no such file", "Download or copy all files of the model again")
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise InputError(f"{path}: more than {_MOST_BYTES >> 20} MB", "Use another checkpoint")
    if data.startswith(b"version https://git-lfs"):
        raise InputError(f"{path}: a pointer of Git LFS, not the file itself", f"Fetch it: git lfs pull -I {path.name}")

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not a number")

    try:
        found = json.loads(data.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        why = plain(str(error), 120) if data else "an empty file"
        raise InputError(f"{path}: not valid JSON: {why}", remedy) from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: not a JSON object", remedy)
    return found
