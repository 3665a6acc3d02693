"""Computes the loss of some packs and its gradients, in one of two ways with bit-identical results.

`keep` keeps every layer's activations for the backward pass. `recompute` keeps only the input of each layer and
recomputes the layer when its gradient is needed (Chen et al., 2016, arXiv 1604.06174): 1.5 times the work with a
fraction of the memory. It goes layer by layer over all packs, so that weights that are loaded on demand
(models.weights.StreamedWeights) are loaded twice per call, regardless of the number of packs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from journeyman.models.decoder import Decoder, LayerLora
from journeyman.training.batches import Pack
from journeyman.training.engine import Heard


@dataclass(frozen=True)
class AdaptedPack:
    """A pack with the adapter that applies to it, including the pack's own dropout."""

    pack: Pack
    lora: Sequence[LayerLora]

    def loss(self, decoder: Decoder, hidden_LD: Tensor, head_VD: Any) -> Tensor:
        """The summed, weighted loss of the labels, which final normalized hidden states predict."""
        return decoder.label_loss(hidden_LD, head_VD, self.pack.labels_L, self.pack.weights_L)


def keep(decoder: Decoder, parts: Sequence[AdaptedPack], labels: float, heard: Heard) -> float:
    """Adds the gradients of the summed loss divided by `labels` to the adapter, and returns that loss."""
    losses, before = [], 0
    for part in parts:
        tokens = part.pack.row_tokens

        def moved(share: float, start: int = before, tokens: int = tokens) -> None:
            heard(start + share * tokens)

        loss = pack_loss(decoder, part, moved) / labels
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
        before += tokens
        heard(before)
    return _sum(losses)


def recompute(decoder: Decoder, parts: Sequence[AdaptedPack], labels: float, heard: Heard) -> float:
    """Like `keep`, with memory for the activations of one layer and pack, and for the input of each layer."""
    layers, done = decoder.weights.layers, 0.0

    def moved(part: AdaptedPack, share: float) -> None:
        nonlocal done
        done += share / len(layers) * part.pack.row_tokens
        heard(done)

    entering: list[list[Tensor]] = []
    states = [decoder.embed(part.pack.ids_T) for part in parts]
    layouts = [decoder.layout(part.pack.lengths, x, part.pack.prefixes) for part, x in zip(parts, states, strict=True)]
    with torch.no_grad():
        for index, layer in enumerate(layers):
            entering.append(states)
            states = []
            for part, layout, x in zip(parts, layouts, entering[-1], strict=True):
                at_L = part.pack.source_L if index == len(layers) - 1 else None
                states.append(decoder.block(x, layer, part.lora[index], layout, at_L))
                moved(part, 0.25)
    gradients, losses, head_VD = [], [], decoder.weights.head_VD
    for part, x in zip(parts, states, strict=True):
        x.requires_grad_()
        loss = part.loss(decoder, decoder.final_norm(x), head_VD) / labels
        loss.backward()  # type: ignore[no-untyped-call]
        gradients.append(x.grad)
        losses.append(loss.detach())
    del head_VD, states
    for index in reversed(range(len(layers))):
        layer, states = layers[index], entering.pop()
        for place, (part, layout) in enumerate(zip(parts, layouts, strict=True)):
            at_L = part.pack.source_L if index == len(layers) - 1 else None
            x = states[place].requires_grad_(index > 0)
            y = decoder.block(x, layer, part.lora[index], layout, at_L)
            y.backward(gradients[place])  # type: ignore[no-untyped-call]
            gradients[place] = x.grad
            states[place] = x = y = None  # type: ignore[assignment,call-overload]  # frees them before the next pack
            moved(part, 0.75)
    return _sum(losses)


@torch.no_grad()
def loss_only(decoder: Decoder, parts: Sequence[AdaptedPack], heard: Heard) -> float:
    """The summed, weighted loss of all packs, layer by layer over all of them."""
    states = [decoder.embed(part.pack.ids_T) for part in parts]
    layouts = [decoder.layout(part.pack.lengths, x, part.pack.prefixes) for part, x in zip(parts, states, strict=True)]
    layers, done = decoder.weights.layers, 0.0
    for index, layer in enumerate(layers):
        for place, (part, layout) in enumerate(zip(parts, layouts, strict=True)):
            at_L = part.pack.source_L if index == len(layers) - 1 else None
            states[place] = decoder.block(states[place], layer, part.lora[index], layout, at_L)
            done += part.pack.row_tokens / len(layers)
            heard(done)
    head_VD = decoder.weights.head_VD
    return _sum(part.loss(decoder, decoder.final_norm(x), head_VD) for part, x in zip(parts, states, strict=True))


def _sum(losses: Iterable[Tensor]) -> float:
    """Their sum, in double precision. Reading a value waits for the device, so it is done once for all."""
    return sum(loss.item() for loss in list(losses))


def pack_loss(decoder: Decoder, part: AdaptedPack, on_progress: Heard | None = None) -> Tensor:
    """The summed, weighted loss of a pack's labels."""
    one = part.pack
    hidden_LD = decoder.hidden_states(one.ids_T, one.lengths, part.lora, on_progress, one.source_L, one.prefixes)
    return part.loss(decoder, hidden_LD, decoder.weights.head_VD)
