"""A training step of journeyman against transformers + peft: same rows, order, start, rank, targets, learning rate.

    python benchmarks/training_cpu.py [--steps 3] [--rows 8] [--prompt 0]

Rows have realistic lengths: answers of the demo, concatenated until prompt and answer have 350 to 690 tokens. --prompt
puts a system prompt of about that many tokens before each row, the same for all, as in the rows of a role. Peers:
    peft bf16          one row at a time (no padding), bfloat16 weights, no checkpointing, float32 adapters
    peft bf16, malloc  the same with our allocator setting (freed memory kept, see training/hardware.py)
    peft fp32, padded  the usual tutorial's recipe: float32, every row padded to 2,048 tokens
Each runs in a separate process, one after the other. The table has real tokens per second (without padding), the ratio
to journeyman, the loss of each step, and the loss on four held-out rows after the last step; if the losses differ by
more than rounding, the comparison is void. The last line is journeyman's share of the bf16 matrix rate, measured in the
same run.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import psutil
import torch

from journeyman.config import LoraConfig
from journeyman.models.gguf_file import GgufFile
from journeyman.models.opening import find_base
from journeyman.models.weights import load_decoder
from journeyman.records import Example, Message
from journeyman.rendering.renderer import Rendered, Renderer
from journeyman.training.batches import pack
from journeyman.training.gradients import AdaptedPack, keep, loss_only
from journeyman.training.hardware import keep_freed_memory, matrix_gflops, use_threads
from journeyman.training.lora import Adapter

PEERS = ("journeyman", "peft bf16", "peft bf16, malloc", "peft fp32, padded")
LORA = LoraConfig(rank=8, alpha=32, dropout=0.0, targets=["q_proj", "k_proj", "v_proj", "o_proj"])
RATE, HELD_OUT, PADDED = 1e-3, 4, 2048
RESULTS = Path(__file__).parent / "results"

Rows = Sequence[Rendered]
"""The rows of a step."""


def long_rows(renderer: Renderer, count: int, prompt_tokens: int) -> list[Rendered]:
    lines = files("journeyman.demo").joinpath("interactions.jsonl").read_text().splitlines()
    texts = [json.loads(line)["execution"]["output"] for line in lines if "malformed" not in line]
    random_ = random.Random(0)

    def text(tokens: int) -> str:
        made = ""
        while renderer.count(made) < tokens:
            made += (random_.choice(texts) or "") + "\n\n"
        return made

    system = [Message(role="system", content=text(prompt_tokens - 30))] if prompt_tokens else []
    rows = []
    for number in range(count):
        messages = [*system, Message(role="user", content=f"Write the answers of set {number}, one after the other.")]
        answer = text(random_.randint(350, 690) - 60)
        row = Example(
            id=str(number), role="coder", messages=messages, answer=answer, group="g", prompt_tokens=1, answer_tokens=1
        )
        rows.append(renderer.example(row))
    return rows


def timed_steps(
    steps: Sequence[Rows], trained: list[torch.Tensor], gradients: Callable[[Rows], float]
) -> tuple[list[float], list[float]]:
    """Seconds and loss of each optimizer step; `gradients` computes those of one step's rows and returns their loss."""
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
    seconds, losses = [], []
    for rows in steps:
        start = time.perf_counter()
        losses.append(gradients(rows))
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    return seconds, losses


def ours(base: GgufFile, steps: Sequence[Rows], held_out: Rows, pack_tokens: int) -> dict[str, Any]:
    decoder = load_decoder(base, torch.bfloat16)
    adapter = Adapter(decoder.geometry, LORA, 0)
    operations = []

    def gradients(rows: Rows) -> float:
        packs, lora, geometry = pack(rows, pack_tokens), adapter.layers(), decoder.geometry
        head = geometry.vocab * geometry.hidden
        computed, labels = (sum(len(t) for t in ts) for ts in zip(*((p.ids_T, p.labels_L) for p in packs), strict=True))
        operations.append(4 * ((geometry.linear_parameters - head) * computed + head * labels))
        return keep(decoder, [AdaptedPack(one, lora) for one in packs], labels, lambda _: None)

    seconds, losses = timed_steps(steps, list(adapter.parameters.values()), gradients)
    held = [AdaptedPack(one, adapter.layers()) for one in pack(held_out, pack_tokens)]
    loss = loss_only(decoder, held, lambda _: None) / sum(row.trained_tokens for row in held_out)
    share = sum(operations[1:]) / sum(seconds[1:]) / 1e9 / matrix_gflops(torch.bfloat16, 2048, 1.0)
    return {"seconds": seconds, "losses": losses, "held_out": loss, "matrix_share": share}


