"""The shape of a decoder, read from a GGUF header.

The family covered: Llama (and Mistral, which GGUF files under the same name), Qwen2 and Qwen3.
"""

from __future__ import annotations

from dataclasses import dataclass

from journeyman.errors import InputError
from journeyman.models.gguf_file import GgufFile

ARCHITECTURES = ("llama", "qwen2", "qwen3")
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Geometry:
    """Sizes of one decoder. All counts are in elements, not bytes."""

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

    @property
    def rotates_pairs(self) -> bool:
        """True where GGUF stores q and k with interleaved rotary pairs (the Llama family)."""
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
        """Parameters of all matrix products of a token, the head included; the embedding look-up is not one."""
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


def geometry_of(file: GgufFile) -> Geometry:
    """Reads the geometry from a GGUF header.

    Raises:
        InputError: the architecture is not one of ARCHITECTURES, or uses what the decoder does not compute.
    """
    metadata = file.metadata
    architecture = str(metadata.get("general.architecture"))
    if architecture not in ARCHITECTURES:
        raise InputError(
            f"{file.path}: architecture {architecture!r} is not supported",
            f"Use a base model of one of these: {', '.join(ARCHITECTURES)}",
        )
    _refuse_unsupported(file, architecture)

    def read(key: str, default: float | None = None) -> float:
        value = metadata.get(f"{architecture}.{key}", default)
        if not isinstance(value, int | float) or value <= 0:
            raise InputError(f"{file.path}: {architecture}.{key} is {value!r}", "Use a complete GGUF file")
        return value

    hidden, heads = int(read("embedding_length")), int(read("attention.head_count"))
    return Geometry(
        architecture=architecture,
        layers=int(read("block_count")),
        hidden=hidden,
        heads=heads,
        kv_heads=int(read("attention.head_count_kv", heads)),
        head_dim=int(read("attention.key_length", hidden // heads)),
        ffn=int(read("feed_forward_length")),
        vocab=file.tensors["token_embd.weight"].shape[0] if "token_embd.weight" in file.tensors else 0,
        context=int(read("context_length")),
        rope_theta=float(read("rope.freq_base", 10000.0)),
        rms_eps=float(read("attention.layer_norm_rms_epsilon")),
        tied_head="output.weight" not in file.tensors,
        qkv_bias="blk.0.attn_q.bias" in file.tensors,
        qk_norm="blk.0.attn_q_norm.weight" in file.tensors,
    )


def _refuse_unsupported(file: GgufFile, architecture: str) -> None:
    scaling = file.metadata.get(f"{architecture}.rope.scaling.type", "none")
    if scaling != "none":
        raise InputError(f"{file.path}: rotary scaling {scaling!r} is not supported", "Use a base without it")
    if file.metadata.get(f"{architecture}.expert_count", 0):
        raise InputError(f"{file.path}: mixtures of experts are not supported", "Use a dense base model")
    if "rope_freqs.weight" in file.tensors:
        raise InputError(f"{file.path}: rotary frequency factors are not supported", "Use a base without them")
