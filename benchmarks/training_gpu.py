"""A LoRA step of journeyman on a GPU against transformers + peft: same rows, order, start, rank, targets, rate.

    python benchmarks/training_gpu.py [--model qwen2.5-7b] [--rank 16] [--targets all] [--dropout 0] [--peers …]

The model has the geometry of a real one and random weights, which each engine makes from the same seeds. Rows have 350
to 690 tokens, 16 per step. Each engine runs in a separate process, one after the other: warm-up steps, then timed ones.
The table has real tokens per second (without padding), the share of the matrix rate measured in the same run (4 N
operations per token), peak memory, the loss of each step, and the loss on held-out rows after the last; if losses
differ by more than rounding, the comparison is void. Peers, with the micro-batch that is best for them:
    peft         transformers + peft, attention by scaled_dot_product_attention
    peft+liger   the same with Liger's kernels
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from journeyman.config import LoraConfig, TrainConfig
from journeyman.models.decoder import Decoder, LayerWeights
from journeyman.models.geometry import Geometry
from journeyman.models.gpu.fused import fuse
from journeyman.models.weights import ResidentWeights
from journeyman.rendering.renderer import Rendered
from journeyman.training.batches import pack
from journeyman.training.engine import KeyedPack
from journeyman.training.gpu import GpuEngine, operations_on

QKV = ("q_proj", "k_proj", "v_proj")
MODELS = {
    "qwen2.5-0.5b": Geometry("qwen2", 24, 896, 14, 2, 64, 4864, 151936, 32768, 1e6, 1e-6, tied_head=True, biases=QKV),
    "qwen2.5-7b": Geometry("qwen2", 28, 3584, 28, 4, 128, 18944, 152064, 32768, 1e6, 1e-6, tied_head=False, biases=QKV),
    "qwen2.5-14b": Geometry(
        "qwen2", 48, 5120, 40, 8, 128, 13824, 152064, 32768, 1e6, 1e-6, tied_head=False, biases=QKV
    ),
    "smollm2-135m": Geometry("llama", 30, 576, 9, 3, 64, 1536, 49152, 8192, 1e5, 1e-5, tied_head=True),
}
TARGETS = {"all": LoraConfig().targets, "qkvo": ["q_proj", "k_proj", "v_proj", "o_proj"]}
RATE, PROMPT, MOST_PADDED = 1e-4, 60, 8
RESULTS = Path(__file__).parent / "results"
Rows = Sequence[Rendered]


def value(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A frozen tensor of the model, on the GPU in bfloat16; the same for every engine."""
    generator = torch.Generator("cuda").manual_seed(int.from_bytes(name.encode()[-6:]) + len(name) * 7919)
    made = torch.empty(shape, device="cuda", dtype=torch.bfloat16).normal_(0, 1, generator=generator)
    if "norm" in name:
        return 1 + 0.1 * made
    return made.mul_(0.02 if len(shape) == 2 else 0.1)


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


def our_decoder(
    model: Geometry, eight: bool, keep: Callable[[Iterator[LayerWeights]], Sequence[LayerWeights]] = list
) -> Decoder:
    def layer(index: int) -> LayerWeights:
        linear = {m: value(f"{index}.{m}", model.module_shape(m)) for m in model.modules}
        bias = {m: value(f"{index}.{m}.bias", model.module_shape(m)[:1]) for m in model.biases}
        norms = {n: value(f"{index}.{n}", (model.hidden,)) for n in ("attention_norm", "ffn_norm")}
        return fuse(LayerWeights(linear, bias, **norms), lambda one: one, eight=eight)  # type: ignore[arg-type]

    embedding = value("embedding", (model.vocab, model.hidden))
    head = embedding if model.tied_head else value("head", (model.vocab, model.hidden))
    layers = keep(layer(index) for index in range(model.layers))
    weights = ResidentWeights(embedding, layers, value("final.norm", (model.hidden,)), head)
    return Decoder(model, weights, operations_on(torch.device("cuda")))


