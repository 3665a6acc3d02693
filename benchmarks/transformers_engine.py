"""How much slower a base is trained through transformers and peft than by our own decoder, on the same base and rows.

    python benchmarks/transformers_engine.py [--steps 3] [--rows 8] [--prompt 0]

The embedded SmolLM2 is written as a Hugging Face folder, and both engines take the same steps on it. Rows are those of
training_cpu.py; --prompt puts the same system prompt of about that many tokens before each of them, which our own
engine computes once and transformers for every row. The last line is the ratio; if the losses differ by more than
rounding, the comparison is void.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from training_cpu import long_rows

from journeyman.config import TrainConfig
from journeyman.models.gguf_file import GgufFile
from journeyman.models.opening import find_base
from journeyman.models.transformers_model import model_sizes
from journeyman.models.weights import load_decoder
from journeyman.rendering.renderer import Renderer
from journeyman.training.batches import Pack, pack
from journeyman.training.cpu import CpuEngine
from journeyman.training.engine import KeyedPack, TrainingEngine
from journeyman.training.hardware import compute_dtype, keep_freed_memory, use_threads
from journeyman.training.transformers_engine import TransformersEngine

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))


def take_steps(engine: TrainingEngine, packs: list[Pack], steps: int, rate: float) -> tuple[float, list[float]]:
    """Tokens per second, without the first step, and the loss of each step."""
    labels, losses = sum(one.label_weight for one in packs), []
    started = time.perf_counter()
    for step in range(steps + 1):
        if step == 1:
            started = time.perf_counter()
        keyed = [KeyedPack(one, f"{step}/{number}") for number, one in enumerate(packs)]
        losses.append(engine.accumulate(keyed, labels, lambda _: None).loss)
        engine.clip(1.0)
        engine.step(rate)
    return steps * sum(one.row_tokens for one in packs) / (time.perf_counter() - started), losses


def main() -> None:
    from twin import transformers_twin

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=0)
    asked = parser.parse_args()
    keep_freed_memory()
    use_threads(None)
    config = TrainConfig()
    dtype = compute_dtype(config.precision)
    base = GgufFile(find_base("embedded", Path()))
    packs = pack(long_rows(Renderer(base), asked.rows, asked.prompt), 2048)
    decoder = load_decoder(base, dtype)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        transformers_twin(load_decoder(base, dtype), "llama").to(dtype).save_pretrained(folder)
        other = TransformersEngine(folder, model_sizes(folder), config, dtype)
    speeds = {}
    for name, engine in (("our own decoder", CpuEngine(decoder, config)), ("transformers and peft", other)):
        speeds[name], losses = take_steps(engine, packs, asked.steps, config.learning_rate)
        print(f"{name}: {speeds[name]:.0f} tokens/s, losses {', '.join(f'{loss:.4f}' for loss in losses)}")
        engine.close()
    own, through = speeds.values()
    print(f"through transformers and peft, training takes {own / through:.1f} times as long")


if __name__ == "__main__":
    main()
