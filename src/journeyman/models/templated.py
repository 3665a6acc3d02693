"""A base with the chat template that the user chose: everything else is the base's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from journeyman.models.base import Base, BaseRef, PeftBase, StoredBlocks, TemplateChoice, TokenizerData
from journeyman.models.geometry import Geometry
from journeyman.models.rounding import Intervals


class TemplatedBase:
    """A Base that passes everything on to another one, `inner`, except for the chat template."""

    def __init__(self, base: Base, choice: TemplateChoice) -> None:
        self.inner, self._choice = base, choice

    @property
    def path(self) -> Path:
        return self.inner.path

    @property
    def sha256(self) -> str:
        return self.inner.sha256

    @property
    def geometry(self) -> Geometry:
        return self.inner.geometry

    @property
    def tokenizer(self) -> TokenizerData:
        return replace(self.inner.tokenizer, choice=self._choice)

    @property
    def peft(self) -> PeftBase:
        return self.inner.peft

    @property
    def interleaved(self) -> bool:
        return self.inner.interleaved

    def shape(self, name: str) -> tuple[int, ...]:
        return self.inner.shape(name)

    def storage(self, name: str) -> str:
        return self.inner.storage(name)

    def tensor(self, name: str) -> NDArray[np.float32]:
        return self.inner.tensor(name)

    def rows(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        return self.inner.rows(name, start, stop)

    def bfloat16_rows(self, name: str, start: int, stop: int) -> NDArray[np.uint16] | None:
        return self.inner.bfloat16_rows(name, start, stop)

    def blocks(self, name: str) -> StoredBlocks | None:
        return self.inner.blocks(name)

    def originals(self, name: str, start: int, stop: int) -> Intervals | None:
        return self.inner.originals(name, start, stop)

    def ref(self) -> BaseRef:
        inner = self.inner.ref()
        return _TemplatedRef(inner.path, inner, self._choice)


@dataclass(frozen=True)
class _TemplatedRef(BaseRef):
    base: BaseRef
    choice: TemplateChoice

    def open(self) -> Base:
        return TemplatedBase(self.base.open(), self.choice)
