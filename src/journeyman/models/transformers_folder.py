"""A Hugging Face folder of an architecture that our own decoder does not compute, as a base.

`transformers` trains it, and llama.cpp's converter lays it out for the engine; here only its files are checked. What
one of them cannot do is refused before training.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.model_files import CONFIG, hash_of_model
from journeyman.models.adapter_conversion import engine_architecture, is_convertible
from journeyman.models.base import BaseRef, PeftBase, StoredBlocks, TokenizerData
from journeyman.models.geometry import Geometry
from journeyman.models.hf_config import TEXT_CONFIG, read_object
from journeyman.models.hf_model_types import MODEL_TYPES
from journeyman.models.hf_names import name_on_hub
from journeyman.models.hf_tokenizer import tokenizer_of_folder
from journeyman.models.hf_values import Values
from journeyman.models.hf_weights import read_tensors
from journeyman.models.rounding import Intervals
from journeyman.models.sizes import ModelSizes

_ANOTHER = "Use another base"
_BESIDE_TEXT = ("vision_config", "audio_config", "speech_config", "image_token_id", "video_token_id")


def is_other_architecture(folder: Path) -> bool:
    """Whether config.json names an architecture that our own decoder does not compute.

    Raises:
        InputError: no config.json, or it is damaged.
    """
    kind = read_object(folder / CONFIG).get("model_type")
    return isinstance(kind, str) and kind not in MODEL_TYPES and kind not in TEXT_CONFIG


class TransformersFolder:
    """A folder with config.json, safetensors and a tokenizer; implements Base, except for single tensors.

    Attributes:
        class_name: of the model in `transformers`.

    Raises:
        InputError: a file is missing or damaged, a package is missing, or the model cannot be trained or served.
    """

    interleaved = False

    def __init__(self, path: Path) -> None:
        self.path = path
        read_tensors(path)
        self.class_name = _checked_class(path / CONFIG, read_object(path / CONFIG))

    @property
    def sha256(self) -> str:
        return hash_of_model(self.path)

    @cached_property
    def sizes(self) -> ModelSizes:
        """The sizes of the model; raises InputError if no adapter could be trained on it, or none served."""
        if not is_convertible(self.class_name):
            raise InputError(
                f"{self.path}: llama.cpp has no converter for {self.class_name}, so the engine could not serve it",
                _ANOTHER,
            )
        from journeyman.models.transformers_model import model_sizes  # imports torch

        sizes = model_sizes(self.path)
        if not sizes.linear:
            raise InputError(f"{self.path}: {self.class_name} has no linear layer that an adapter can change", _ANOTHER)
        return sizes

    @property
    def engine_architecture(self) -> str:
        """What the engine calls its architecture; see adapter_conversion.engine_architecture."""
        return engine_architecture(self.class_name)

    @cached_property
    def tokenizer(self) -> TokenizerData:
        return tokenizer_of_folder(self.path)

    def ref(self) -> BaseRef:
        return BaseRef(self.path)

    @property
    def peft(self) -> PeftBase:
        return PeftBase(*name_on_hub(self.path))

    @property
    def geometry(self) -> Geometry:
        self._refuse()

    def shape(self, name: str) -> tuple[int, ...]:
        self._refuse()

    def storage(self, name: str) -> str:
        self._refuse()

    def tensor(self, name: str) -> Values:
        self._refuse()

    def rows(self, name: str, start: int, stop: int) -> Values:
        self._refuse()

    def bfloat16_rows(self, name: str, start: int, stop: int) -> NDArray[np.uint16] | None:
        self._refuse()

    def blocks(self, name: str) -> StoredBlocks | None:
        self._refuse()

    def originals(self, name: str, start: int, stop: int) -> Intervals | None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise InputError(
            f"{self.path}: journeyman's own decoder does not compute {self.class_name}; only transformers does",
            _ANOTHER,
        )


def _checked_class(path: Path, values: Mapping[str, Any]) -> str:
    """The class that config.json names, after checking that `transformers` has it and that it writes text."""
    from journeyman.models.transformers_model import is_kind_of_model, written_by  # imports torch

    names, kind = values.get("architectures"), values.get("model_type")
    if not isinstance(kind, str) or not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        shown = f"{path}: does not name one class in `architectures`, and a `model_type`"
        if values.get("auto_map"):
            kind_shown = plain(repr(kind), 40)
            shown += f" ({kind_shown}); it needs code from its folder (auto_map), which is never executed"
        raise InputError(shown, _ANOTHER)
    shown = f"{path}: a model {plain(repr(names[0]), 60)} (model_type {plain(repr(kind), 40)})"
    if not is_kind_of_model(kind):
        if values.get("auto_map"):
            raise InputError(f"{shown} needs code from its folder (auto_map), which is never executed", _ANOTHER)
        raise InputError(f"{shown} is unknown to transformers", "Install a newer transformers, or use another base")
    if any(key in values for key in _BESIDE_TEXT):
        raise InputError(f"{shown} is also for pictures or sound, which is not supported", "Use a model of texts")
    if names[0] not in written_by(kind):
        raise InputError(
            f"{shown} is not a model that continues a text", "Use a model for text generation (ForCausalLM)"
        )
    quantized = values.get("quantization_config")
    if quantized is not None:
        method = quantized.get("quant_method") if isinstance(quantized, dict) else quantized
        raise InputError(
            f"{shown} is quantized ({plain(str(method), 40)}), and is not trained in this form",
            "Use the folder that it was quantized from",
        )
    return names[0]
