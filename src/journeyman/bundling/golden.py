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
from journeyman.inference.engines import engine_identity, running_engine
from journeyman.manifests import BundleManifest, GoldenAnswer, GoldenAnswers, Trial
from journeyman.protocols import EngineSettings, ServingEngine
from journeyman.records import EVERY_ROLE, Message
from journeyman.rendering.renderer import Renderer

GOLDEN_FILE = "golden.json"
_ASKED = (
    "Say in one sentence what you do.", "Give an example of your answers.", "Begin.", "Hello!", "What is 7 times 8?",
    "Write a haiku about rain.",
)  # fmt: skip
_TOKENS, _LIKELIEST = 16, 64
_ENOUGH = 4
"""Tokens of an answer, with the one that ends it, that say enough; a shorter one is used if there is no longer one."""
NEAR_NATS = 0.5
"""By how much another token may be likelier than the golden one. The 8-bit activations of llama.cpp alone change log
probabilities by 0.05 to 0.15, see stages/bisect.py."""

MOST_NATS = 99.0
"""What stands for larger and unknown differences in manifests, which have no infinity."""


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
    return GoldenAnswers(engine=_engine(bundle, threads), answers=answers)


def record_merged(
    bundle: BundleManifest, name: str, merged: Path, renderer: Renderer, threads: int | None
) -> GoldenAnswers:
    """Asks a merged file that was evaluated; raises as `record` does.

    Args:
        name: of the adapter that is merged into it.
    """
    answer = _answer(bundle, name, merged, None, renderer, threads)
    return GoldenAnswers(engine=_engine(bundle, threads), answers=[answer])


def _engine(bundle: BundleManifest, threads: int | None) -> str:
    """The engine in the wheel, which answers the golden prompt also if the user's own was evaluated."""
    return engine_identity(bundle.settings["context"], 1, threads).line()


def _answer(
    bundle: BundleManifest, name: str, base: Path, adapter: Path | None, renderer: Renderer, threads: int | None
) -> GoldenAnswer:
    """Of a few prompts, the first to which the base alone gives another answer of at least a few tokens; if there is
    none, the longest of the others to which it gives another answer, or the one whose tokens are the least likely for
    it."""
    role = bundle.roles[0] if name == EVERY_ROLE else name
    prompt = bundle.system_prompts.get(role)
    system = [Message(role="system", content=prompt)] if prompt is not None else []
    found: list[GoldenAnswer] = []
    with running_engine(settings_of(bundle, base, adapter, threads)) as engine:
        for asked in _ASKED:
            messages = [*system, Message(role="user", content=asked)]
            ids = renderer.prompt_ids(messages)
            answer = GoldenAnswer(
                adapter=name, role=role, prompt=renderer.prompt_text(messages), prompt_ids=ids,
                answer_ids=engine.greedy(ids, _TOKENS),
            )  # fmt: skip
            if answer.answer_ids:
                alone = None if adapter is None else _most(differences(answer, _BaseAlone(engine)))
                found.append(answer.model_copy(update={"base_nats": alone}))
                if _differs(found[-1]) and len(found[-1].answer_ids) >= _ENOUGH:
                    return found[-1]
    if not found:
        raise EngineError(f"{base}: answers the golden prompts of {named(role)} with nothing", "Train it again")
    others = [one for one in found if _differs(one)]
    if others:
        return max(others, key=lambda one: len(one.answer_ids))
    return max(found, key=lambda one: one.base_nats or 0.0)


def _differs(answer: GoldenAnswer) -> bool:
    """Whether the base alone would be refused; without an adapter, there is nothing to compare with."""
    return answer.base_nats is None or answer.base_nats > NEAR_NATS


class _BaseAlone:
    """An engine whose adapter is not active."""

    def __init__(self, engine: ServingEngine) -> None:
        self._engine = engine

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        return self._engine.greedy(ids, count, adapted=False)

    def next_tokens(self, ids: Sequence[int], count: int) -> Mapping[int, float]:
        return self._engine.next_tokens(ids, count, adapted=False)


def _most(found: Sequence[tuple[int, float]]) -> float:
    return min(MOST_NATS, max((gap for _, gap in found), default=0.0))


def settings_of(bundle: BundleManifest, base: Path, adapter: Path | None, threads: int | None) -> EngineSettings:
    """The engine for one adapter, which is active in every answer; None: for a base alone."""
    adapters = {} if adapter is None else {EVERY_ROLE: adapter}
    return EngineSettings(base, adapters, bundle.settings["context"], threads, 0.0)


def compare(golden: GoldenAnswer, answerer: Answerer, program: str, place: Path, remedy: str) -> Trial:
    """Puts the golden prompt to a form of the model, and the golden tokens where it chooses others.

    Args:
        program: what computes, for the record.
        place: the target's folder, and what can be done, for the error.

    Raises:
        InputError: it chooses a token that is not about as likely as the golden one.
    """
    found = differences(golden, answerer)
    expected = golden.answer_ids
    at, gap = next(((at, gap) for at, gap in found if not gap <= NEAR_NATS), (0, 0.0))
    if gap:
        raise InputError(
            f"{place}: {program} does not answer the golden prompt as the evaluated files do: token {at + 1} of "
            f"{len(expected)} is another one, {gap:.2f} nats likelier",
            remedy,
        )
    return Trial(
        adapter=golden.adapter, program=program, outcome="near" if found else "same", tokens=len(expected),
        differing=len(found), most_nats=_most(found), base_nats=golden.base_nats,
    )  # fmt: skip


def differences(golden: GoldenAnswer, answerer: Answerer) -> list[tuple[int, float]]:
    """Where it chooses another token than the golden one after the golden tokens so far, and how much likelier that is.

    Unknown gaps are infinite.
    """
    expected, at, found = golden.answer_ids, 0, []
    while at < len(expected):
        tokens = answerer.greedy([*golden.prompt_ids, *expected[:at]], len(expected) - at)
        pairs = zip(expected[at:], [*tokens, *[None] * len(expected)], strict=False)
        at += next((number for number, (one, other) in enumerate(pairs) if one != other), len(expected) - at)
        if at < len(expected):
            likely = answerer.next_tokens([*golden.prompt_ids, *expected[:at]], _LIKELIEST)
            found.append((at, max(likely.values(), default=math.inf) - likely.get(expected[at], -math.inf)))
            at += 1
    return found
