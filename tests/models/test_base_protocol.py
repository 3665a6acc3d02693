"""The interface of the base: another class than GgufFile works as well, and workers can open it."""

from __future__ import annotations

import ast
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import journeyman
from conftest import write_tiny_gguf
from journeyman.artifacts import sha256_of
from journeyman.errors import InputError
from journeyman.models.base import Base, BaseRef, StoredBlocks, TokenizerData
from journeyman.models.geometry import Geometry
from journeyman.models.gguf_file import GgufFile
from journeyman.models.opening import open_base
from journeyman.models.rounding import Intervals
from journeyman.models.weights import load_decoder
from journeyman.records import Message
from journeyman.rendering.renderer import Renderer
from journeyman.serving.prompts import PromptCheck

ASKED = [Message(role="system", content="You are a coder."), Message(role="user", content="the thing, then?")]


class InMemory:
    """Another implementation: arrays by name."""

    def __init__(self, like: GgufFile, data: TokenizerData | None = None) -> None:
        self.path, self.sha256, self.geometry = Path("elsewhere"), "0" * 64, like.geometry
        self.tokenizer, self.interleaved, self.peft = data or like.tokenizer, like.interleaved, like.peft
        self._arrays = {name: like.tensor(name) for name in like.tensors}

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._arrays[name].shape)

    def storage(self, name: str) -> str:
        return "F32"

    def tensor(self, name: str) -> NDArray[np.float32]:
        return self._arrays[name]

    def rows(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        return self._arrays[name].reshape(-1, self._arrays[name].shape[-1])[start:stop]

    def bfloat16_rows(self, name: str, start: int, stop: int) -> NDArray[np.uint16] | None:
        return None

    def blocks(self, name: str) -> StoredBlocks | None:
        return None

    def originals(self, name: str, start: int, stop: int) -> Intervals | None:
        return None

    def ref(self) -> BaseRef:
        return BaseRef(self.path)


def _hidden(base: Base, *, stream: bool) -> torch.Tensor:
    ids = torch.tensor(Renderer(base).prompt_ids(ASKED))
    with torch.no_grad():
        return load_decoder(base, torch.float32, stream=stream).hidden_states(ids, [len(ids)], None)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("stream", [False, True])
def test_another_implementation_gives_the_same_tokens_and_values(
    architecture: str, stream: bool, tmp_path: Path
) -> None:
    file = GgufFile(write_tiny_gguf(tmp_path / "m.gguf", architecture))
    other: Base = InMemory(file)
    assert Renderer(other).prompt_ids(ASKED) == Renderer(file).prompt_ids(ASKED)
    assert torch.equal(_hidden(other, stream=stream), _hidden(file, stream=False))
    assert PromptCheck(other).control.texts == PromptCheck(file).control.texts == Renderer(file).control.texts


def test_a_worker_gets_a_small_name_and_opens_it(tiny_gguf: Path) -> None:
    base = open_base(tiny_gguf)
    sent = pickle.dumps(base.ref())
    assert len(sent) < 500
    opened = pickle.loads(sent).open()
    assert (opened.geometry, opened.tokenizer, opened.path) == (base.geometry, base.tokenizer, tiny_gguf)
    assert isinstance(opened.geometry, Geometry) and opened.sha256 == base.sha256 == sha256_of(tiny_gguf)
    with pytest.raises(InputError, match="no such model file"):
        BaseRef(tiny_gguf.with_name("none.gguf")).open()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"kind": "bert"}, "tokenizer kind 'bert' is not supported"),
        ({"split": "other"}, "is not supported"),
        ({"tokens": None}, "damaged"),
        ({"types": None}, "types are missing"),
        ({"types": [1]}, "damaged"),
        ({"merges": None}, "merges are missing"),
        ({"merges": ["th"]}, "damaged"),
        ({"end_id": None}, "no token for the end of an answer"),
        ({"end_id": 10**6}, "special tokens are damaged"),
        ({"adds_begin": True, "begin_id": None}, "no token for the beginning of a text"),
        ({"chat_template": None}, "no chat template"),
        ({"chat_template": "{% if %}"}, "does not compile"),
    ],
)
def test_what_is_missing_is_named_with_the_file(change: dict[str, Any], why: str, tiny_gguf: Path) -> None:
    file = GgufFile(tiny_gguf)
    with pytest.raises(InputError, match=why) as raised:
        Renderer(InMemory(file, replace(file.tokenizer, **change)))
    assert "elsewhere" in raised.value.what


def test_only_the_implementation_and_its_opener_name_the_file_format() -> None:
    source = Path(journeyman.__file__).parent
    naming = {
        str(path.relative_to(source))
        for path in source.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and any(one.name == "GgufFile" for one in node.names)
    }
    assert naming == {
        "models/opening.py",
        *(f"models/gguf_{one}.py" for one in ("geometry", "rotary", "alternate", "keys", "experts")),
    }
