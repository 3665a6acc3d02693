"""What llama.cpp expects next: the independent reference for log probabilities."""

from __future__ import annotations

from typing import Any

import torch

_LETTER = 80


def next_tokens(engine: Any, ids: torch.Tensor, adapter: bool = True) -> dict[int, float]:
    """llama.cpp's log probability of every token after `ids`, with all adapters active or none."""
    body = {
        "prompt": ids.tolist(), "n_predict": 1, "n_probs": 256, "temperature": 0.0, "cache_prompt": False,
        "lora": [{"id": number, "scale": float(adapter)} for number in range(len(engine.settings.adapters))],
        "logit_bias": [[_LETTER, 1000.0]],  # it changes the answer only: half a character would not be sent
    }  # fmt: skip
    (likely,) = engine._post("/completion", body)["completion_probabilities"]
    return {one["id"]: one["logprob"] for one in likely["top_logprobs"]}


def largest_difference(theirs: dict[int, float], ours_V: torch.Tensor) -> float:
    """Between the engine's log probabilities and those of the logits `ours_V`."""
    assert len(theirs) >= 200
    logs_V = ours_V.log_softmax(-1)
    return max(abs(value - logs_V[token].item()) for token, value in theirs.items())
