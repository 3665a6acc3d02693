"""A training step on a base that does not fit into memory: Qwen2.5-7B's geometry, Q4_K_M's types, random values.

    python benchmarks/large_base.py FOLDER [--layers 28] [--rows 16] [--steps 1] [--rank 8] [--memory 10]

Writes FOLDER/qwen2.5-7b-28.gguf (4.7 GB) if it is missing, then trains in a separate process on rows of realistic
length (350 to 690 tokens), in the memory mode that the plan chooses for the given memory. Prints the seconds per step,
tokens per second, the share of the bf16 matrix rate measured in the same run, the peak of resident memory, and the time
of a reference job (238 rows, 3 epochs). The types are those of llama.cpp's Q4_K_M: Q6_K for the head and for attn_v and
ffn_down in half of the layers, Q4_K for the rest.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
import psutil
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from journeyman.config import TrainConfig
from journeyman.models.gguf_file import GgufFile
from journeyman.models.weights import load_decoder
from journeyman.protocols import SilentReporter
from journeyman.rendering.renderer import Rendered
from journeyman.sizing.parameters import lora_parameters
from journeyman.training.cpu import CpuEngine
from journeyman.training.hardware import compute_dtype, keep_freed_memory, matrix_gflops, use_threads
from journeyman.training.loop import Trainer, TrainingJob
from journeyman.training.placement import Workload, memory_on_processor

RESULT = Path(__file__).parent / "results" / "large_base.json"
HIDDEN, HEADS, KV_HEADS, FFN, VOCAB = 3584, 28, 4, 18944, 152064
JOB_ROWS, JOB_EPOCHS = 238, 3
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
Q4, Q6, F32 = GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q6_K, GGMLQuantizationType.F32


def write_base(path: Path, layers: int, vocabulary: Sequence[str] = ()) -> None:
    """Writes blocks of random bits with scales that give weights of about 1/sqrt(in): finite, and as in a real model.

    Args:
        vocabulary: the tokens, for an engine that reads and writes text; training needs none.
    """
    writer = gguf.GGUFWriter(path, "qwen2", use_temp_file=False)
    writer.add_context_length(32768)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-6)
    if vocabulary:
        writer.add_vocab_size(VOCAB)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list(list(vocabulary))
        writer.add_token_types([3] * 3 + [1] * (VOCAB - 3))
        writer.add_token_merges(["t h"])
        writer.add_eos_token_id(2)
        writer.add_chat_template(TEMPLATE)
    rng = np.random.default_rng(0)
    made: list[tuple[str, tuple[int, ...], GGMLQuantizationType]] = []

    def add(name: str, rows: int, columns: int, kind: GGMLQuantizationType) -> None:
        made.append((name, (rows, columns), kind))
        block, size = GGML_QUANT_SIZES[kind]
        writer.add_tensor_info(
            name, (rows, columns // block * size), np.dtype(np.uint8), rows * columns // block * size, raw_dtype=kind
        )

    def vector(name: str, size: int) -> None:
        made.append((name, (size,), F32))
        writer.add_tensor_info(name, (size,), np.dtype(np.float32), size * 4)

    add("token_embd.weight", VOCAB, HIDDEN, Q4)
    vector("output_norm.weight", HIDDEN)
    add("output.weight", VOCAB, HIDDEN, Q6)
    kv = HIDDEN // HEADS * KV_HEADS
    for layer in range(layers):
        more = Q6 if layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2 else Q4
        block = f"blk.{layer}."
        vector(block + "attn_norm.weight", HIDDEN)
        vector(block + "ffn_norm.weight", HIDDEN)
        for name, rows, kind in (("attn_q", HIDDEN, Q4), ("attn_k", kv, Q4), ("attn_v", kv, more)):
            add(f"{block}{name}.weight", rows, HIDDEN, kind)
            vector(f"{block}{name}.bias", rows)
        add(block + "attn_output.weight", HIDDEN, HIDDEN, Q4)
        add(block + "ffn_gate.weight", FFN, HIDDEN, Q4)
        add(block + "ffn_up.weight", FFN, HIDDEN, Q4)
        add(block + "ffn_down.weight", HIDDEN, FFN, more)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, shape, kind in made:
        writer.write_tensor_data(np.ones(shape, np.float32) if kind == F32 else random_blocks(rng, shape, kind))
    writer.close()


def random_blocks(rng: np.random.Generator, shape: tuple[int, ...], kind: GGMLQuantizationType) -> np.ndarray:
    rows, columns = shape
    block, size = GGML_QUANT_SIZES[kind]
    raw = rng.integers(0, 256, (rows, columns // block, size), dtype=np.uint8)
    deviation = columns**-0.5
    if kind == Q4:  # d, dmin, 12 bytes of 6-bit scales and minima, 4-bit values: d·s·q - dmin·m, both about 32
        scales = np.array([deviation / 32 / 4.6, deviation / 32 / 4.6 * 7.5], np.float16).view(np.uint8)
        raw[:, :, 0:4] = scales
        raw[:, :, 4:16] = np.array([0xA0] * 8 + [0x00] * 4, np.uint8)  # scales and minima of 32
    else:  # ql, qh, 16 signed scales, d: d·s·(q - 32)
        raw[:, :, -18:-2] = 32
        raw[:, :, -2:] = np.array([deviation / 32 / 18.5], np.float16).view(np.uint8)
    return raw.reshape(rows, -1)


def train(path: Path, arguments: argparse.Namespace) -> None:
    keep_freed_memory()
    use_threads(None)
    file = GgufFile(path)
    geometry, dtype = file.geometry, compute_dtype("auto")
    config = TrainConfig.model_validate({
        "lora": {"rank": arguments.rank, "targets": ["q_proj", "k_proj", "v_proj", "o_proj"]},
        "epochs": 1, "batch_size": arguments.rows, "max_memory_gb": arguments.memory, "checkpoint_s": 1e9,
    })  # fmt: skip
    random_ = random.Random(0)
    rows = [
        Rendered([random_.randrange(VOCAB) for _ in range(random_.randint(350, 690))], 86)
        for _ in range(arguments.rows * arguments.steps)
    ]
    longest, tokens = max(len(row.ids) for row in rows), sum(len(row.ids) for row in rows)
    trainable = lora_parameters(geometry, config.lora.rank, config.lora.targets)
    work = Workload(geometry, trainable, longest, tokens // arguments.steps, prompt_tokens=86)
    chosen = memory_on_processor(work, dtype.itemsize, config)
    gflops = matrix_gflops(dtype, 4096, 2.0)
    job = TrainingJob(
        rows, [], config, "benchmark",
        path.parent / "adapter" / str(time.time_ns()),
        chosen.pack_tokens, chosen.group_tokens, gflops,
    )  # fmt: skip
    decoder = load_decoder(file, dtype, stream=chosen.way == "stream")
    Trainer(job, CpuEngine(decoder, config, recompute=chosen.way != "keep"), SilentReporter()).run()
    lines = (job.folder.parent / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    (job.folder.parent / "metrics.jsonl").unlink()
    best = min(steps, key=lambda step: step["seconds"] / step["tokens"])
    job_tokens = JOB_ROWS * JOB_EPOCHS * tokens / len(rows)
    print(json.dumps({
        "way": chosen.way, "group_tokens": chosen.group_tokens, "estimated_gb": chosen.bytes / 1e9,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "seconds": [step["seconds"] for step in steps], "losses": [step["loss"] for step in steps],
        "tokens": [step["tokens"] for step in steps], "tokens_per_s": best["tokens_per_s"],
        "matrix_gflops": gflops, "matrix_share": best["matrix_share"], "layers": geometry.layers,
        "whole_job_h": job_tokens / best["tokens_per_s"] / 3600,
    }))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--memory", type=float, default=10.0)
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    path = arguments.folder / f"qwen2.5-7b-{arguments.layers}.gguf"
    if arguments.inner:
        train(path, arguments)
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        staged = path.with_suffix(".part")
        write_base(staged, arguments.layers)
        staged.rename(path)
    said = subprocess.run([sys.executable, *sys.argv, "--inner"], stdout=subprocess.PIPE, text=True, check=True).stdout
    result = json.loads(said.splitlines()[-1])
    for name, value in result.items():
        print(f"{name:<14} {value}")
    RESULT.parent.mkdir(exist_ok=True)
    machine = {"cores": psutil.cpu_count(logical=False), "memory_gb": psutil.virtual_memory().total / 1e9}
    RESULT.write_text(json.dumps({"machine": machine, "torch": torch.__version__, **result}, indent=2) + "\n")


if __name__ == "__main__":
    main()
