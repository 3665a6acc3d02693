"""Tiny models with a given vocabulary, and the engine's ids for texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tokenizers.pre_tokenizers import ByteLevel

from journeyman.inference.llama import LlamaEngine
from journeyman.models.base import TokenizerData
from journeyman.models.gguf_file import GgufFile
from journeyman.protocols import EngineSettings
from journeyman.rendering.tokenizer import Tokenizer, tokenizer_of

ECHO = "{{ messages[0].content }}"


def write_vocabulary(
    path: Path,
    kind: str,
    tokens: Sequence[str],
    types: Sequence[int],
    *,
    pre: str | None = None,
    merges: Sequence[str] | None = None,
    scores: Sequence[float] | None = None,
    template: str = ECHO,
    extend: Callable[[gguf.GGUFWriter], None] = lambda _: None,
) -> Path:
    """A model of one layer with this vocabulary, which the engine can load."""
    hidden, rng = 32, np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(hidden)
    writer.add_block_count(1)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model(kind)
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(list(tokens))
    writer.add_token_types(list(types))
    if merges is not None:
        writer.add_token_merges(list(merges))
    if scores is not None:
        writer.add_token_scores(list(scores))
    writer.add_chat_template(template)
    extend(writer)

    def matrix(name: str, rows: int, columns: int = hidden) -> None:
        writer.add_tensor(name, (rng.standard_normal((rows, columns)) / 6).astype(np.float32))

    matrix("token_embd.weight", len(tokens))
    writer.add_tensor("output_norm.weight", np.ones(hidden, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        matrix(f"blk.0.{name}.weight", hidden)
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", np.ones(hidden, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_data(path: Path, data: TokenizerData, template: str = ECHO) -> Path:
    """`write_vocabulary` of a SentencePiece vocabulary."""
    assert data.kind == "llama" and data.tokens and data.types
    return write_vocabulary(
        path, data.kind, data.tokens, data.types, scores=data.scores, template=template,
        extend=lambda writer: writer.add_add_space_prefix(data.adds_space),
    )  # fmt: skip


def byte_vocabulary(
    merges: Sequence[str], special: Sequence[str] = ("<|begin|>", "<|end|>")
) -> tuple[list[str], list[int]]:
    """(tokens, types) of a byte-level vocabulary: special tokens, bytes, merged tokens."""
    normal = [*sorted(ByteLevel.alphabet()), *dict.fromkeys(merge.replace(" ", "") for merge in merges)]
    return [*special, *normal], [3] * len(special) + [1] * len(normal)


def telling_vocabulary(texts: Iterable[str]) -> tuple[list[str], list[int], list[str]]:
    """(tokens, types, merges) of a byte-level vocabulary that shows where the texts are cut.

    It merges the bytes that stand next to each other in them, across any cut; and it has tokens that no merge makes,
    which appear where a piece that is a token is taken as a whole.
    """
    level = ByteLevel(add_prefix_space=False, use_regex=False)
    written = ["".join(piece for piece, _ in level.pre_tokenize_str(text)) for text in texts]
    pairs = Counter(pair for text in written for pair in pairwise(text))
    merges = [f"{left} {right}" for (left, right), _ in pairs.most_common(6000)]
    twos = {merge.replace(" ", "") for merge in merges}
    fours = Counter((text[at : at + 2], text[at + 2 : at + 4]) for text in written for at in range(len(text) - 3))
    merges += [f"{a} {b}" for (a, b), _ in fours.most_common(5000) if a in twos and b in twos]
    tokens, types = byte_vocabulary(merges)
    whole = [
        text
        for text in ("\u0120the", "apple", "\u0120HTTPServer", "\u0120" * 10, "\u010a" * 3, "1234")
        if text not in tokens
    ]
    return [*tokens, *whole], [*types, *[1] * len(whole)], merges


def spm_vocabulary(
    merged: Sequence[str], scores: Sequence[float] | None = None, adds_space: bool = True
) -> TokenizerData:
    """A SentencePiece vocabulary: control tokens, bytes, the merged texts with falling scores, and their characters."""
    chars = [char for char in dict.fromkeys("".join(merged)) if char not in merged]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *merged, *chars]
    types = [2, 3, 3, *[6] * 256, *[1] * (len(merged) + len(chars))]
    given = [-float(number) for number in range(len(merged))] if scores is None else list(scores)
    all_scores = [*[0.0] * 259, *given, *[-1000.0] * len(chars)]
    return TokenizerData(
        "llama", "default", tokens, types, None, 1, 2, adds_begin=True, scores=all_scores, adds_space=adds_space
    )  # fmt: skip


def named(begin: int | None = 0, end: int = 1) -> Callable[[gguf.GGUFWriter], None]:
    """Names the tokens that begin a text and end an answer."""

    def extend(writer: gguf.GGUFWriter) -> None:
        if begin is not None:
            writer.add_bos_token_id(begin)
        writer.add_eos_token_id(end)

    return extend


@contextmanager
def engine_of(path: Path) -> Iterator[Callable[..., list[int]]]:
    """A function: (text, **changes of the request) → the engine's ids."""
    engine = LlamaEngine(EngineSettings(path, {}, 256, 1, 0.0))

    def ids(text: str, **changes: Any) -> list[int]:
        asked = {"content": text, "add_special": False, "parse_special": True, **changes}
        return list(engine._post("/tokenize", asked)["tokens"])

    try:
        yield ids
    finally:
        engine.stop()


def data_of(path: Path) -> TokenizerData:
    return GgufFile(path).tokenizer


def tokenizer_in(path: Path) -> Tokenizer:
    return tokenizer_of(data_of(path), str(path))
