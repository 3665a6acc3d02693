"""The serving engine's probabilities of the next token, for comparison with the decoder's."""

from __future__ import annotations

from typing import Any

from torch import Tensor

_LETTER = 80
"""An ASCII letter in every tiny model, whose tokens are bytes."""


def next_tokens(engine: Any, ids: Tensor, adapter: bool = False) -> dict[int, float]:
    """llama.cpp's log probability of every token after `ids`.

    Args:
        engine: an inference.llama.LlamaEngine.
        adapter: with the engine's only adapter, if it has one.
    """
    body = {
        "prompt": ids.tolist(), "n_predict": 1, "n_probs": 256, "temperature": 0.0, "cache_prompt": False,
        "logit_bias": [[_LETTER, 1000.0]],  # it changes the answer only: half a character would not be sent
        "lora": [{"id": 0, "scale": float(adapter)}] if engine.settings.adapters else [],
    }  # fmt: skip
    (likely,) = engine._post("/completion", body)["completion_probabilities"]
    return {one["id"]: one["logprob"] for one in likely["top_logprobs"]}
