"""A training step of ours against transformers + peft: same rows, order, start, rank, targets, learning rate.

    python benchmarks/training_cpu.py [--steps 3] [--rows 8]

Rows are of real length: answers of the demo laid end to end until prompt and answer hold 350 to 690 tokens. Peers:
    peft bf16          one row at a time (no padding), bfloat16 weights, no checkpointing, float32 adapters
    peft bf16, malloc  the same with our allocator setting (MALLOC_* kept, see training/machine.py)
    peft fp32, padded  the usual tutorial's recipe: float32, every row padded to 2,048 tokens
Each runs in a process of its own, in turn. The table gives real tokens a second (padding does not count), the ratio to
ours, and the loss of each step: the same within rounding, or the comparison is void.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import psutil
import torch

from journeyman.config import LoraConfig
from journeyman.models.base import find_base
from journeyman.models.gguf_file import GgufFile
from journeyman.records import Example, Message
from journeyman.rendering.renderer import Rendered, Renderer
from journeyman.training.machine import keep_freed_memory, matrix_gflops, use_threads

PEERS = ("journeyman", "peft bf16", "peft bf16, malloc", "peft fp32, padded")
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]
RESULT = Path(__file__).parent / "results" / "training_cpu.json"
PADDED = 2048


def long_rows(renderer: Renderer, count: int) -> list[Rendered]:
    lines = files("journeyman.demo").joinpath("interactions.jsonl").read_text().splitlines()
    texts = [json.loads(line)["execution"]["output"] for line in lines if "malformed" not in line]
    random_ = random.Random(0)
    rows = []
    for number in range(count):
        answer, wanted = "", random_.randint(350, 690)
        while renderer.count(answer) < wanted - 60:
            answer += (random_.choice(texts) or "") + "\n\n"
        messages = [Message(role="user", content=f"Write the answers of set {number}, one after the other.")]
        row = Example(
            id=str(number), role="coder", messages=messages, answer=answer, group="g", prompt_tokens=1, answer_tokens=1
        )
        rows.append(renderer.example(row))
    return rows


def ours(base: GgufFile, steps: list[list[Rendered]]) -> tuple[list[float], list[float]]:
    from journeyman.models.weights import load_decoder
    from journeyman.training.batches import pack
    from journeyman.training.gradients import pack_loss
    from journeyman.training.lora import Adapter

    decoder = load_decoder(base, torch.bfloat16)
    adapter = Adapter(decoder.geometry, LoraConfig(rank=8, alpha=32, dropout=0.0, targets=TARGETS), 0)
    optimizer = torch.optim.AdamW(list(adapter.parameters.values()), lr=1e-3, weight_decay=0.0)
    seconds, losses = [], []
    for rows in steps:
        start, total = time.perf_counter(), 0.0
        packs = pack(rows, 2048)
        labels = sum(len(p.labels_L) for p in packs)
        for one in packs:
            part = pack_loss(decoder, one, adapter.layers()) / labels
            part.backward()
            total += part.item()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
        losses.append(total)
    return seconds, losses


def peft(
    base: GgufFile, steps: list[list[Rendered]], dtype: Any, padded: int | None
) -> tuple[list[float], list[float]]:
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    from journeyman.models.weights import load_decoder
    from journeyman.training.lora import Adapter

    folder, name = str(base.path.parent), base.path.name
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=dtype)
    config = PeftConfig(r=8, lora_alpha=32, lora_dropout=0.0, target_modules=TARGETS, task_type="CAUSAL_LM")
    model = get_peft_model(model, config, autocast_adapter_dtype=True)
    start_values = Adapter(
        load_decoder(base, torch.bfloat16).geometry, LoraConfig(rank=8, alpha=32, targets=TARGETS), 0
    )
    with torch.no_grad():
        for key, value in model.named_parameters():
            if value.requires_grad:
                value.copy_(start_values.parameters[key.replace(".default", "")])
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0)
    seconds, losses = [], []
    for rows in steps:
        start, total = time.perf_counter(), 0.0
        labels = sum(row.trained_tokens for row in rows)
        for row in rows:
            fill = (padded - len(row.ids)) if padded else 0
            ids = torch.tensor([row.ids + [0] * fill])
            target = torch.tensor([[-100] * row.prompt_tokens + row.ids[row.prompt_tokens :] + [-100] * fill])
            mask = torch.tensor([[1] * len(row.ids) + [0] * fill])
            out = model(input_ids=ids, attention_mask=mask, labels=target)
            part = out.loss * row.trained_tokens / labels
            part.backward()
            total += part.item()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
        losses.append(total)
    return seconds, losses


def one_peer(name: str, steps: int, rows: int) -> None:
    use_threads(None)
    if name in ("journeyman", "peft bf16, malloc"):
        keep_freed_memory()
    base = GgufFile(find_base("embedded", Path()))
    made = long_rows(Renderer(base), steps * rows)
    batches = [made[step * rows : (step + 1) * rows] for step in range(steps)]
    if name == "journeyman":
        seconds, losses = ours(base, batches)
    elif name == "peft fp32, padded":
        batches = [batch[:2] for batch in batches[:2]]
        seconds, losses = peft(base, batches, torch.float32, PADDED)
    else:
        seconds, losses = peft(base, batches, torch.bfloat16, None)
    tokens = [sum(len(row.ids) for row in batch) for batch in batches]
    # The first step touches memory for the first time and is not counted.
    speed = sum(tokens[1:]) / sum(seconds[1:])
    print(
        json.dumps(
            {"peer": name, "tokens_per_s": speed, "losses": losses, "gflops": matrix_gflops(torch.bfloat16, 2048)}
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--peer", choices=PEERS)
    arguments = parser.parse_args()
    if arguments.peer:
        one_peer(arguments.peer, arguments.steps, arguments.rows)
        return
    results = []
    print(f"{'peer':<20} {'tokens/s':>9} {'ours is':>8}  losses")
    for peer in PEERS:
        command = [
            sys.executable,
            __file__,
            "--peer",
            peer,
            "--steps",
            str(arguments.steps),
            "--rows",
            str(arguments.rows),
        ]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        result = json.loads(said.splitlines()[-1])
        results.append(result)
        ratio = results[0]["tokens_per_s"] / result["tokens_per_s"]
        shown = " ".join(f"{loss:.4f}" for loss in result["losses"])
        print(f"{peer:<20} {result['tokens_per_s']:>9.0f} {ratio:>7.1f}×  {shown}", flush=True)
    RESULT.parent.mkdir(exist_ok=True)
    machine = {"cores": psutil.cpu_count(logical=False), "memory_gb": psutil.virtual_memory().total / 1e9}
    RESULT.write_text(json.dumps({"machine": machine, "torch": torch.__version__, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
