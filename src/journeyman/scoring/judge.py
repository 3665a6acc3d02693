"""judge: a model behind an OpenAI-compatible endpoint finds the answer at least as good as the teacher's.

It is asked twice, with the answers in either order, because judges prefer places (Zheng et al., 2023, arXiv
2306.05685). An answer passes where it is never found worse and fails where it is found worse and never better; a judge
that contradicts itself when the places are swapped, or that cannot be reached, decides nothing.
"""

from __future__ import annotations

import os
import re

import httpx

from journeyman.config import JudgeConfig
from journeyman.scoring.checks import Answer, Check, Finding

_TIMEOUT_S = 120.0
_RULES = (
    "You compare two answers to one task. Judge by how well each does what the task asks, not by length or style. "
    "Reply with one word: 1 if the first answer is better, 2 if the second is better, same if they are equally good."
)


def judge_check(config: JudgeConfig) -> Check:
    """The check that asks the endpoint of `config`."""

    def judge(answer: Answer) -> Finding:
        reference = answer.expected_text()
        if not reference or not answer.task:
            return Finding("unscored", "neither check.expected nor the teacher gives an answer to compare with")
        try:
            first = _ask(config, answer.task, answer.text, reference)
            second = _ask(config, answer.task, reference, answer.text)
        except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
            return Finding("unscored", f"the judge {config.model}: {type(error).__name__}: {error}"[:300])
        points = {"1": 1, "same": 0, "2": -1}
        gained = [points[first], -points[second]]
        told = f"{config.model} says {first} with the answer first, {second} with it second"
        if gained[0] * gained[1] < 0:
            return Finding("unscored", f"{told}: it contradicts itself")
        return Finding("pass" if sum(gained) >= 0 else "fail", told)

    return judge


def _ask(config: JudgeConfig, task: str, one: str, two: str) -> str:
    """ "1", "2" or "same". ValueError where the reply is none of these."""
    text = f"# Task\n{task}\n\n# First answer\n{one}\n\n# Second answer\n{two}\n\n# Which is better: 1, 2 or same?"
    body = {
        "model": config.model,
        "temperature": 0,
        "max_tokens": 8,
        "messages": [{"role": "system", "content": _RULES}, {"role": "user", "content": text}],
    }
    key = os.environ.get(config.key_env)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    response = httpx.post(f"{config.url.rstrip('/')}/chat/completions", json=body, headers=headers, timeout=_TIMEOUT_S)
    response.raise_for_status()
    reply = str(response.json()["choices"][0]["message"]["content"])
    found = re.search(r"\b(1|2|same)\b", reply.lower())
    if found is None:
        raise ValueError(f"it replied {reply[:60]!r}")
    return found[1]
