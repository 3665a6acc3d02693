"""An OpenAI-compatible endpoint as an arm: vLLM, Ollama, llama-server, a teacher asked again.

journeyman cannot see which file an endpoint serves, which prompt it makes, or how much memory it uses.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from journeyman.config import EndpointConfig
from journeyman.errors import EngineError
from journeyman.http_client import PATIENT, BrokenAnswer, Refused, Retry, client, posted
from journeyman.inference.chat import events_of, read_answer, request_body
from journeyman.keys import bearer, key_of, said_by_server
from journeyman.protocols import Question
from journeyman.records import Prediction

_TIMEOUT_S = 600.0


class Endpoint:
    """A Generator over HTTP. Use `open_endpoint`, which closes it.

    Attributes:
        setting: the section of the config file that names it.
    """

    replicas = 1

    def __init__(self, name: str, config: EndpointConfig, temperature: float, retry: Retry = PATIENT) -> None:
        self._name, self._config, self._temperature, self._retry = name, config, temperature, retry
        self.setting = f"evaluate.endpoints.{name}"
        self._key = key_of(config.key_env)
        self._http = client(bearer(self._key), _TIMEOUT_S)
        self._url = f"{config.url.rstrip('/')}/chat/completions"

    def generate(self, question: Question, on_token: Callable[[int], None] | None = None) -> Prediction:
        """One answer. Temporary failures (too many requests, a server that restarts) are retried a few times. During
        the waits, `on_token` is called with 0; it may raise to cancel the request.

        Raises:
            EngineError: the endpoint does not answer, or refuses. An outage says nothing about a model, so it is not
                counted as a failed answer: the evaluation stops, and resumes when it is run again.
        """
        body = {**request_body(question, self._temperature), "model": self._model(question)}

        def read(response: httpx.Response, start: float) -> Prediction:
            try:
                answer = read_answer(events_of(response.iter_bytes()), question, on_token, start)
            except json.JSONDecodeError as error:
                raise BrokenAnswer(f"JSONDecodeError: {error}") from error
            if answer.finish_reason == "error":
                raise BrokenAnswer("the answer broke off")
            return answer

        def look() -> None:
            if on_token is not None:
                on_token(0)

        try:
            return posted(self._http, self._url, body, read, self._retry, look)
        except httpx.HTTPError as error:
            known = isinstance(error, Refused | BrokenAnswer)
            why = str(error) if known else f"{type(error).__name__}: {error}"
            raise EngineError(
                f"the endpoint {self._name} ({self._url}, model {body['model']!r}): {self.said(why)}",
                f"Fix the endpoint or {self.setting}, then run the same command again: answers are cached",
            ) from error

    def identity(self, question: Question) -> dict[str, Any]:
        return {"url": self._url, "model": self._model(question), "temperature": self._temperature}

    def peak_memory_bytes(self) -> int | None:
        return None

    def said(self, text: str) -> str:
        """A message of the server, safe to show."""
        return said_by_server(text, self._key, 200)

    def close(self) -> None:
        self._http.close()

    def _model(self, question: Question) -> str:
        return self._config.model.replace("{role}", question.role)


@contextmanager
def open_endpoint(name: str, config: EndpointConfig, temperature: float) -> Iterator[Endpoint]:
    """Opens an endpoint and closes its connections at the end."""
    endpoint = Endpoint(name, config, temperature)
    try:
        yield endpoint
    finally:
        endpoint.close()
