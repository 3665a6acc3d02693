"""The model and the rows of training_gpu.py, the same for every engine."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from journeyman.config import LoraConfig
from journeyman.models.geometry import Geometry
from journeyman.rendering.renderer import Rendered

QKV = ("q_proj", "k_proj", "v_proj")
MODELS = {
    "qwen2.5-0.5b": Geometry("qwen2", 24, 896, 14, 2, 64, 4864, 151936, 32768, 1e6, 1e-6, tied_head=True, biases=QKV),
    "qwen2.5-7b": Geometry("qwen2", 28, 3584, 28, 4, 128, 18944, 152064, 32768, 1e6, 1e-6, tied_head=False, biases=QKV),
    "qwen2.5-14b": Geometry(
        "qwen2", 48, 5120, 40, 8, 128, 13824, 152064, 32768, 1e6, 1e-6, tied_head=False, biases=QKV
    ),
    "smollm2-135m": Geometry("llama", 30, 576, 9, 3, 64, 1536, 49152, 8192, 1e5, 1e-5, tied_head=True),
    "tiny": Geometry("qwen2", 2, 64, 4, 2, 16, 128, 1024, 4096, 1e6, 1e-6, tied_head=False, biases=QKV),
}
TARGETS = {"all": LoraConfig().targets, "qkvo": ["q_proj", "k_proj", "v_proj", "o_proj"]}
RATE, PROMPT = 1e-4, 60
Rows = Sequence[Rendered]


@dataclass(frozen=True)
class Engine:
    """One side of the comparison.

    Attributes:
        train: takes the rows of each optimizer step, returns seconds and loss of each step.
        held: the mean loss on rows that were not trained on.
    """

    train: Callable[[Sequence[Rows]], tuple[list[float], list[float]]]
    held: Callable[[Rows], float]


def value(name: str, shape: tuple[int, ...], device: str) -> torch.Tensor:
    """A frozen tensor of the model in bfloat16; the same for every engine on that kind of device."""
    generator = torch.Generator(device).manual_seed(int.from_bytes(name.encode()[-6:]) + len(name) * 7919)
    made = torch.empty(shape, device=device, dtype=torch.bfloat16).normal_(0, 1, generator=generator)
    if "norm" in name:
        return 1 + 0.1 * made
    return made.mul_(0.02 if len(shape) == 2 else 0.1)


def published_names(model: Geometry) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """The tensors of the model: name in a Hugging Face folder, name for `value`, shape."""
    for i in range(model.layers):
        at = f"model.layers.{i}"
        for m in model.modules:
            part = f"{at}.{'self_attn' if m in (*QKV, 'o_proj') else 'mlp'}.{m}"
            yield f"{part}.weight", f"{i}.{m}", model.module_shape(m)
            if m in model.biases:
                yield f"{part}.bias", f"{i}.{m}.bias", model.module_shape(m)[:1]
        yield f"{at}.input_layernorm.weight", f"{i}.attention_norm", (model.hidden,)
        yield f"{at}.post_attention_layernorm.weight", f"{i}.ffn_norm", (model.hidden,)
    yield "model.norm.weight", "final.norm", (model.hidden,)
    yield "model.embed_tokens.weight", "embedding", (model.vocab, model.hidden)
    if not model.tied_head:
        yield "lm_head.weight", "head", (model.vocab, model.hidden)


def rows_of(model: Geometry, count: int, seed: int, length: int) -> list[Rendered]:
    """Rows whose next token often repeats the one before last, so that there is something to learn."""
    random_ = random.Random(seed)
    rows = []
    for _ in range(count):
        size = length or random_.randint(350, 690)
        ids = [random_.randrange(model.vocab) for _ in range(2)]
        while len(ids) < size:
            ids.append(ids[-2] if random_.random() < 0.7 else random_.randrange(1000))
        rows.append(Rendered(ids, PROMPT))
    return rows


def finish(device: str) -> None:
    """Waits until the device has done all its work."""
    if device == "cuda":
        torch.cuda.synchronize()
