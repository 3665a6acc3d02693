"""Log probabilities: every API gives those that were asked for, with as many alternatives as were asked for."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from fake_engine import FakeEngine
from test_dialects import CHAT, COMPLETIONS, RESPONSES, ask, base, client, engine, events_of

__all__ = ["base", "client", "engine"]  # fixtures

INCLUDE = {"include": ["message.output_text.logprobs"]}
WANTED: list[tuple[str, dict[str, Any], int]] = [
    (CHAT, {"logprobs": True}, 0), (CHAT, {"logprobs": True, "top_logprobs": 0}, 0),
    (CHAT, {"logprobs": True, "top_logprobs": 2}, 2), (COMPLETIONS, {"logprobs": 0}, 0),
    (COMPLETIONS, {"logprobs": 3}, 3), (RESPONSES, INCLUDE, 0), (RESPONSES, {**INCLUDE, "top_logprobs": 2}, 2),
]  # fmt: skip


def _found(api: str, body: Any) -> list[int]:
    """The number of alternatives to each token in an answer or in a chunk."""
    if api == RESPONSES:
        texts = [part for item in body["output"] for part in item["content"]] if "output" in body else [body]
        return [len(one["top_logprobs"]) for text in texts for one in text["logprobs"]]
    (given,) = [choice.get("logprobs") for choice in body["choices"]]
    if api == COMPLETIONS:
        return [] if given is None else list(map(len, given["top_logprobs"]))
    return [len(one["top_logprobs"]) for one in given["content"]] if given else []


@pytest.mark.parametrize(("api", "fields", "alternatives"), WANTED)
@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_are_those_that_were_asked_for(
    client: TestClient, engine: FakeEngine, api: str, fields: dict[str, Any], alternatives: int, stream: bool
) -> None:
    engine.logprobs, engine.says = True, ["a", "b", "c", "d"]
    answer = ask(client, api, **fields, stream=stream)
    assert engine.asked[-1]["logprobs"] is True and engine.asked[-1]["top_logprobs"] == max(1, alternatives)
    if not stream:
        assert _found(api, answer.json()) == [alternatives]
        return
    events = [data for name, data in events_of(answer.text)]
    if api == RESPONSES:
        events = [one for one in events if one["type"] == "response.output_text.delta"]
    else:
        events = [one for one in events if one.get("choices")]
    assert [count for one in events for count in _found(api, one)] == [alternatives] * 3


@pytest.mark.parametrize(
    ("api", "fields"), [(CHAT, {"logprobs": False}), (CHAT, {}), (COMPLETIONS, {}), (RESPONSES, {})]
)
def test_nobody_gets_log_probabilities_unasked(
    client: TestClient, engine: FakeEngine, api: str, fields: dict[str, Any]
) -> None:
    engine.logprobs = True
    answer = ask(client, api, **fields)
    assert _found(api, answer.json()) == [] and not engine.asked[-1].get("logprobs")
