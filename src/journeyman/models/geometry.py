"""The sizes of a decoder, and its tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from journeyman.models.families import FAMILIES, Family, gguf_name

YARN_BETA_FAST, YARN_BETA_SLOW = 32.0, 1.0
"""YaRN keeps frequencies that make more turns than the first within the original context, and divides those that make
fewer than the second by the whole factor (Peng et al., 2023, arXiv 2309.00071)."""


@dataclass(frozen=True)
class RotaryScaling:
    """How the rotary tables differ from those of `rope_theta` alone; the default changes nothing.

    Attributes:
        divisors: one for each of the rotary_dim / 2 frequencies (Llama 3.1); empty: no division.
        factor: divides all frequencies after `divisors`, or with YaRN the low ones only.
        yarn_context: with YaRN, the context before scaling, in tokens; None: linear scaling.
        amplitude: multiplies cosines and sines.
        beta_fast, beta_slow: with YaRN, see YARN_BETA_FAST.
    """

    divisors: tuple[float, ...] = ()
    factor: float = 1.0
    yarn_context: int | None = None
    amplitude: float = 1.0
    beta_fast: float = YARN_BETA_FAST
    beta_slow: float = YARN_BETA_SLOW


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
class Geometry:
    """The sizes of a decoder and the numbers of its computation. All counts are in elements, not bytes.

    Attributes:
        biases: the modules with a bias.
        rotary_dim: the first elements of a head that are rotated; None: all.
        embedding_scale: multiplies embeddings.
        residual_scale: multiplies what attention and feed-forward add.
        attention_scale: multiplies the products of queries and keys; None: head_dim ** -0.5.
        attention_cap: these products are c · tanh(x / c) with this c; None: unchanged.
        logit_scale: multiplies the logits.
        logit_cap: as attention_cap, after logit_scale.
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

    @property
    def family(self) -> Family:
        return FAMILIES[self.architecture]

    @property
    def modules(self) -> tuple[str, ...]:
        """The linear layers of a block."""
        return self.family.modules

    def adapted_modules(self, targets: Sequence[str]) -> tuple[str, ...]:
        """The modules that an adapter for these `train.lora.targets` changes."""
        return self.family.adapted(targets)

    def is_alternate(self, layer: int) -> bool:
        return self.alternate is not None and layer in self.alternate.layers

    def module_shape(self, module: str) -> tuple[int, int]:
        """(out_features, in_features) of one of `modules`."""
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

    @property
    def layer_parameters(self) -> int:
        """Parameters in the matrices of a block."""
        return sum(rows * columns for rows, columns in map(self.module_shape, self.modules))

    @property
    def linear_parameters(self) -> int:
        """Parameters in the matrix products of a token, including the head but not the embedding look-up."""
        return self.layers * self.layer_parameters + self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters of the model, as `transformers` counts them."""
        shapes = tensor_shapes(self)
        shapes.pop("rope_freqs.weight", None)
        return sum(map(math.prod, shapes.values()))


def tensor_shapes(geometry: Geometry) -> dict[str, tuple[int, ...]]:
    """GGUF name → shape, for every tensor of a decoder with this geometry."""
    g, family = geometry, geometry.family
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (g.vocab, g.hidden), "output_norm.weight": (g.hidden,)}
    if not g.tied_head:
        shapes["output.weight"] = (g.vocab, g.hidden)
    if g.rotary.divisors:
        shapes["rope_freqs.weight"] = ((g.rotary_dim or g.head_dim) // 2,)
    of_layer: dict[str, tuple[int, ...]] = {f"{name}.weight": (g.hidden,) for name in family.norms.values()}
    for module in family.modules:
        of_layer[f"{gguf_name(module)}.weight"] = g.module_shape(module)
        if module in g.biases:
            of_layer[f"{gguf_name(module)}.bias"] = g.module_shape(module)[:1]
    if family.qk_norm != "none":
        q, k = (g.heads, g.kv_heads) if family.qk_norm == "all" else (1, 1)
        of_layer |= {"attn_q_norm.weight": (q * g.head_dim,), "attn_k_norm.weight": (k * g.head_dim,)}
    return shapes | {f"blk.{layer}.{name}": shape for layer in range(g.layers) for name, shape in of_layer.items()}
