"""A Hugging Face folder as `transformers` and `peft` load it, to see what other programs would compute with it."""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from journeyman.models.transformers_model import load_model, offline
from journeyman.training.hardware import compute_dtype


class Reloaded:
    """A folder with or without an adapter. Everything is computed anew for each token: for short texts only."""

    def __init__(self, folder: Path, adapter: Path | None, precision: str) -> None:
        """Raises InputError if `transformers` cannot load the folder.

        Args:
            adapter: the folder with adapter_config.json and adapter_model.safetensors.
            precision: of the computation, float32 or bfloat16.
        """
        self._model = load_model(folder, compute_dtype(precision))
        if adapter is not None:
            import peft

            with offline(), warnings.catch_warnings(action="ignore"):  # of what peft calls in transformers
                self._model = peft.PeftModel.from_pretrained(self._model, str(adapter), local_files_only=True).eval()

    @torch.no_grad()
    def _after(self, ids: Sequence[int]) -> Tensor:
        """The log probability of every token after `ids`."""
        likely_V: Tensor = self._model(torch.tensor([list(ids)])).logits[0, -1].float().log_softmax(-1)
        return likely_V

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """`count` tokens after `ids`, each the likeliest one; tokens that end an answer end nothing here."""
        found = list(ids)
        for _ in range(count):
            found.append(int(self._after(found).argmax()))
        return found[len(ids) :]

    def next_tokens(self, ids: Sequence[int], count: int) -> Mapping[int, float]:
        """Log probabilities of the `count` likeliest tokens after `ids`."""
        likely = self._after(ids)
        values, tokens = likely.topk(min(count, len(likely)))
        return dict(zip(tokens.tolist(), values.tolist(), strict=True))


def library_version(adapted: bool) -> str:
    """The packages that compute it, with their versions."""
    packages = ("transformers", "peft") if adapted else ("transformers",)
    return " ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)


def library_missing(adapted: bool) -> str | None:
    """The first of these packages that is not installed."""
    for name in ("transformers", *(["peft"] if adapted else [])):
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return name
    return None
