"""The shape of a decoder, and its tensors.

Supported architectures: Llama (and Mistral, which has the same name in GGUF), Qwen2 and Qwen3.
"""

from __future__ import annotations

from dataclasses import dataclass

ARCHITECTURES = ("llama", "qwen2", "qwen3")
GGUF_MODULE_NAMES = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}
"""Name in `transformers` → name in GGUF, inside a block."""
MODULES = tuple(GGUF_MODULE_NAMES)
YARN_BETA_FAST, YARN_BETA_SLOW = 32.0, 1.0
"""YaRN keeps frequencies that make more turns than the first within the original context, and divides those that make
fewer than the second by the whole factor (Peng et al., 2023, arXiv 2309.00071)."""


@dataclass(frozen=True)
class RotaryScaling:
    """How the rotary tables differ from those of `rope_theta` alone; the default changes nothing.

    Attributes:
        divisors: one for each of the head_dim / 2 frequencies (Llama 3.1); empty: no division.
        factor: divides all frequencies after `divisors`, or with YaRN the low ones only.
        yarn_context: with YaRN, the context before scaling, in tokens; None: linear scaling.
        amplitude: multiplies cosines and sines.
    """

    divisors: tuple[float, ...] = ()
    factor: float = 1.0
    yarn_context: int | None = None
    amplitude: float = 1.0


@dataclass(frozen=True)
class Geometry:
    """The sizes of a decoder. All counts are in elements, not bytes."""

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
    qkv_bias: bool
    qk_norm: bool
    rotary: RotaryScaling = RotaryScaling()

    @property
    def rotates_pairs(self) -> bool:
        """Whether GGUF stores q and k with interleaved rotary pairs (the Llama family)."""
        return self.architecture == "llama"

    def module_shape(self, module: str) -> tuple[int, int]:
        """(out_features, in_features) of one of MODULES."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (q, self.hidden),
            "k_proj": (kv, self.hidden),
            "v_proj": (kv, self.hidden),
            "o_proj": (self.hidden, q),
            "gate_proj": (self.ffn, self.hidden),
            "up_proj": (self.ffn, self.hidden),
            "down_proj": (self.hidden, self.ffn),
        }[module]

    @property
    def linear_parameters(self) -> int:
        """Parameters in the matrix products of a token, including the head but not the embedding look-up."""
        per_layer = sum(rows * columns for rows, columns in map(self.module_shape, MODULES))
        return self.layers * per_layer + self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters of the model, as `transformers` counts them."""
        kv = self.kv_heads * self.head_dim
        norms = self.hidden * (2 * self.layers + 1) + (2 * self.head_dim * self.layers if self.qk_norm else 0)
        biases = (self.heads * self.head_dim + 2 * kv) * self.layers if self.qkv_bias else 0
        embedding = 0 if self.tied_head else self.vocab * self.hidden
        return self.linear_parameters + norms + biases + embedding


def tensor_shapes(geometry: Geometry) -> dict[str, tuple[int, ...]]:
    """GGUF name → shape, for every tensor of a decoder with this geometry."""
    g, head = geometry, (geometry.head_dim,)
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (g.vocab, g.hidden), "output_norm.weight": (g.hidden,)}
    if not g.tied_head:
        shapes["output.weight"] = (g.vocab, g.hidden)
    if g.rotary.divisors:
        shapes["rope_freqs.weight"] = (g.head_dim // 2,)
    for layer in range(g.layers):
        of_layer: dict[str, tuple[int, ...]] = {"attn_norm.weight": (g.hidden,), "ffn_norm.weight": (g.hidden,)}
        for module, name in GGUF_MODULE_NAMES.items():
            of_layer[f"{name}.weight"] = g.module_shape(module)
            if g.qkv_bias and module in ("q_proj", "k_proj", "v_proj"):
                of_layer[f"{name}.bias"] = g.module_shape(module)[:1]
        if g.qk_norm:
            of_layer |= {"attn_q_norm.weight": head, "attn_k_norm.weight": head}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in of_layer.items()}
    return shapes