def ours(
    model: Geometry, config: TrainConfig, options: argparse.Namespace, eight: bool
) -> tuple[Callable[[Rows], float], Any]:
    ready: dict[int, Future[Any]] = {}
    seen: list[Rows] = []
    thread = ThreadPoolExecutor(1)
    engine = GpuEngine(our_decoder(model, eight), config, recompute=options.recompute)

    def step(rows: Rows) -> float:
        packs = ready.pop(id(rows)).result() if id(rows) in ready else pack(rows, options.pack)
        if later := next((one for one in options.batches if one not in seen and one is not rows), None):
            ready[id(later)] = thread.submit(pack, later, options.pack)  # as PacksAhead does in the training loop
        seen.append(rows)
        labels = sum(len(one.labels_L) for one in packs)
        loss = engine.accumulate([KeyedPack(one, str(n)) for n, one in enumerate(packs)], labels, lambda _: None).loss
        engine.clip(1.0)
        engine.step(RATE)
        return loss

    def held(rows: Rows) -> float:
        return engine.evaluate(pack(rows, options.pack), lambda _: None).mean

    return step, held


def peer(model: Geometry, config: TrainConfig, options: argparse.Namespace, liger: bool) -> Any:
    import transformers
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    name = "Qwen2" if model.architecture == "qwen2" else "Llama"
    made = getattr(transformers, f"{name}Config")(
        vocab_size=model.vocab, hidden_size=model.hidden, intermediate_size=model.ffn, num_hidden_layers=model.layers,
        num_attention_heads=model.heads, num_key_value_heads=model.kv_heads, rms_norm_eps=model.rms_eps,
        rope_parameters={"rope_type": "default", "rope_theta": model.rope_theta}, head_dim=model.head_dim,
        tie_word_embeddings=model.tied_head, max_position_embeddings=model.context,
    )  # fmt: skip
    if liger:
        import liger_kernel.transformers as kernels

        getattr(kernels, f"apply_liger_kernel_to_{name.lower()}")()
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        network = getattr(transformers, f"{name}ForCausalLM")(made)
    torch.set_default_dtype(torch.float32)
    names = {f"model.layers.{i}.{'self_attn' if m in (*QKV, 'o_proj') else 'mlp'}.{m}.weight": f"{i}.{m}"
             for i in range(model.layers) for m in model.modules}  # fmt: skip
    names |= {f"model.layers.{i}.self_attn.{m}.bias": f"{i}.{m}.bias" for i in range(model.layers) for m in QKV}
    for i in range(model.layers):
        names[f"model.layers.{i}.input_layernorm.weight"] = f"{i}.attention_norm"
        names[f"model.layers.{i}.post_attention_layernorm.weight"] = f"{i}.ffn_norm"
    names |= {"model.norm.weight": "final.norm", "model.embed_tokens.weight": "embedding", "lm_head.weight": "head"}
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            parameter.copy_(value(names[key], tuple(parameter.shape)))
    torch.manual_seed(0)
    adapted = get_peft_model(
        network,
        PeftConfig(r=config.lora.rank, lora_alpha=config.lora.alpha, lora_dropout=config.lora.dropout,
                   target_modules=list(config.lora.targets), task_type="CAUSAL_LM"),
    )  # fmt: skip
    trained = [one for one in adapted.parameters() if one.requires_grad]
    for one in trained:
        one.data = one.data.float()
    _same_start(adapted, model, config)
    if options.recompute:
        adapted.gradient_checkpointing_enable({"use_reentrant": False})
        adapted.enable_input_require_grads()
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0, fused=True)

    def losses(rows: Rows, total: int) -> Any:
        for start in range(0, len(rows), options.micro):
            part = sorted(rows, key=lambda one: -len(one.ids))[start : start + options.micro]
            longest = -(-max(len(one.ids) for one in part) // MOST_PADDED) * MOST_PADDED
            ids = torch.zeros(len(part), longest, dtype=torch.int64)
            labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
            for place, one in enumerate(part):
                ids[place, : len(one.ids)] = torch.tensor(one.ids)
                labels[place, PROMPT : len(one.ids)] = torch.tensor(one.ids[PROMPT:])
                mask[place, : len(one.ids)] = 1
            with torch.autocast("cuda", torch.bfloat16):
                yield adapted(
                    input_ids=ids.cuda(), attention_mask=mask.cuda(), labels=labels.cuda(), num_items_in_batch=total
                ).loss

    def step(rows: Rows) -> float:
        total, sums = sum(one.trained_tokens for one in rows), []
        for loss in losses(rows, total):
            loss.backward()
            sums.append(loss.detach())
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(sum(one.item() for one in sums))

    @torch.no_grad()
    def held(rows: Rows) -> float:
        adapted.eval()
        total = sum(one.trained_tokens for one in rows)
        return float(sum(one.item() for one in losses(rows, total)))

    return step, held


@torch.no_grad()
def _same_start(adapted: Any, model: Geometry, config: TrainConfig) -> None:
    from journeyman.training.lora import Adapter

    start = Adapter(model, config.lora, config.seed).parameters
    for key, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            parameter.copy_(start[key.replace(".default", "")])


def measure(engine: str, options: argparse.Namespace) -> dict[str, Any]:
    model = MODELS[options.model]
    lora = LoraConfig(
        rank=options.rank, alpha=2 * options.rank, dropout=options.dropout, targets=TARGETS[options.targets]
    )
    config = TrainConfig(lora=lora)
    begun = time.perf_counter()
    batches = [rows_of(model, options.rows, n, options.length) for n in range(options.warmup + options.steps)]
    options.batches = batches
    if engine.startswith("journeyman"):
        step, held = ours(model, config, options, "fp8" in engine)
    else:
        step, held = peer(model, config, options, "liger" in engine)
    torch.cuda.synchronize()
    loaded = time.perf_counter() - begun
    seconds, losses = [], []
    for rows in batches:
        torch.cuda.synchronize()
        start = time.perf_counter()
        losses.append(step(rows))
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    timed = batches[options.warmup :]
    tokens = sum(len(row.ids) for rows in timed for row in rows)
    labels = sum(row.trained_tokens for rows in timed for row in rows)
    head = model.vocab * model.hidden
    work = 4 * ((model.linear_parameters - head) * tokens + head * labels)
    if options.profile and engine.startswith("journeyman"):
        profile(step, batches[-1])
    return {
        "engine": engine, "tokens_per_s": tokens / sum(seconds[options.warmup :]), "seconds": seconds,
        "tflops": work / sum(seconds[options.warmup :]) / 1e12, "losses": losses, "load_s": loaded,
        "held_out": held(rows_of(model, 8, 99, options.length)), "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
    }  # fmt: skip


def profile(step: Callable[[Rows], float], rows: Rows) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as found:
        step(rows)
        torch.cuda.synchronize()
    print(found.key_averages().table(sort_by="cuda_time_total", row_limit=28, max_name_column_width=70), flush=True)


def matrix_tflops() -> float:
    left, right = (torch.randn(8192, 8192, device="cuda").bfloat16() for _ in range(2))
    for _ in range(3):
        left @ right
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(20):
        left @ right
    end.record()
    torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / start.elapsed_time(end) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="qwen2.5-7b")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--targets", choices=TARGETS, default="all")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--length", type=int, default=0, help="tokens of every row; 0: 350 to 690")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--pack", type=int, default=16384)
    parser.add_argument("--micro", type=int, default=8)
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--ours", nargs="*", default=["journeyman", "journeyman fp8"])
    parser.add_argument("--peers", nargs="*", default=["peft", "peft+liger"])
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print("RESULT " + json.dumps(measure(options.only, options)), flush=True)
        return
    rate, found = matrix_tflops(), []
    torch.cuda.empty_cache()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, bf16 8192³ {rate:.0f} TFLOP/s", flush=True)
    for engine in [*options.ours, *options.peers]:
        done = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--only", engine], capture_output=True, text=True, check=False
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        print("\n".join(line for line in done.stdout.splitlines() if not line.startswith("RESULT ")), flush=True)
        if not lines:
            print(f"{engine}: {done.stderr[-1500:]}", flush=True)
            continue
        one = json.loads(lines[0][7:])
        found.append(one)
        print(
            f"{engine:15} {one['tokens_per_s']:8,.0f} tokens/s  {one['tflops'] / rate:5.0%} of the matrix rate  "
            f"{one['peak_gb']:5.1f} GB  losses {one['losses'][0]:.4f} … {one['losses'][-1]:.4f}  "
            f"held out {one['held_out']:.4f}  steps {', '.join(f'{s:.3f}' for s in one['seconds'])}",
            flush=True,
        )
    record = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "matrix_tflops": rate, "found": found}
    RESULTS.mkdir(exist_ok=True)
    options_record = {key: value for key, value in vars(options).items() if key != "only"}
    name = f"training_gpu-{options.model}-{options.targets}-r{options.rank}.json"
    (RESULTS / name).write_text(json.dumps({"options": options_record, **record}, indent=1))


if __name__ == "__main__":
    main()
