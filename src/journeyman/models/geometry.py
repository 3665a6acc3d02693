"""The sizes of a decoder, and its tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from journeyman.models.families import (
    FAMILIES,
    MIXTURE_MODULES,
    MODULES,
    Family,
    Mixture,
    gguf_parts,
    is_stacked,
    modules_holding,
)

YARN_BETA_FAST, YARN_BETA_SLOW = 32.0, 1.0
"""YaRN keeps frequencies that make more turns than the first within the original context, and divides those that make
fewer than the second by the whole factor (Peng et al., 2023, arXiv 2309.00071)."""
Factors = Literal["short", "long"]
"""Which of two sets of rotary divisors applies (LongRoPE: Ding et al., 2024, arXiv 2402.13753)."""
_CONTEXT_UNIT = 256
"""llama.cpp makes the context of a request a multiple of this number of tokens."""


@dataclass(frozen=True)
class RotaryScaling:
    """How the rotary tables differ from those of `rope_theta` alone; the default changes nothing.

    Attributes:
        divisors: one for each of the rotary_dim / 2 frequencies (Llama 3.1; of Phi-3, the short factors); empty: no
            division.
        factor: divides all frequencies after `divisors`, or with YaRN the low ones only.
        yarn_context: with YaRN, the context before scaling, in tokens; None: linear scaling.
        amplitude: multiplies cosines and sines.
        beta_fast, beta_slow: with YaRN, see YARN_BETA_FAST.
        long_above: the base has two sets of divisors, and the engine uses `long_divisors` instead of `divisors` if a
            request may have more tokens than this, whether it has or not. None: one set, or none. See
            Geometry.with_factors.
    """

    divisors: tuple[float, ...] = ()
    factor: float = 1.0
    yarn_context: int | None = None
    amplitude: float = 1.0
    beta_fast: float = YARN_BETA_FAST
    beta_slow: float = YARN_BETA_SLOW
    long_divisors: tuple[float, ...] = ()
    long_above: int | None = None


@dataclass(frozen=True)
class AlternateLayers:
    """Layers whose attention differs from that of the others.

    Attributes:
        layers: their numbers.
        window: a token attends to itself and the `window` - 1 tokens before it; None: to all before it.
        rope_theta: the base of their rotary frequencies; None: no rotary embedding.
    """

    layers: tuple[int, ...]
    window: int | None = None
    rope_theta: float | None = None
    rotary: RotaryScaling = RotaryScaling()


@dataclass(frozen=True)
class Temperature:
    """Queries are multiplied by 1 + scale · log(1 + ⌊position / context⌋) (Llama 4, Ministral 3)."""

    scale: float
    context: int


@dataclass(frozen=True)
class Experts:
    """How many experts a mixture has, and how many of them compute a token."""

    count: int
    used: int


@dataclass(frozen=True)
class Geometry:
    """The sizes of a decoder and the numbers of its computation. All counts are in elements, not bytes.

    Attributes:
        ffn: width of the feed-forward network, or of each expert's.
        biases: the modules with a bias.
        rotary_dim: the first elements of a head that are rotated; None: all.
        embedding_scale: multiplies embeddings.
        residual_scale: multiplies what attention and feed-forward add.
        attention_scale: multiplies the products of queries and keys; None: head_dim ** -0.5.
        attention_cap: these products are c · tanh(x / c) with this c; None: unchanged.
        logit_scale: multiplies the logits.
        logit_cap: as attention_cap, after logit_scale.
        unserved_window: the base was trained with a sliding window of this many tokens that the engine does not
            apply, so that training does not either.
        experts: None: one feed-forward network computes all tokens.
    """

    architecture: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    context: int
    rope_theta: float
    rms_eps: float
    tied_head: bool
    biases: tuple[str, ...] = ()
    rotary: RotaryScaling = RotaryScaling()
    rotary_dim: int | None = None
    alternate: AlternateLayers | None = None
    temperature: Temperature | None = None
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    attention_scale: float | None = None
    attention_cap: float | None = None
    logit_scale: float = 1.0
    logit_cap: float | None = None
    unserved_window: int | None = None
    experts: Experts | None = None

    @property
    def family(self) -> Family:
        return FAMILIES[self.architecture]

    @property
    def mixture(self) -> Mixture | None:
        """The traits of the experts; None if there are none."""
        return self.family.mixture if self.experts is not None else None

    @property
    def modules(self) -> tuple[str, ...]:
        """The linear layers of a block, under the names of `transformers`."""
        if self.experts is not None:
            return MIXTURE_MODULES
        return self.family.dense_modules

    def adapted_modules(self, targets: Sequence[str]) -> tuple[str, ...]:
        """The modules that an adapter for these `train.lora.targets` changes."""
        return modules_holding(self.modules, targets)

    def copies(self, module: str) -> int:
        """How many matrices of its shape a module has: one, or one for each expert."""
        return self.experts.count if self.experts is not None and is_stacked(module) else 1

    def also_changed(self, targets: Sequence[str]) -> tuple[str, ...]:
        """The modules that an adapter for `targets` changes although they are not among them."""
        adapted = self.adapted_modules(targets)
        return tuple(
            one for one in MODULES if one not in targets and modules_holding(self.modules, [one])[0] in adapted
        )

    def factors(self, context: int) -> Factors | None:
        """Which rotary divisors the engine uses if a request may have `context` tokens; None: there is no choice."""
        if self.rotary.long_above is None:
            return None
        served = -(-context // _CONTEXT_UNIT) * _CONTEXT_UNIT
        return "long" if served > self.rotary.long_above else "short"

    def with_factors(self, factors: Factors | None) -> Geometry:
        """This geometry with the rotary divisors that `factors` told; itself if there is no choice."""
        if self.rotary.long_above is None:
            return self
        assert factors is not None, "the base has two sets of rotary divisors"
        divisors = self.rotary.long_divisors if factors == "long" else self.rotary.divisors
        return replace(self, rotary=replace(self.rotary, divisors=divisors, long_divisors=(), long_above=None))

    def is_alternate(self, layer: int) -> bool:
        return self.alternate is not None and layer in self.alternate.layers

    def module_shape(self, module: str) -> tuple[int, int]:
        """(out_features, in_features) of one of `modules`; of each expert."""
        module = module.removeprefix("experts.")
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (q, self.hidden),
            "k_proj": (kv, self.hidden),
            "v_proj": (kv, self.hidden),
            "qkv_proj": (q + 2 * kv, self.hidden),
            "o_proj": (self.hidden, q),
            "gate_proj": (self.ffn, self.hidden),
            "up_proj": (self.ffn, self.hidden),
            "gate_up_proj": (2 * self.ffn, self.hidden),
            "down_proj": (self.hidden, self.ffn),
        }[module]

    def adapted_shapes(self, targets: Sequence[str]) -> Sequence[tuple[int, int]]:
        """(out_features, in_features) of each matrix that an adapter for these targets changes, in all layers."""
        of_layer = [[self.module_shape(module)] * self.copies(module) for module in self.adapted_modules(targets)]
        return [shape for shapes in of_layer for shape in shapes] * self.layers

    @property
    def cache_width(self) -> int:
        """Elements of keys and values that the engine keeps for a token, in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    @property
    def layer_parameters(self) -> int:
        """Parameters in the matrices of a block, those of all experts included."""
        return self._matrices({module: self.copies(module) for module in self.modules})

    @property
    def linear_parameters(self) -> int:
        """Parameters in the matrix products of a token, including the head but not the embedding look-up.

        Of the experts, only those that compute the token count.
        """
        used = self.experts.used if self.experts is not None else 1
        of_layer = self._matrices({module: min(used, self.copies(module)) for module in self.modules})
        return self.layers * of_layer + self.vocab * self.hidden

    def _matrices(self, copies: Mapping[str, int]) -> int:
        of_router = self.experts.count * self.hidden if self.experts is not None else 0
        return of_router + sum(count * math.prod(self.module_shape(module)) for module, count in copies.items())

    @property
    def parameters(self) -> int:
        """All parameters of the model, as `transformers` counts them."""
        shapes = tensor_shapes(self)
        return sum(math.prod(shape) for name, shape in shapes.items() if not name.startswith("rope_"))


