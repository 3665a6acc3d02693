"""The golden prompt: what the evaluated files answer to it, every other form of them must answer as well.

Each token is the likeliest one, so the same computation gives the same tokens. Weights in another format, or another
program, compute slightly other numbers: a token may then be another one where two were about equally likely. A larger
difference means that what was made is not the model that was trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from journeyman.errors import EngineError, InputError
from journeyman.foreign import named
from journeyman.inference.engines import running_engine
from journeyman.manifests import BundleManifest, GoldenAnswer, GoldenAnswers, Trial
from journeyman.protocols import EngineSettings
from journeyman.records import EVERY_ROLE, Message
from journeyman.rendering.renderer import Renderer

GOLDEN_FILE = "golden.json"
_ASKED = "Say in one sentence what you do."
_TOKENS, _LIKELIEST = 16, 64
NEAR_NATS = 0.5
"""By how much another token may be likelier than the golden one. The 8-bit activations of llama.cpp alone change log
probabilities by 0.05 to 0.15, see stages/bisect.py."""


class Answerer(Protocol):
    """What computes the next tokens: an engine, or `transformers`."""

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """Up to `count` tokens after `ids`, each the likeliest one."""

    def next_tokens(self, ids: Sequence[int], count: int) -> Mapping[int, float]:
        """Log probabilities of the `count` likeliest tokens after `ids`."""


def record(bundle: BundleManifest, place: Path, renderer: Renderer, threads: int | None) -> GoldenAnswers:
    """Asks the files of a bundle, as they were evaluated.

    Raises:
        EngineError: the engine fails, or a system prompt of the bundle does not fit into its context.
        InputError: the chat template refuses the prompt.
    """
    base = place / bundle.base_file
    answers = [
        _answer(bundle, name, base, place / file, renderer, threads) for name, file in bundle.adapter_files.items()
    ]
    assert bundle.engine is not None, "this version records it in every bundle"
    return GoldenAnswers(engine=bundle.engine.line(), answers=answers)


def record_merged(
    bundle: BundleManifest, name: str, merged: Path, renderer: Renderer, threads: int | None
) -> GoldenAnswers:
    """Asks a merged file that was evaluated; raises as `record` does.

    Args:
        name: of the adapter that is merged into it.
    """
    answer = _answer(bundle, name, merged, None, renderer, threads)
    assert bundle.engine is not None, "this version records it in every bundle"
    return GoldenAnswers(engine=bundle.engine.line(), answers=[answer])


def _answer(
    bundle: BundleManifest, name: str, base: Path, adapter: Path | None, renderer: Renderer, threads: int | None
) -> GoldenAnswer:
    role = bundle.roles[0] if name == EVERY_ROLE else name
    prompt = bundle.system_prompts.get(role)
    messages = [Message(role="system", content=prompt)] if prompt is not None else []
    messages.append(Message(role="user", content=_ASKED))
    ids = renderer.prompt_ids(messages)
    with running_engine(settings_of(bundle, base, adapter, threads)) as engine:
        found = engine.greedy(ids, _TOKENS)
    if not found:
        raise EngineError(f"{base}: answers the golden prompt of {named(role)} with nothing", "Train it again")
    return GoldenAnswer(
        adapter=name, role=role, prompt=renderer.prompt_text(messages), prompt_ids=ids, answer_ids=found
    )


def settings_of(bundle: BundleManifest, base: Path, adapter: Path | None, threads: int | None) -> EngineSettings:
    """The engine for one adapter, which is active in every answer; None: for a base alone."""
    adapters = {} if adapter is None else {EVERY_ROLE: adapter}
    return EngineSettings(base, adapters, bundle.settings["context"], threads, 0.0)


def compare(golden: GoldenAnswer, answerer: Answerer, program: str, place: Path) -> Trial:
    """Puts the golden prompt to a form of the model, and the golden tokens where it chooses others.

    Args:
        program: what computes, for the record.
        place: the target's folder, for the error.

    Raises:
        InputError: it chooses a token that is not about as likely as the golden one.
    """
    expected, at, differing, most = golden.answer_ids, 0, 0, 0.0
    while at < len(expected):
        so_far = [*golden.prompt_ids, *expected[:at]]
        found = answerer.greedy(so_far, len(expected) - at)
        pairs = zip(expected[at:], [*found, *[None] * len(expected)], strict=False)
        same = next((number for number, (one, other) in enumerate(pairs) if one != other), len(expected) - at)
        at += same
        if at == len(expected):
            break
        likely = answerer.next_tokens([*golden.prompt_ids, *expected[:at]], _LIKELIEST)
        gap = max(likely.values(), default=math.inf) - likely.get(expected[at], -math.inf)
        if not gap <= NEAR_NATS:
            raise InputError(
                f"{place}: {program} does not answer the golden prompt as the evaluated files do: token {at + 1} of "
                f"{len(expected)} is another one, {gap:.2f} nats likelier",
                "Choose a --quantization with more bits, evaluate the merged file (evaluate.merged), or ship base and "
                "adapter (--target llama.cpp)",
            )
        differing, most, at = differing + 1, max(most, gap), at + 1
    return Trial(
        adapter=golden.adapter, program=program, outcome="near" if differing else "same", tokens=len(expected),
        differing=differing, most_nats=most,
    )  # fmt: skip
