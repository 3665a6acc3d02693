"""bisect: follows the tuned model through every link from training to a merged and quantized file.

All links get the same prompts and the same answers; at some positions of each answer, their probabilities of the next
token are compared. The first link is the reference: torch in float32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from gguf import GGMLQuantizationType

from journeyman.artifacts import ADAPTER_FILE, read_rows
from journeyman.config import Config
from journeyman.errors import InputError, Interrupted
from journeyman.inference.engines import running_engine
from journeyman.manifests import AdapterManifest, BisectLink, BisectResult
from journeyman.models.base import Base
from journeyman.models.opening import open_base
from journeyman.models.weights import load_decoder
from journeyman.protocols import EngineSettings, Reporter
from journeyman.records import EVERY_ROLE, Example, Prediction
from journeyman.rendering.renderer import Renderer
from journeyman.training.export import load_peft
from journeyman.training.hardware import compute_dtype, keep_freed_memory, use_threads
from journeyman.training.lora import Adapter
from journeyman.training.merge import format_like, write_merged

_ROWS, _PLACES, _LIKELIEST = 6, 4, 10
PARTED_AGREEMENT, PARTED_NATS = 0.9, 0.5
"""Links differ if they choose different tokens at more than one position in ten, or if the log probabilities of the
likeliest tokens differ by this much on average. The 8-bit activations of llama.cpp alone cause 0.05 to 0.15."""

Ids = Sequence[int]
LogProbabilities = Sequence[dict[int, float]]


def bisect(
    predictions: Path,
    sealed: Path,
    adapter: AdapterManifest,
    adapter_folder: Path,
    base: Base,
    config: Config,
    renderer: Renderer,
    reporter: Reporter,
    served: Path | None = None,
) -> BisectResult:
    """Compares the links on a few of the tuned answers of an evaluation.

    Args:
        sealed: the held-out test set.
        base: what the adapter was trained on.
        served: the first file that may ship, of which the merged links are made; None: the base, which is a file.

    Raises:
        InputError: no role with an adapter has an answer.
        Interrupted: asked to stop.
    """
    keep_freed_memory()
    use_threads(config.train.threads)
    served = served or base.path
    role, texts = _texts(predictions, sealed, adapter, renderer)
    trained = adapter.of(role)
    assert trained is not None
    folder = adapter_folder / trained.folder
    dtype = compute_dtype(config.train.precision)
    reporter.begin("bisect", 5, "links")
    ways: dict[str, Callable[[], LogProbabilities]] = {
        "torch, float32": lambda: _by_torch(base, folder, config, torch.float32, texts),
        f"torch, {str(dtype).removeprefix('torch.')}, as trained": lambda: _by_torch(
            base, folder, config, dtype, texts
        ),
        "llama.cpp, adapter beside its base, as shipped": lambda: _by_engine(
            served, {EVERY_ROLE: folder / ADAPTER_FILE}, config, texts
        ),
    }
    file = open_base(served)
    like = GGMLQuantizationType[format_like(file, folder / ADAPTER_FILE)]
    with tempfile.TemporaryDirectory(prefix="journeyman-bisect-") as scratch:
        for name, kind in (("merged", GGMLQuantizationType.F16), ("merged and quantized", like)):
            path = Path(scratch) / f"{kind.name}.gguf"

            def merged(path: Path = path, kind: GGMLQuantizationType = kind) -> LogProbabilities:
                write_merged(file, _adapter(base, folder, config), kind, path)
                return _by_engine(path, {}, config, texts)

            ways[f"llama.cpp, {name} ({kind.name})"] = merged
        links: list[BisectLink] = []
        found: list[LogProbabilities] = []
        for name, ask in ways.items():
            if reporter.stop_requested:
                raise Interrupted(f"stopped before the link {name!r}", "Run it again; it starts from the beginning")
            found.append(ask())
            links.append(_compared(name, found[0], found[-2] if len(found) > 1 else found[0], found[-1]))
            reporter.advance(len(links), name)
    parted = next((link.name for link in links if _is_apart(link)), None)
    return BisectResult(role=role, places=len(texts), links=links, parts_at=parted)


def _texts(
    predictions: Path, sealed: Path, adapter: AdapterManifest, renderer: Renderer
) -> tuple[str, list[tuple[Ids, int]]]:
    """A role, and (token ids so far, where the answer begins) at some positions of its answers."""
    rows = {row.id: row for row in read_rows(sealed, Example)}
    answers = [p for p in read_rows(predictions, Prediction) if p.arm == "tuned" and p.text and adapter.of(p.role)]
    if not answers:
        raise InputError(f"{predictions}: no answer of a tuned role", "Run: journeyman evaluate")
    role = answers[0].role
    texts: list[tuple[Ids, int]] = []
    for answer in [p for p in answers if p.role == role][:_ROWS]:
        prompt = renderer.prompt_ids(rows[answer.id].messages, rows[answer.id].tools)
        ids = renderer.encode(answer.text)
        for place in sorted({len(ids) * share // _PLACES for share in range(_PLACES)}):
            texts.append(([*prompt, *ids[:place]], len(prompt)))
    return role, texts


def _adapter(base: Base, folder: Path, config: Config) -> Adapter:
    adapter = Adapter(base.geometry, config.train.lora, config.train.seed)
    load_peft(adapter, base.peft, folder)
    return adapter


@torch.no_grad()
def _by_torch(
    base: Base, folder: Path, config: Config, dtype: torch.dtype, texts: Sequence[tuple[Ids, int]]
) -> LogProbabilities:
    factors = base.geometry.factors(config.evaluate.context)
    decoder, lora = load_decoder(base, dtype, factors=factors), _adapter(base, folder, config).layers()
    found = []
    for ids, _ in texts:
        last = torch.tensor([len(ids) - 1])
        hidden = decoder.hidden_states(torch.tensor(ids), [len(ids)], lora, at_L=last)
        likely = decoder.head(hidden).float().log_softmax(-1)[0]
        found.append(dict(enumerate(likely.tolist())))
    return found


def _by_engine(
    base: Path, adapters: dict[str, Path], config: Config, texts: Sequence[tuple[Ids, int]]
) -> LogProbabilities:
    asked = config.evaluate
    settings = EngineSettings(base, adapters, asked.context, asked.threads, 0.0)
    with running_engine(settings) as engine:
        return [engine.next_tokens(ids, 4 * _LIKELIEST) for ids, _ in texts]


def _compared(name: str, reference: LogProbabilities, before: LogProbabilities, here: LogProbabilities) -> BisectLink:
    """Compares a link with the reference and with the previous link, on the reference's likeliest tokens."""

    def apart(other: LogProbabilities) -> tuple[float, float, float]:
        same, differences = 0, []
        for whole, one, two in zip(reference, other, here, strict=True):
            likeliest = sorted(whole, key=lambda token: -whole[token])[:_LIKELIEST]
            same += max(one, key=lambda t: one[t]) == max(two, key=lambda t: two[t])
            differences += [abs(one[token] - two[token]) for token in likeliest if token in one and token in two]
        return same / len(here), sum(differences) / len(differences), max(differences)

    agreement, mean, most = apart(reference)
    step_agreement, step_mean, _ = apart(before)
    return BisectLink(
        name=name,
        agreement=agreement,
        mean_nats=mean,
        most_nats=most,
        step_agreement=step_agreement,
        step_nats=step_mean,
    )


def _is_apart(link: BisectLink) -> bool:
    return link.step_agreement < PARTED_AGREEMENT or link.step_nats > PARTED_NATS
