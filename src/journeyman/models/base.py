"""The model that is tuned and served, as everything but its own reader sees it.

`opening.open_base` makes one from a file; GgufFile is the first implementation. Another format is another class with
these members: training, rendering, curation and serving ask for nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from journeyman.models.geometry import Geometry


@dataclass(frozen=True)
class TokenizerData:
    """What the tokenizer and the chat template are made of, as the base's file has it; nothing in it is checked.

    Attributes:
        kind: of tokenizer: 'gpt2' is byte-level BPE.
        split: the name of the pre-tokenizer.
        tokens: the text of each id.
        types: of each token: 1 normal, 2 unknown, 3 control, 4 user-defined, as GGUF numbers them.
        merges: pairs of tokens with a blank between them, in the order in which they apply.
        begin_id, end_id: of a text, and of an answer; None where the file names none.
        adds_begin: every prompt starts with `begin_id`.
        chat_template: in Jinja; None where the file has none.
    """

    kind: str | None
    split: str
    tokens: Sequence[str] | None
    types: Sequence[int] | None
    merges: Sequence[str] | None
    begin_id: int | None = None
    end_id: int | None = None
    adds_begin: bool = False
    chat_template: str | None = None

    def typed_tokens(self) -> list[tuple[str, int]]:
        """(token, type) of every id.

        Raises:
            ValueError: the file holds no tokens or types, or more of one than of the other.
        """
        if self.tokens is None or self.types is None:
            raise ValueError("the tokens or their types are missing")
        return list(zip(self.tokens, self.types, strict=True))


class Base(Protocol):
    """One base model, open for reading. Tensors have the names and the layout of GGUF (`blk.0.attn_q.weight`)."""

    @property
    def path(self) -> Path:
        """The file that the engine serves."""

    @property
    def sha256(self) -> str:
        """Of that file: the base's identity in manifests and fingerprints."""

    @property
    def geometry(self) -> Geometry:
        """The decoder's sizes; an InputError where it cannot be trained on."""

    @property
    def tokenizer(self) -> TokenizerData:
        """Its vocabulary and chat template."""

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, (out_features, in_features) for a matrix; an InputError where none has that name."""

    def storage(self, name: str) -> str:
        """The format in which a tensor is stored: F16, Q4_1 and the like."""

    def tensor(self, name: str) -> NDArray[np.float32]:
        """A tensor's values, dequantized, in its shape."""

    def rows(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """Rows `start` to `stop` (of the last axis's length each) of a tensor, dequantized; threads may call it."""

    def ref(self) -> BaseRef:
        """What another process opens it by."""


@dataclass(frozen=True)
class BaseRef:
    """Names a base to a worker process, which opens it once for all its rows. Small and picklable, as a Base is not."""

    path: Path

    def open(self) -> Base:
        """The base; raises as opening.open_base does."""
        from journeyman.models.opening import open_base

        return open_base(self.path)
