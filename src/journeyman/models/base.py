"""The interface of the base model, which is tuned and served.

`opening.open_base` opens one from a file; GgufFile is the first implementation. Another format needs only another
class with these members: training, rendering, curation and serving use nothing else.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from journeyman.models.geometry import Geometry
from journeyman.models.rounding import Intervals

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Types of tokens, in GGUF's numbers."""


@dataclass(frozen=True)
class TemplateChoice:
    """The chat template that the user chose, and what it gets besides the conversation.

    Attributes:
        name: how the user names it: one of journeyman's own, or a file; "" for the base's own template.
        source: in Jinja; None for the base's own.
        options: the template's variables, such as `enable_thinking`.
        date: today's date for a template that writes it; None: the template's own default, or a fixed one.
    """

    name: str = ""
    source: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    date: datetime.date | None = None


@dataclass(frozen=True)
class TokenizerData:
    """The data of tokenizer and chat template as stored in the base's file, unchecked.

    Attributes:
        kind: the kind of tokenizer: 'gpt2' is byte-level BPE, 'llama' is SentencePiece BPE.
        split: the name of the pre-tokenizer, which only byte-level BPE has; see models/pre_tokenizers.py.
        tokens: the text of each id.
        types: the type of each token: NORMAL, UNKNOWN, CONTROL, …
        merges: pairs of tokens separated by a space, in the order in which they apply; for byte-level BPE.
        begin_id, end_id: tokens that begin a text and end an answer; None if the file names none.
        adds_begin: every prompt starts with `begin_id`.
        chat_template: in Jinja; None if the file has none.
        scores: one for each token; for SentencePiece BPE, which merges the pair with the highest one first.
        adds_space: a space precedes a text, unless a text that does not end with a special token comes before it.
        adds_end: every prompt ends with `end_id`.
        more_end_ids: other tokens that end an answer, as far as the file names them.
        model_name: the engine treats tokens of some models in their own way, and goes by this name.
        tool_template: the template that the file names for conversations with tools; None if it has none.
        choice: the user's choice; None: the file's own template, with its defaults.
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
    scores: Sequence[float] | None = None
    adds_space: bool = False
    adds_end: bool = False
    more_end_ids: Sequence[int] = ()
    model_name: str | None = None
    tool_template: str | None = None
    choice: TemplateChoice | None = None

    def typed_tokens(self) -> list[tuple[str, int]]:
        """(token, type) of every id.

        Raises:
            ValueError: the file has no tokens or types, or not the same number of both.
        """
        if self.tokens is None or self.types is None:
            raise ValueError("the tokens or their types are missing")
        return list(zip(self.tokens, self.types, strict=True))


@dataclass(frozen=True)
class PeftBase:
    """The model that an adapter in peft's format belongs to.

    Attributes:
        name: a repo of the hub, a folder, or a file's name if transformers does not load it.
        revision: the commit in the repo.
        inside: where the decoder is in the model of transformers.
    """

    name: str
    revision: str | None = None
    inside: str = "model"


@dataclass(frozen=True)
class StoredBlocks:
    """Where the blocks of a quantized tensor lie, as GGUF stores them.

    Attributes:
        kind: their format, such as Q4_K.
        path, offset: the file, and the first byte there; rows follow one another.
        rows, row_bytes: how many rows, and the bytes of each.
    """

    kind: str
    path: Path
    offset: int
    rows: int
    row_bytes: int


class Base(Protocol):
    """A base model, opened for reading. Tensors have the names and the values of GGUF (`blk.0.attn_q.weight`)."""

    @property
    def path(self) -> Path:
        """The file that the engine serves; the first one if the base is split."""

    @property
    def sha256(self) -> str:
        """Identifies the base in manifests and fingerprints: see model_files.hash_of_model."""

    @property
    def geometry(self) -> Geometry:
        """The decoder's sizes; raises InputError if it cannot be trained."""

    @property
    def tokenizer(self) -> TokenizerData:
        """Its vocabulary and chat template."""

    @property
    def peft(self) -> PeftBase:
        """How peft is told which model an adapter belongs to."""

    @property
    def interleaved(self) -> bool:
        """True if the rows of q and k lie as rotary pairs, as GGUF has them in some families; otherwise as halves."""

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, (out_features, in_features) for a matrix; raises InputError if there is no such tensor."""

    def storage(self, name: str) -> str:
        """The format in which a tensor is stored, such as F16 or Q4_1."""

    def tensor(self, name: str) -> NDArray[np.float32]:
        """A tensor's values, dequantized, in its shape."""

    def rows(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """Rows `start` to `stop` (along the last axis) of a tensor, dequantized; thread-safe."""

    def bfloat16_rows(self, name: str, start: int, stop: int) -> NDArray[np.uint16] | None:
        """The same rows as bits of bfloat16; None if that is not how the tensor is stored."""

    def blocks(self, name: str) -> StoredBlocks | None:
        """Where the tensor is stored in blocks of GGUF; None if it is stored otherwise."""

    def originals(self, name: str, start: int, stop: int) -> Intervals | None:
        """Between which values those lie that were rounded to these rows; None if the format does not tell."""

    def ref(self) -> BaseRef:
        """A reference with which another process can open it."""


@dataclass(frozen=True)
class Vocabulary:
    """What rows are rendered with: all that the workers of `curate` need of a base, on whatever machine they are.

    Attributes:
        path: the base's, for messages; nothing is read there.
    """

    path: Path
    tokenizer: TokenizerData


@dataclass(frozen=True)
class BaseRef:
    """Refers to a base for worker processes, which open it once for all rows. Unlike a Base, small and picklable."""

    path: Path

    def open(self) -> Base:
        """Opens the base; raises as opening.open_base does."""
        from journeyman.models.opening import open_base

        return open_base(self.path)
