"""The training engine for architectures that our own decoder does not compute: `transformers` with `peft`, on the CPU.

It is slower than training.cpu: rows are computed one at a time, each with the beginning that it shares with others. The
base itself is in inference mode, so dropout that its config asks for is not applied; the adapter's is.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from journeyman.config import TrainConfig
from journeyman.errors import InputError
from journeyman.models.linear import Dropout
from journeyman.models.sizes import ModelSizes, Sizes
from journeyman.models.targets import adapted_names
from journeyman.models.transformers_model import blocks_of, load_model
from journeyman.training.batches import Pack
from journeyman.training.engine import Heard, KeyedPack, LossSum
from journeyman.training.optimizer import AdapterOptimizer
from journeyman.training.unpacking import Row, rows_of

_ADAPTER = "default"
"""peft's name for the only adapter of a model."""


class TransformersEngine:
    """An engine.TrainingEngine; the numbers are bit-identical whether activations are kept or recomputed.

    Args:
        folder: the base, a Hugging Face folder.
        sizes: of that base.
        recompute: recompute each layer in the backward pass instead of keeping its activations.

    Raises:
        InputError: a package is missing, or the base cannot be trained this way.
    """

    def __init__(
        self, folder: Path, sizes: ModelSizes, config: TrainConfig, dtype: torch.dtype, *, recompute: bool = False
    ) -> None:
        self._sizes, self._dtype = sizes, dtype
        base: Any = load_model(folder, dtype)
        names = adapted_names(list(sizes.linear), config.lora.targets)
        _refuse_unused(base, names, folder)
        self._takes_positions = "logits_to_keep" in inspect.signature(base.forward).parameters
        self._blocks = blocks_of(base)
        if recompute:
            _recompute(self._blocks)
        self._model, self._dropouts = _adapted(base, names, config)
        trained = {name: p for name, p in self._model.named_parameters() if p.requires_grad}
        self._parameters = {name.replace(f".{_ADAPTER}.", "."): p for name, p in trained.items()}
        assert len(self._parameters) == 2 * len(names)
        _initialize(self._parameters, config.seed)
        self._optimizer = AdapterOptimizer(self._parameters, config)

    @property
    def sizes(self) -> Sizes:
        return self._sizes

    def identity(self) -> str:
        dtype = str(self._dtype).removeprefix("torch.")
        return f"transformers {version('transformers')} peft {version('peft')} cpu {dtype}"

    def accumulate(self, packs: Sequence[KeyedPack], divisor: float, heard: Heard) -> LossSum:
        total, done = 0.0, 0
        with self._optimizer.unchanged_on_error():
            for one in packs:
                for number, row in enumerate(rows_of(one.pack)):
                    with _Told(self._blocks, len(row.ids_T), done, heard):
                        loss = self._loss(row, f"{one.key}/{number}") / divisor
                        loss.backward()  # type: ignore[no-untyped-call]
                    total += loss.item()
                    done += len(row.ids_T)
                    heard(done)
        return LossSum(total, sum(one.pack.label_weight for one in packs))

    def clip(self, most: float) -> float:
        return self._optimizer.clip(most)

    def step(self, learning_rate: float) -> None:
        self._optimizer.step(learning_rate)

    @torch.no_grad()
    def evaluate(self, packs: Sequence[Pack], heard: Heard) -> LossSum:
        total, done = 0.0, 0
        for one in packs:
            for row in rows_of(one):
                with _Told(self._blocks, len(row.ids_T), done, heard):
                    total += self._loss(row, None).item()
                done += len(row.ids_T)
                heard(done)
        return LossSum(total, sum(one.label_weight for one in packs))

    def adapter(self) -> dict[str, Tensor]:
        return self._optimizer.values()

    def state(self) -> dict[str, Tensor]:
        return self._optimizer.state()

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        self._optimizer.load_state(tensors)

    @torch.no_grad()
    def next_tokens(self, ids: Sequence[int], *, adapted: bool) -> dict[int, float]:
        """The log probability of every token after `ids`, with or without the adapter."""
        for dropout in self._dropouts:
            dropout.key = None
        with nullcontext() if adapted else self._model.disable_adapter():
            logits_V = self._model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        return dict(enumerate(logits_V.float().log_softmax(-1).tolist()))

    def memory_bytes(self) -> int:
        return int(psutil.Process().memory_info().rss)

    def close(self) -> None:
        del self._model, self._blocks, self._dropouts

    def _loss(self, row: Row, dropout_key: str | None) -> Tensor:
        """The summed, weighted loss of a row's labels, a float32 scalar."""
        for dropout in self._dropouts:
            dropout.key = dropout_key
        asked = {"logits_to_keep": row.source_L} if self._takes_positions else {}
        logits_LV = self._model(input_ids=row.ids_T[None], use_cache=False, **asked).logits[0]
        if not self._takes_positions:
            logits_LV = logits_LV[row.source_L]
        each_L = F.cross_entropy(logits_LV.float(), row.labels_L, reduction="none")
        return (each_L * row.weights_L).sum()


