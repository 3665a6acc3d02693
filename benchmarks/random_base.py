"""Bases with the geometry of real ones and random blocks, for benchmarks of time and memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType


@dataclass(frozen=True)
class Shape:
    """A decoder of the Llama family."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    ffn: int
    vocab: int


def write_base(path: Path, shape: Shape) -> None:
    """A llama with random blocks in Q8_0, whose values have a standard deviation of 1/sqrt(inputs)."""
    rng, q8 = np.random.default_rng(0), GGMLQuantizationType.Q8_0
    size = shape.hidden // shape.heads
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(8192)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(100000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(shape.vocab)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([f"t{number}" for number in range(shape.vocab)])
    writer.add_token_merges(["t 0"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")

    def matrix(name: str, rows: int, columns: int) -> None:
        blocks = rng.integers(0, 256, (rows, columns // 32, 34), dtype=np.uint8)
        scale = np.array([columns**-0.5 / 73.9], dtype=np.float16)  # 73.9: the deviation of a signed byte
        blocks[..., :2] = scale.view(np.uint8)
        writer.add_tensor(name, blocks.reshape(rows, -1), raw_dtype=q8)

    ones = np.ones(shape.hidden, dtype=np.float32)
    matrix("token_embd.weight", shape.vocab, shape.hidden)
    writer.add_tensor("output_norm.weight", ones)
    for layer in range(shape.layers):
        at = f"blk.{layer}."
        writer.add_tensor(at + "attn_norm.weight", ones)
        writer.add_tensor(at + "ffn_norm.weight", ones)
        matrix(at + "attn_q.weight", shape.heads * size, shape.hidden)
        matrix(at + "attn_k.weight", shape.kv_heads * size, shape.hidden)
        matrix(at + "attn_v.weight", shape.kv_heads * size, shape.hidden)
        matrix(at + "attn_output.weight", shape.hidden, shape.heads * size)
        matrix(at + "ffn_gate.weight", shape.ffn, shape.hidden)
        matrix(at + "ffn_up.weight", shape.ffn, shape.hidden)
        matrix(at + "ffn_down.weight", shape.hidden, shape.ffn)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
