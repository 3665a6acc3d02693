"""Every family of decoders computes what transformers computes, from a file that llama.cpp's script converted."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from journeyman.models.decoder import Decoder
from journeyman.models.geometry import Geometry, RotaryScaling
from journeyman.models.gguf_file import GgufFile
from journeyman.models.weights import load_decoder
from tiny_families import FAMILIES, tiny_family

LENGTH = 90  # more than three windows
TOLERANCE = 1e-5
"""Of the largest logit. Measured: up to 8e-7 for four layers, 3e-6 for 46 and 62."""


def _ids(length: int, seed: int = 1) -> Tensor:
    return torch.randint(3, 259, (length,), generator=torch.Generator().manual_seed(seed))


def _decoder(case: str, **options: Any) -> Decoder:
    file = GgufFile(tiny_family(case).path)
    return load_decoder(file, torch.float32, factors=file.geometry.factors(256), **options)


def _theirs(case: str, ids: Tensor) -> Tensor:
    logits: Tensor = tiny_family(case).model(ids[None]).logits[0]
    return logits


def _assert_same(ours: Tensor, theirs: Tensor) -> None:
    assert (ours - theirs).abs().max() < TOLERANCE * theirs.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("case", FAMILIES)
def test_logits_equal_transformers(case: str) -> None:
    decoder = _decoder(case)
    for length in (LENGTH, 25, 24, 10, 1):  # rows longer and shorter than a window
        _assert_same(decoder.logits(_ids(length), [length]), _theirs(case, _ids(length)))


@torch.no_grad()
@pytest.mark.parametrize("case", FAMILIES)
def test_rows_in_a_pack_do_not_see_each_other(case: str) -> None:
    """Rows longer and shorter than a window, and rows that share a beginning, at the positions of labels only."""
    decoder, cap = _decoder(case), tiny_family(case).model.config.to_dict().get("final_logit_softcapping")
    lengths, prefixes = [70, 5, 40, 50, 3, 20], [-1, -1, -1, 2, 2, 2]
    ids, starts = _ids(sum(lengths)), list(itertools.accumulate(lengths, initial=0))
    at: list[int] = []
    expected = []
    for start, length, prefix in zip(starts, lengths, prefixes, strict=False):
        own = ids[start : start + length]
        before = ids[starts[prefix] : starts[prefix] + lengths[prefix]] if prefix >= 0 else own[:0]
        labeled = range(length // 2, length)
        at += [start + place for place in labeled]
        expected.append(_theirs(case, torch.cat([before, own]))[len(before) + length // 2 :])
    hidden = decoder.hidden_states(ids, lengths, at_L=torch.tensor(at), prefixes=prefixes)
    logits = F.linear(hidden, decoder.weights.head_VD)
    _assert_same(logits if cap is None else torch.tanh(logits / cap) * cap, torch.cat(expected))


@torch.no_grad()
@pytest.mark.parametrize("case", FAMILIES)
def test_streamed_weights_are_the_same(case: str) -> None:
    ids = _ids(LENGTH)
    assert torch.equal(_decoder(case).logits(ids, [LENGTH]), _decoder(case, stream=True).logits(ids, [LENGTH]))


def _window(change: int) -> Callable[[Geometry], Geometry]:
    def changed(g: Geometry) -> Geometry:
        assert g.alternate is not None and g.alternate.window is not None
        return replace(g, alternate=replace(g.alternate, window=g.alternate.window + change))

    return changed


def _of_windows(**changes: Any) -> Callable[[Geometry], Geometry]:
    def changed(g: Geometry) -> Geometry:
        assert g.alternate is not None
        return replace(g, alternate=replace(g.alternate, **changes))

    return changed


CHANGES: dict[str, Callable[[Geometry], Geometry]] = {
    "a shorter window": _window(-1),
    "a longer window": _window(1),
    "no windows": lambda g: replace(g, alternate=None),
    "other layers": _of_windows(layers=(0, 2, 3)),
    "another base of frequencies": _of_windows(rope_theta=20000.0),
    "the scaling of the other layers": _of_windows(rotary=RotaryScaling(factor=8.0)),
    "no scaling": lambda g: replace(g, rotary=RotaryScaling()),
    "no cap of products": lambda g: replace(g, attention_cap=None),
    "no cap of logits": lambda g: replace(g, logit_cap=None),
    "the head's scale": lambda g: replace(g, attention_scale=None),
    "another scale of embeddings": lambda g: replace(g, embedding_scale=0.99 * g.embedding_scale),
}


@torch.no_grad()
@pytest.mark.parametrize(
    ("case", "change"),
    [(case, change) for case in ("gemma2, 27B", "gemma3, linear", "olmo3") for change in CHANGES
     if "scaling" not in change or case != "gemma2, 27B"
     if "cap of products" not in change or case == "gemma2, 27B"
     if "cap of logits" not in change or case != "olmo3"
     if "head's scale" not in change or case == "gemma2, 27B"
     if "scale of embeddings" not in change or case != "olmo3"],
)  # fmt: skip
def test_every_number_matters(case: str, change: str) -> None:
    """With one of them changed, the logits are others: the comparison above would fail."""
    decoder, ids = _decoder(case), _ids(LENGTH)
    ours = Decoder(CHANGES[change](decoder.geometry), decoder.weights)
    if change in ("no windows", "other layers"):
        for number, layer in enumerate(decoder.weights.layers):
            layer.alternate = ours.geometry.is_alternate(number)
    theirs = _theirs(case, ids)
    assert (ours.logits(ids, [LENGTH]) - theirs).abs().max() > 20 * TOLERANCE * theirs.abs().max()