def parameter_name(module: str, side: str) -> str:
    """The name of a LoRA tensor in `peft`'s file format; `module`: its full name in the model."""
    return f"base_model.model.{module}.lora_{side}.weight"


class SeededDropout(nn.Module):
    """Dropout on the input of A, whose mask depends only on seed, key and module, so that it can be drawn again.

    Attributes:
        key: identifies step, pack and row; None: no dropout.
    """

    def __init__(self, share: float, seed: int, name: str) -> None:
        super().__init__()
        self.share, self.name = share, f"{seed}/{name}"
        self.key: str | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.key is None:
            return x
        seed = hashlib.blake2b(f"{self.name}/{self.key}".encode(), digest_size=8).digest()
        dropout = Dropout(self.share, int.from_bytes(seed))
        return x * dropout.mask(x.shape) / dropout.stays


class _Told:
    """Tells how far a row is, after each layer, forward and backward, as long as the block lasts."""

    def __init__(self, blocks: Sequence[nn.Module], tokens: int, before: int, heard: Heard) -> None:
        self._blocks, self._tokens, self._before, self._heard = blocks, tokens, before, heard

    def __enter__(self) -> None:
        count = 2 * len(self._blocks)
        self._hooks = [
            block.register_forward_hook(self._hook((number + 1) / count, 1 - (number + 1) / count))
            for number, block in enumerate(self._blocks)
        ]

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _hook(self, forward: float, backward: float) -> Any:
        def passed(_module: nn.Module, _inputs: object, made: object) -> None:
            self._heard(self._before + forward * self._tokens)
            x = made[0] if isinstance(made, tuple) else made
            if isinstance(x, Tensor) and x.requires_grad:
                x.register_hook(lambda _: self._heard(self._before + backward * self._tokens))  # type: ignore[no-untyped-call]

        return passed


def _adapted(base: Any, names: Sequence[str], config: TrainConfig) -> tuple[Any, list[SeededDropout]]:
    """The model with an adapter on the named layers, and the adapter's dropouts."""
    import peft

    lora = config.lora
    asked = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=list(names), bias="none", task_type="CAUSAL_LM"
    )
    with warnings.catch_warnings(action="ignore"):  # of what peft calls in transformers
        model = peft.get_peft_model(base, asked).eval()
    layers = {name: m for name, m in model.named_modules() if isinstance(m, peft.tuners.lora.LoraLayer)}
    found = {name.removeprefix("base_model.model.") for name in layers}
    assert found == set(names), f"peft adapted other layers: {sorted(found ^ set(names))}"
    dropouts = []
    for name, layer in layers.items() if lora.dropout else ():
        dropouts.append(SeededDropout(lora.dropout, config.seed, name))
        layer.lora_dropout[_ADAPTER] = dropouts[-1]
    return model, dropouts


@torch.no_grad()
def _initialize(parameters: Mapping[str, Tensor], seed: int) -> None:
    """Draws A as lora.Adapter does, in the order of the model, and sets B to zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in parameters.items():
        assert value.dtype == torch.float32, f"{name} is {value.dtype}"
        if ".lora_A." in name:
            bound = 1 / math.sqrt(value.shape[1])
            value.uniform_(-bound, bound, generator=generator)
        else:
            value.zero_()


def _recompute(blocks: Sequence[nn.Module]) -> None:
    """Makes each layer keep only its input. The library does that in training mode only, with the base's dropout."""
    for block in blocks:

        def forward(*inputs: Any, _whole: Any = block.forward, **named: Any) -> Any:
            if not torch.is_grad_enabled():
                return _whole(*inputs, **named)
            return checkpoint(_whole, *inputs, use_reentrant=False, preserve_rng_state=False, **named)

        block.forward = forward


@torch.no_grad()
def _refuse_unused(base: Any, names: Sequence[str], folder: Path) -> None:
    """Refuses layers whose weights the model reads without calling them: an adapter would change nothing there."""
    called: set[str] = set()
    hooks = [base.get_submodule(name).register_forward_hook(lambda *_, name=name: called.add(name)) for name in names]
    base(input_ids=torch.zeros(1, 2, dtype=torch.int64), use_cache=False)
    for hook in hooks:
        hook.remove()
    if unused := [name for name in names if name not in called]:
        raise InputError(
            f"{folder}: an adapter on {unused[0]} would have no effect in transformers ({len(unused)} such layers)",
            "Set train.lora.targets to layers of attention, such as ['q_proj', 'v_proj']",
        )
