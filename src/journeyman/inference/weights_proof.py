"""Compares what a server computes with what was trained, by the log probabilities of texts, token by token.

A server that has another base, another adapter or none under the expected name is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from journeyman.errors import EngineError
from journeyman.inference.model_server import SETTING, ModelServer
from journeyman.manifests import ComparedWeights

MOST_NATS = 0.25
"""Servers compute in bfloat16 or with 8-bit weights, and other kernels: 0.01 to 0.1 on average. Another fine-tuned
version of the same base differs by more."""
_UNLIKELY = -7.0
"""Less likely tokens are left out, because their log probabilities are the least precise."""
_LEAST_EFFECT = 0.02
"""Nats; a server's rounding can hide an adapter that changes less."""

Text = tuple[str, Sequence[int]]
"""The name of an adapter, and the token ids of a prompt with its answer."""
Reference = Callable[[Sequence[Text]], Sequence[tuple[list[float], list[float]]]]
"""For each text, the log probability of every token but the first: by the base alone, and with the adapter."""


def compare_weights(server: ModelServer, texts: Sequence[Text], reference: Reference) -> ComparedWeights | None:
    """Compares base and adapters on these texts; None if the server does not return log probabilities.

    Raises:
        EngineError: the server computes something else.
    """
    said: list[tuple[list[float], list[float]]] = []
    for adapter, ids in texts:
        base, tuned = server.log_probabilities(None, ids), server.log_probabilities(adapter, ids)
        if base is None or tuned is None:
            return None
        said.append((base, tuned))
    ours = reference(texts)
    bases, tuneds = ([one[side] for one in said] for side in (0, 1))
    our_bases, our_tuneds = ([one[side] for one in ours] for side in (0, 1))
    base_nats, tuned_nats = _apart(bases, our_bases), _apart(tuneds, our_tuneds)
    names = server.served
    if base_nats > MOST_NATS:
        raise _refusal(names.base_model, f"other weights than {names.path}", base_nats)
    tuned_names = ", ".join(sorted({names.tuned_models[adapter] for adapter, _ in texts}))
    effect = _apart(our_bases, our_tuneds)
    if effect > _LEAST_EFFECT and _apart(bases, tuneds) < effect / 2:
        raise _refusal(tuned_names, "the base without the adapter", tuned_nats)
    if tuned_nats > MOST_NATS:
        raise _refusal(tuned_names, "another adapter than the one that was trained", tuned_nats)
    return ComparedWeights(tokens=sum(map(len, bases)), base_nats=base_nats, tuned_nats=tuned_nats)


def _apart(some: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> float:
    """The mean difference over all tokens that one of the two considers possible."""
    pairs = [pair for one, other in zip(some, others, strict=True) for pair in zip(one, other, strict=True)]
    differences = [abs(a - b) for a, b in pairs if max(a, b) > _UNLIKELY]
    return sum(differences) / len(differences) if differences else 0.0


def _refusal(model: str, what: str, nats: float) -> EngineError:
    return EngineError(
        f"{SETTING}: {model!r} is {what}: log probabilities of tokens differ by {nats:.2f} nats on average",
        "Serve base.model's folder and the adapter in 04-adapter",
    )
