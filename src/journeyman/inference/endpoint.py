"""An OpenAI-compatible endpoint as an arm: vLLM, Ollama, llama-server, a teacher asked anew.

What it serves cannot be seen from here: neither which file answers, nor which prompt it makes, nor its memory.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from journeyman.config import EndpointConfig
from journeyman.errors import EngineError
from journeyman.inference.chat import events_of, read_answer, request_body
from journeyman.keys import bearer, key_of, said_by_server
from journeyman.ports import Question
from journeyman.records import Prediction

_TIMEOUT_S = 600.0
_MOST_SAID = 1 << 16
"""Bytes of an error's text that are read."""
_TRIES, _FIRST_WAIT_S = 5, 0.5
_WORTH_ANOTHER_TRY = {408, 409, 429, 500, 502, 503, 504, 529}


class Endpoint:
    """A Generator over HTTP. Use `open_endpoint`, which closes it."""

    def __init__(self, name: str, config: EndpointConfig, temperature: float, first_wait_s: float = _FIRST_WAIT_S):
        self._name, self._config, self._temperature, self._first_wait_s = name, config, temperature, first_wait_s
        self._key = key_of(config.key_env)
        self._http = httpx.Client(headers=bearer(self._key), timeout=_TIMEOUT_S)
        self._url = f"{config.url.rstrip('/')}/chat/completions"

    def generate(self, question: Question, on_token: Callable[[int], None] | None = None) -> Prediction:
        """One answer. What may pass (too many requests, a server that restarts) is tried again, a few times.

        Raises:
            EngineError: it does not answer, or refuses. An outage says nothing about a model, so it is no failure of an
                answer: the evaluation stops, and goes on from there when it is run again.
        """
        body = {**request_body(question, self._temperature), "model": self._model(question)}
        wait, why = self._first_wait_s, ""
        for number in range(_TRIES):
            if number:
                time.sleep(wait)
                wait *= 2
            start = time.perf_counter()
            try:
                with self._http.stream("POST", self._url, json=body) as response:
                    if response.status_code == 200:
                        answer = read_answer(events_of(response.iter_bytes()), question, on_token, start)
                        if answer.finish_reason != "error":
                            return answer
                        why = "its answer broke off"
                        continue
                    why = (
                        f"{response.status_code} {next(response.iter_bytes(_MOST_SAID), b'').decode(errors='replace')}"
                    )
                    if response.status_code not in _WORTH_ANOTHER_TRY:
                        break
            except (httpx.HTTPError, json.JSONDecodeError) as error:
                why = f"{type(error).__name__}: {error}"
        raise EngineError(
            f"the endpoint {self._name} ({self._url}, model {body['model']!r}): {said_by_server(why, self._key, 200)}",
            f"Mend it or evaluate.endpoints.{self._name}, and run it again: what was answered is kept",
        )

    def identity(self, question: Question) -> dict[str, Any]:
        return {"url": self._url, "model": self._model(question), "temperature": self._temperature}

    def peak_memory_bytes(self) -> int | None:
        return None

    def close(self) -> None:
        self._http.close()

    def _model(self, question: Question) -> str:
        return self._config.model.replace("{role}", question.role)


@contextmanager
def open_endpoint(name: str, config: EndpointConfig, temperature: float) -> Iterator[Endpoint]:
    """An endpoint whose connections are closed at the end."""
    endpoint = Endpoint(name, config, temperature)
    try:
        yield endpoint
    finally:
        endpoint.close()
