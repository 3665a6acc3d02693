"""How long does the evaluation of a 7B model take? Answer tokens per second by the number of concurrent requests.

    python benchmarks/evaluation_speed.py FOLDER [--loads 1 2 4 8] [--tokens 48] [--threads N]

The model has Qwen2.5-7B's geometry as Q4_K_M with random values (FOLDER/qwen2.5-7b-text.gguf, 4.7 GB, written if it is
missing) and a rank-8 adapter on q, k, v, o. Prompts have 86 tokens, most of them shared by the role. A model of random
values never ends its answers, so each answer uses all its tokens. The script measures answer tokens per second over all
requests, and derives the time of a reference job: 31 rows of 500 tokens in three arms, and 21 rows repeated one at a
time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import psutil
from large_base import VOCAB, write_base
from tokenizers.pre_tokenizers import ByteLevel

from journeyman.config import LoraConfig
from journeyman.inference.dispatch import DispatchProgress, dispatch
from journeyman.inference.engines import running_engine
from journeyman.inference.response_cache import ResponseCache
from journeyman.models.gguf_file import GgufFile
from journeyman.protocols import EngineSettings, Question, SilentReporter
from journeyman.records import Message
from journeyman.sizing.memory import serving_bytes
from journeyman.training.export import write_gguf
from journeyman.training.lora import Adapter

RESULT = Path(__file__).parent / "results" / "evaluation_speed.json"
ROWS, ARMS, TIMED, ANSWER = 31, 3, 21, 500
CONTEXT = 1024


def vocabulary() -> list[str]:
    letters = sorted(ByteLevel.alphabet())
    head = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "th", *letters]
    return [*head, *(f"w{number}" for number in range(VOCAB - len(head)))]


def questions(load: int, tokens: int) -> list[Question]:
    """Twice as many questions as are answered at a time; their prompts have a common beginning."""
    system = Message(role="system", content="You are a coder. " + "Be exact. " * 5)
    return [
        Question(str(n), "coder", "tuned", [system, Message(role="user", content=f"{n} task")], tokens, adapter="all")
        for n in range(2 * load)
    ]


def measure(path: Path, adapter: Path, load: int, tokens: int, threads: int | None) -> dict[str, float]:
    settings = EngineSettings(path, {"all": adapter}, CONTEXT, threads, 0.0, load)
    with running_engine(settings) as engine, tempfile.TemporaryDirectory() as kept:
        start = time.perf_counter()
        asked = dispatch(
            questions(load, tokens),
            engine,
            ResponseCache(Path(kept)),
            load,
            DispatchProgress(SilentReporter(), 2 * load),
        )
        seconds = time.perf_counter() - start
    answered = sum(answer.answer_tokens for answer in asked.predictions)
    first = sum(answer.first_token_s or 0.0 for answer in asked.predictions) / len(asked.predictions)
    return {
        "load": load, "tokens_per_s": answered / seconds, "first_token_s": first, "load_s": engine.load_s,
        "peak_gb": (asked.peak_memory_bytes or 0) / 1e9,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--loads", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--layers", type=int, default=28)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    path = given.folder / "qwen2.5-7b-text.gguf"
    if not path.is_file():
        write_base(path, given.layers, vocabulary())
    geometry = GgufFile(path).geometry
    adapter = Adapter(geometry, LoraConfig(rank=8, targets=["q_proj", "k_proj", "v_proj", "o_proj"]), seed=0)
    write_gguf(adapter, given.folder / "adapter.gguf")
    threads = given.threads or psutil.cpu_count(logical=False)
    found = []
    for load in given.loads:
        one = measure(path, given.folder / "adapter.gguf", load, given.tokens, given.threads)
        trainable = sum(value.numel() for value in adapter.parameters.values())
        one["estimated_gb"] = serving_bytes(path.stat().st_size, geometry, trainable, CONTEXT * load) / 1e9
        alone = (found[0] if found else one)["tokens_per_s"]
        one["evaluation_h"] = (ROWS * ARMS * ANSWER / one["tokens_per_s"] + TIMED * ANSWER / alone) / 3600
        found.append(one)
        print(
            f"{load:>3} at a time: {one['tokens_per_s']:6.1f} tokens/s ({one['tokens_per_s'] / alone:.1f} ×), "
            f"first token {one['first_token_s']:.1f} s, {one['peak_gb']:.1f} GB (estimated {one['estimated_gb']:.1f}), "
            f"loads in {one['load_s']:.1f} s; the reference job {one['evaluation_h']:.1f} h",
            flush=True,
        )
    results = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    results[f"{threads} cores"] = found
    RESULT.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
