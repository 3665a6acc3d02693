"""A Hugging Face folder as a base: config.json, tensors in safetensors, a tokenizer.

Nothing in the folder is executed: no code that it brings (auto_map), no pickle. What transformers would compute
differently from the decoder is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.model_files import CONFIG, hash_of_model
from journeyman.models.base import BaseRef, PeftBase, StoredBlocks, TokenizerData
from journeyman.models.families import FAMILIES, gguf_name
from journeyman.models.geometry import Geometry, RotaryScaling, tensor_shapes
from journeyman.models.hf_config import read_config
from journeyman.models.hf_experts import is_of_experts, pieces_of_experts
from journeyman.models.hf_geometry import geometry_of
from journeyman.models.hf_names import EMBEDDING, HEAD, TEXT_MODEL, hf_name, is_left_out, name_on_hub, without_pictures
from journeyman.models.hf_quantized import readable_tensors
from journeyman.models.hf_tokenizer import tokenizer_of_folder
from journeyman.models.hf_values import FLOATS, Computed, Pieces, Readable, Shifted, Values
from journeyman.models.hf_weights import read_tensors
from journeyman.models.rounding import Intervals

_AGAIN = "Use a complete, unchanged checkpoint"
_ATTENTION, _FEED_FORWARD = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
_COMPARED_ROWS = 256

_FROM_CONFIG: Mapping[str, Callable[[RotaryScaling], tuple[float, ...]]] = {
    "rope_freqs.weight": lambda rotary: rotary.divisors,
    "rope_factors_short.weight": lambda rotary: rotary.divisors,
    "rope_factors_long.weight": lambda rotary: rotary.long_divisors,
}
"""Tensors of GGUF that follow from config.json."""


class HfFolder:
    """A folder with config.json and safetensors, opened for reading; implements Base.

    Attributes:
        config: config.json with its defaults.

    Raises:
        InputError: a file is missing, damaged or of another model, or the model is of a kind that is not supported.
    """

    interleaved = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = read_config(path)
        stored = read_tensors(path)
        if self.config.has_pictures:
            stored = {name: stored[own] for name, own in without_pictures(stored).items()}
        self._found = readable_tensors(self.config, {k: v for k, v in stored.items() if not is_left_out(k)})

    @property
    def sha256(self) -> str:
        return hash_of_model(self.path)

    @cached_property
    def geometry(self) -> Geometry:
        """See hf_geometry.geometry_of; refuses tensors that do not fit it."""
        return self._checked[0]

    @cached_property
    def tokenizer(self) -> TokenizerData:
        return tokenizer_of_folder(self.path)

    def ref(self) -> BaseRef:
        return BaseRef(self.path)

    @property
    def peft(self) -> PeftBase:
        return PeftBase(*name_on_hub(self.path), inside=TEXT_MODEL if self.config.has_pictures else "model")

    def shape(self, name: str) -> tuple[int, ...]:
        return self._named(name).shape

    def storage(self, name: str) -> str:
        return self._named(name).storage

    def tensor(self, name: str) -> Values:
        shape = self.shape(name)
        return self.rows(name, 0, math.prod(shape[:-1])).reshape(shape)

    def rows(self, name: str, start: int, stop: int) -> Values:
        return self._named(name).rows(start, stop)

    def bfloat16_rows(self, name: str, start: int, stop: int) -> NDArray[np.uint16] | None:
        return self._named(name).bfloat16_rows(start, stop)

    def blocks(self, name: str) -> StoredBlocks | None:
        return None

    def originals(self, name: str, start: int, stop: int) -> Intervals | None:
        return self._named(name).originals(start, stop)

    def _named(self, name: str) -> Readable:
        found = self._checked[1].get(name)
        if found is None:
            raise InputError(f"{self.path}: tensor {name!r} is missing", _AGAIN)
        return found

    @cached_property
    def _checked(self) -> tuple[Geometry, Mapping[str, Readable]]:
        """The geometry, and the tensors by their names in GGUF."""
        found = dict(self._found)
        tied = self._is_tied(found)
        if tied:
            head = found.pop(HEAD, None)
            found.setdefault(EMBEDDING, head) if head is not None else None
        if (layers := self.config.count("num_hidden_layers")) > len(found):
            raise InputError(f"{self.path}: {layers} layers in {len(found)} tensors", _AGAIN)
        geometry = geometry_of(self.config, tied_head=tied, biases=self._biases(found))
        named, left = dict[str, Readable](), set(found)
        for name, shape in tensor_shapes(geometry).items():
            if name in _FROM_CONFIG:
                named[name] = Computed(np.array(_FROM_CONFIG[name](geometry.rotary), np.float32))
                continue
            if is_of_experts(name):
                named[name] = Pieces(tuple(self._pieces(name, geometry, found, left)), shape)
                continue
            own = hf_name(name, geometry.family)
            tensor = self._taken(found, own, shape)
            left.discard(own)
            one_more = geometry.family.scales_embedding and own.endswith("norm.weight")
            named[name] = Shifted(tensor, 1.0) if one_more else tensor
        if left:
            raise InputError(f"{self.path}: tensor {plain(min(left), 120)!r} is unknown to the decoder", _AGAIN)
        return geometry, named

    def _pieces(
        self, name: str, geometry: Geometry, found: Mapping[str, Readable], left: set[str]
    ) -> Iterator[tuple[Readable, int]]:
        """The matrices of a stack of experts, each with its first row in the tensor that holds it."""
        for own, first, shape in pieces_of_experts(name, geometry):
            left.discard(own)
            yield self._taken(found, own, shape), first

    def _taken(self, found: Mapping[str, Readable], own: str, shape: tuple[int, ...]) -> Readable:
        tensor = found.get(own)
        if tensor is None:
            raise InputError(f"{self.path}: tensor {own!r} is missing", _AGAIN)
        if tensor.shape != shape:
            raise InputError(f"{self.path}: tensor {own!r} has the shape {tensor.shape}, not {shape}", _AGAIN)
        self._refuse_bad_values(own, tensor)
        return tensor

    def _is_tied(self, found: Mapping[str, Readable]) -> bool:
        """True if the head is the embedding. transformers ties them as config.json says, unless both are stored and
        differ; then it depends on the version and the engine, so a file that says so explicitly is refused."""
        config = self.config
        if not config.flag("tie_word_embeddings"):
            return False
        if HEAD not in found or EMBEDDING not in found or self._are_equal(found[HEAD], found[EMBEDDING]):
            return True
        if "tie_word_embeddings" in config.values:
            raise config.refusal("tie_word_embeddings", True, f"but {HEAD} and {EMBEDDING} are different")
        return False

    def _are_equal(self, one: Readable, other: Readable) -> bool:
        if one.shape != other.shape:
            return False
        rows = one.shape[0]
        return all(
            np.array_equal(one.rows(row, row + 1), other.rows(row, row + 1))
            for row in sorted({rows * step // _COMPARED_ROWS for step in range(_COMPARED_ROWS)})
        )

    def _biases(self, found: Mapping[str, Readable]) -> tuple[str, ...]:
        """The modules with a bias: those of the first layer, which must be those that config.json says."""
        config, family = self.config, FAMILIES[self.config.kind.architecture]
        wanted = set(config.kind.always_biased)
        wanted |= set(_ATTENTION) if config.flag("attention_bias") else set()
        wanted |= set(_FEED_FORWARD) if config.flag("mlp_bias") else set()
        there = {one for one in family.dense_modules if hf_name(f"blk.0.{gguf_name(one)}.bias", family) in found}
        if there != wanted:
            here, said = (", ".join(sorted(one)) or "no module" for one in (there, wanted))
            raise InputError(f"{self.path}: {here} has a bias, but by {CONFIG}, it is {said}", _AGAIN)
        return tuple(one for one in family.biases if one in there)

    def _refuse_bad_values(self, name: str, tensor: Readable) -> None:
        """Looks at one row, which is all of a vector; only where it can be read alone."""
        row = math.prod(tensor.shape[:-1]) // 2
        if tensor.storage in FLOATS and not np.isfinite(tensor.rows(row, row + 1)).all():
            raise InputError(f"{self.path}: tensor {name!r} has values that are no numbers", _AGAIN)
