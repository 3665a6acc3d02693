"""Names of pre-tokenizers: the engine cuts text under each of them as training does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gguf
import pytest

from conftest import write_tiny_gguf
from journeyman.inference.engines import running_engine
from journeyman.models.gguf_file import _SAME_SPLIT, GgufFile
from journeyman.protocols import EngineSettings
from journeyman.records import Message
from journeyman.rendering.renderer import Renderer

MERGES = ["1 2", "12 3", "123 4", "\u0120 \u0120", "\u010a \u010a", "' s", "a b", "\u0120 ab"]
RARE = [chr(code) for code in range(0xF8, 0x100)]
"""Tokens of bytes that no UTF-8 text holds: merged tokens take their places."""
TEXT = "12345 and 1234567  ab's\n\n  ab AB's 99ab\t12"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama-bpe", "qwen2", *_SAME_SPLIT])
@pytest.mark.parametrize("says", [True, None])
def test_the_engine_cuts_text_as_training_does(
    name: str, says: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`says`: whether the header says that a text begins with a token of its own."""
    tokens, merges = gguf.GGUFWriter.add_token_list, gguf.GGUFWriter.add_token_merges
    pre, begins = gguf.GGUFWriter.add_tokenizer_pre, gguf.GGUFWriter.add_add_bos_token
    made = dict(zip(RARE, (merge.replace(" ", "") for merge in MERGES), strict=True))

    def with_merged(writer: gguf.GGUFWriter, found: Sequence[str]) -> None:
        tokens(writer, [made.get(token, token) for token in found])

    monkeypatch.setattr(gguf.GGUFWriter, "add_token_list", with_merged)
    monkeypatch.setattr(gguf.GGUFWriter, "add_token_merges", lambda writer, found: merges(writer, [*found, *MERGES]))
    monkeypatch.setattr(gguf.GGUFWriter, "add_tokenizer_pre", lambda writer, _: pre(writer, name))
    monkeypatch.setattr(
        gguf.GGUFWriter, "add_add_bos_token", lambda writer, _: None if says is None else begins(writer, says)
    )
    path = write_tiny_gguf(tmp_path / "m.gguf", template="{{ messages[0].content }}<|im_end|>")
    renderer = Renderer(GgufFile(path))
    asked = [Message(role="user", content=TEXT)]
    with running_engine(EngineSettings(path, {}, 256, 1, 0.0)) as engine:
        assert engine.prompt_ids(asked) == renderer.prompt_ids(asked)
