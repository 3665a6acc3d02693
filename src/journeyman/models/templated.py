"""A base with the chat template that the user chose: everything else is the base's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from journeyman.models.base import Base, BaseRef, TemplateChoice, TokenizerData
from journeyman.models.geometry import Geometry


class TemplatedBase:
    """A Base that passes everything on to another one, except for the chat template."""

    def __init__(self, base: Base, choice: TemplateChoice) -> None:
        self._base, self._choice = base, choice

    @property
    def path(self) -> Path:
        return self._base.path

    @property
    def sha256(self) -> str:
        return self._base.sha256

    @property
    def geometry(self) -> Geometry:
        return self._base.geometry

    @property
    def tokenizer(self) -> TokenizerData:
        return replace(self._base.tokenizer, choice=self._choice)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._base.shape(name)

    def storage(self, name: str) -> str:
        return self._base.storage(name)

    def tensor(self, name: str) -> NDArray[np.float32]:
        return self._base.tensor(name)

    def rows(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        return self._base.rows(name, start, stop)

    def ref(self) -> BaseRef:
        inner = self._base.ref()
        return _TemplatedRef(inner.path, inner, self._choice)


@dataclass(frozen=True)
class _TemplatedRef(BaseRef):
    base: BaseRef
    choice: TemplateChoice

    def open(self) -> Base:
        return TemplatedBase(self.base.open(), self.choice)