def peft(
    base: GgufFile, steps: Sequence[Rows], held_out: Rows, dtype: torch.dtype, padded: int | None
) -> dict[str, Any]:
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    folder, name = str(base.path.parent), base.path.name
    config = PeftConfig(
        r=LORA.rank, lora_alpha=LORA.alpha, lora_dropout=0.0, target_modules=LORA.targets, task_type="CAUSAL_LM"
    )
    model: Any = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=dtype)
    model = get_peft_model(model, config, autocast_adapter_dtype=True)
    start = Adapter(load_decoder(base, torch.bfloat16).geometry, LORA, 0)
    with torch.no_grad():
        for key, value in model.named_parameters():
            if value.requires_grad:
                value.copy_(start.parameters[key.replace(".default", "")])
    model.train()

    def row_loss(row: Rendered) -> Any:
        fill = (padded - len(row.ids)) if padded else 0
        ids = torch.tensor([row.ids + [0] * fill])
        target = torch.tensor([[-100] * row.prompt_tokens + row.ids[row.prompt_tokens :] + [-100] * fill])
        mask = torch.tensor([[1] * len(row.ids) + [0] * fill])
        return model(input_ids=ids, attention_mask=mask, labels=target).loss * row.trained_tokens

    def gradients(rows: Rows) -> float:
        labels, total = sum(row.trained_tokens for row in rows), 0.0
        for row in rows:
            part = row_loss(row) / labels
            part.backward()
            total += part.item()
        return total

    seconds, losses = timed_steps(steps, [p for p in model.parameters() if p.requires_grad], gradients)
    with torch.no_grad():
        loss = sum(row_loss(row).item() for row in held_out) / sum(row.trained_tokens for row in held_out)
    return {"seconds": seconds, "losses": losses, "held_out": loss}


def one_peer(name: str, steps: int, rows: int, prompt_tokens: int) -> None:
    use_threads(None)
    if name in ("journeyman", "peft bf16, malloc"):
        keep_freed_memory()
    base = GgufFile(find_base("embedded", Path()))
    made = long_rows(Renderer(base), steps * rows + HELD_OUT, prompt_tokens)
    held_out, made = made[:HELD_OUT], made[HELD_OUT:]
    batches = [made[step * rows : (step + 1) * rows] for step in range(steps)]
    if name == "journeyman":
        # As the plan chooses: larger packs if prompts are long, so that more rows share them.
        result = ours(base, batches, held_out, 8192 if prompt_tokens >= 512 else 2048)
    elif name == "peft fp32, padded":
        batches = [batch[:2] for batch in batches[:2]]
        result = peft(base, batches, held_out, torch.float32, PADDED)
    else:
        result = peft(base, batches, held_out, torch.bfloat16, None)
    tokens = [sum(len(row.ids) for row in batch) for batch in batches]
    # The first step allocates the memory and is not counted.
    speed = sum(tokens[1:]) / sum(result["seconds"][1:])
    print(json.dumps({"peer": name, "tokens_per_s": speed, **result}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=0, help="tokens of a system prompt that all rows share")
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        one_peer(arguments.peer, arguments.steps, arguments.rows, arguments.prompt)
        return
    results = []
    print(f"{'peer':<20} {'tokens/s':>9} {'ratio':>8} held-out loss, then the loss of each step")
    for peer in PEERS:
        command = [sys.executable, *sys.argv, "--peer", peer]
        said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        result = json.loads(said.splitlines()[-1])
        results.append(result)
        ratio = results[0]["tokens_per_s"] / result["tokens_per_s"]
        losses = " ".join(f"{loss:.4f}" for loss in result["losses"])
        print(
            f"{peer:<20} {result['tokens_per_s']:>9.0f} {ratio:>7.1f}× {result['held_out']:>9.4f}  {losses}", flush=True
        )
    print(f"journeyman's share of the matrix rate: {results[0]['matrix_share']:.0%}")
    RESULTS.mkdir(exist_ok=True)
    machine = {"cores": psutil.cpu_count(logical=False), "memory_gb": psutil.virtual_memory().total / 1e9}
    about = {"machine": machine, "torch": torch.__version__, "prompt_tokens": arguments.prompt}
    name = f"training_cpu_prompt_{arguments.prompt}.json" if arguments.prompt else "training_cpu.json"
    (RESULTS / name).write_text(json.dumps({**about, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
