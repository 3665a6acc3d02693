"""Prompts of a made-up language, with frequent and rare words, so that every prompt has some that no other has."""

from __future__ import annotations

import numpy as np

from journeyman.monitoring.prompts import Prompt, prompt_of

_WEIGHTS = 1 / np.arange(1, 4001)
_WEIGHTS /= _WEIGHTS.sum()


def texts(
    rng: np.random.Generator, count: int, *, words: float = 40, frames: int = 0, foreign: float = 0.0
) -> list[str]:
    """Questions.

    Args:
        words: median length.
        frames: number of the first of five texts, one of which each question begins with.
        foreign: share of words that are drawn from another vocabulary.
    """
    made = []
    for length in np.maximum(3, rng.lognormal(np.log(words), 0.5, count)).astype(int):
        chosen = rng.choice(len(_WEIGHTS), length, p=_WEIGHTS)
        chosen = np.where(rng.random(length) < foreign, chosen + 100_000, chosen)
        frame = np.random.default_rng(frames + rng.integers(5)).choice(300, 30)
        made.append(" ".join(f"w{number}" for number in [*frame, *chosen]))
    return made


def tool(name: str) -> dict[str, object]:
    return {"type": "function", "function": {"name": name, "parameters": {}}}


def prompts(rng: np.random.Generator, count: int, *, odd_tools: float = 0.0, **changes: float) -> list[Prompt]:
    """Prompts; `odd_tools`: the share that offers another set of tools."""
    sets = [[tool("read"), tool("write")], [tool("read")], [tool("shell")]]
    chances = [0.7 * (1 - odd_tools), 0.3 * (1 - odd_tools), odd_tools]
    return [
        prompt_of(
            [{"role": "system", "content": "S"}, {"role": "user", "content": text}], sets[rng.choice(3, p=chances)]
        )
        for text in texts(rng, count, **changes)  # type: ignore[arg-type]
    ]
