"""One pass over the frozen base for packs of several adapters: the packs become one, and each keeps its adapter.

Rows attend only to themselves and to their own prefix, and everything else is computed token by token, so packs can be
concatenated without changing what is computed for any of them. Only the low-rank updates are computed pack by pack
(models.linear.Portions), and the loss, because each adapter needs its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from journeyman.models.decoder import AT_ALL_TOKENS, Decoder, LayerLora
from journeyman.models.linear import Portions
from journeyman.training.batches import Pack
from journeyman.training.gradients import AdaptedPack


@dataclass(frozen=True)
class JointPack(AdaptedPack):
    """Several packs as one, each with its own adapter and with the divisor of its own step.

    Attributes:
        labels: the number of labels of each.
        divisors: what each loss is divided by.
        losses: of each pack, divided; filled by `loss`.
    """

    labels: Sequence[int]
    divisors: Sequence[float]
    losses: list[Tensor] = field(default_factory=list)

    def loss(self, decoder: Decoder, hidden_LD: Tensor, head_VD: Any) -> Tensor:
        """The sum of the packs' losses, each divided by its divisor."""
        one = self.pack
        split = (torch.split(tensor, list(self.labels)) for tensor in (hidden_LD, one.labels_L, one.weights_L))
        losses = [
            decoder.label_loss(hidden, head_VD, labels, weights) / divisor
            for hidden, labels, weights, divisor in zip(*split, self.divisors, strict=True)
        ]
        self.losses[:] = [loss.detach() for loss in losses]
        return torch.stack(losses).sum()


def joint(parts: Sequence[AdaptedPack], divisors: Sequence[float]) -> JointPack:
    """Packs of several adapters as one; no base with experts, whose tokens are sorted by expert."""
    packs = [part.pack for part in parts]
    return JointPack(_concatenated(packs), _layers(parts), [len(one.labels_L) for one in packs], list(divisors))


def _concatenated(packs: Sequence[Pack]) -> Pack:
    """The packs one after another. The segments without a prefix have another negative number in each of them."""
    lengths: list[int] = []
    prefixes: list[int] = []
    sources: list[Tensor] = []
    tokens = 0
    for number, one in enumerate(packs):
        prefixes += [prefix + len(lengths) if prefix >= 0 else -1 - number for prefix in one.prefixes]
        lengths += one.lengths
        sources.append(one.source_L + tokens)
        tokens += len(one.ids_T)
    return Pack(
        ids_T=torch.cat([one.ids_T for one in packs]),
        lengths=lengths,
        prefixes=prefixes,
        source_L=torch.cat(sources),
        labels_L=torch.cat([one.labels_L for one in packs]),
        weights_L=torch.cat([one.weights_L for one in packs]),
        row_tokens=sum(one.row_tokens for one in packs),
    )


def _layers(parts: Sequence[AdaptedPack]) -> list[LayerLora]:
    """The adapters of all packs, layer by layer."""
    tokens, labels = ([len(getattr(part.pack, name)) for part in parts] for name in ("ids_T", "source_L"))
    made: list[LayerLora] = []
    for index in range(count := len(parts[0].lora)):
        of_layer = [part.lora[index] for part in parts]
        made.append(
            {
                module: Portions(
                    labels if index == count - 1 and module not in AT_ALL_TOKENS else tokens,
                    [one.get(module) for one in of_layer],
                )
                for module in dict.fromkeys(module for one in of_layer for module in one)
            }
        )
    return made