def tensor_shapes(geometry: Geometry) -> dict[str, tuple[int, ...]]:
    """GGUF name → shape, for every tensor of a decoder with this geometry."""
    g, family = geometry, geometry.family
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (g.vocab, g.hidden), "output_norm.weight": (g.hidden,)}
    if not g.tied_head:
        shapes["output.weight"] = (g.vocab, g.hidden)
    frequencies, two_sets = ((g.rotary_dim or g.head_dim) // 2,), g.rotary.long_above is not None
    if g.rotary.divisors:
        shapes["rope_factors_short.weight" if two_sets else "rope_freqs.weight"] = frequencies
    if g.rotary.long_divisors:
        shapes["rope_factors_long.weight"] = frequencies
    of_layer: dict[str, tuple[int, ...]] = {f"{name}.weight": (g.hidden,) for name in family.norms.values()}
    for module in g.modules:
        rows, columns = g.module_shape(module)
        parts, stacked = gguf_parts(module), (g.copies(module),) if is_stacked(module) else ()
        for name in parts:
            of_layer[f"{name}.weight"] = (*stacked, rows // len(parts), columns)
            if module in g.biases:
                of_layer[f"{name}.bias"] = (*stacked, rows // len(parts))
    if g.experts is not None and g.mixture is not None:
        of_layer["ffn_gate_inp.weight"] = (g.experts.count, g.hidden)
        if g.mixture.biases:
            of_layer["ffn_gate_inp.bias"] = (g.experts.count,)
    if family.sinks:
        of_layer["attn_sinks.weight"] = (g.heads,)
    if family.qk_norm != "none":
        q, k = (g.heads, g.kv_heads) if family.qk_norm == "together" else (1, 1)
        of_layer |= {"attn_q_norm.weight": (q * g.head_dim,), "attn_k_norm.weight": (k * g.head_dim,)}
    return shapes | {f"blk.{layer}.{name}": shape for layer in range(g.layers) for name, shape in of_layer.items()}
