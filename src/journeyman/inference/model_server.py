"""A server, such as vLLM, with the base's Hugging Face folder and its adapters: an arm that may ship.

What can be verified about it depends on its API. vLLM makes token ids of a conversation (/tokenize), so that prompts
can be compared with those of training, and returns the log probabilities of a prompt's tokens (/v1/completions with
`echo`), so that its weights can be compared with those that were trained: see weights_proof.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from journeyman.artifacts import sha256_of
from journeyman.config import EndpointConfig, ServerConfig
from journeyman.errors import EngineError
from journeyman.foreign import plain
from journeyman.http_client import PATIENT, BrokenAnswer, Refused, Retry, posted
from journeyman.inference.chat import conversation
from journeyman.inference.endpoint import Endpoint
from journeyman.inference.remote import root_of
from journeyman.inference.vllm import vllm_command
from journeyman.models.base import PeftBase
from journeyman.protocols import Question, adapter_of
from journeyman.records import Message

SETTING = "evaluate.server"
PEFT_FILES = ("adapter_config.json", "adapter_model.safetensors")
_UNSUPPORTED = (400, 404, 405, 422, 501)
"""Statuses of servers without a function, or with another form of it."""


@dataclass(frozen=True)
class ServedFolder:
    """What the server has to serve.

    Attributes:
        base: the folder as peft and vLLM name it.
        sha256: the folder's hash.
        path: the folder.
        adapters: 'all' or role → its folder in peft's format.
        rank: of the adapters.
        context: tokens of prompt and answer.
    """

    config: ServerConfig
    base: PeftBase
    sha256: str
    path: Path
    adapters: Mapping[str, Path]
    rank: int
    context: int

    @property
    def base_model(self) -> str:
        """The base's name in requests."""
        return self.config.base_model or self.base.name

    @property
    def tuned_models(self) -> dict[str, str]:
        """Adapter → its name in requests, which contains its hash: an earlier adapter cannot answer under it."""
        pattern = self.config.tuned_model
        return {name: pattern.replace("{adapter}", hash_of_peft(one)[:12]) for name, one in self.adapters.items()}

    def adapter_of(self, role: str) -> str | None:
        """The name of the adapter that answers for a role; None: the base."""
        return adapter_of(role, self.adapters)

    def command(self, folders: Mapping[str, str] | None = None, defaults: Mapping[str, object] | None = None) -> str:
        """What starts vLLM with it.

        Args:
            folders: adapter → its folder; None: where they are now.
            defaults: see vllm.defaults_of; None: vLLM's own, as every question of an evaluation says what it needs.
        """
        places = folders or {name: str(path) for name, path in self.adapters.items()}
        named = {self.tuned_models[name]: place for name, place in places.items()}
        base, revision = self.base.name, self.base.revision
        return vllm_command(base, revision, self.base_model, named, self.rank, self.context, self.config.url, defaults)


def hash_of_peft(folder: Path) -> str:
    """The hash of an adapter in peft's format: SHA-256 of the SHA-256 of its two files."""
    return hashlib.sha256("".join(sha256_of(folder / name) for name in PEFT_FILES).encode()).hexdigest()


class ModelServer(Endpoint):
    """A Generator over HTTP. Use `open_server`."""

    def __init__(self, served: ServedFolder, temperature: float, retry: Retry = PATIENT) -> None:
        config = served.config
        endpoint = EndpointConfig(url=config.url, model=served.base_model, key_env=config.key_env)
        super().__init__("server", endpoint, temperature, retry)
        self.served, self.setting = served, SETTING
        self._names: dict[str | None, str] = {None: served.base_model}
        self._names.update(served.tuned_models)
        self._v1, self._root = config.url.rstrip("/"), root_of(config.url)

    def check(self) -> str:
        """Checks that the server has the base and every adapter; returns its version, or '' if it does not say.

        Raises:
            EngineError: it cannot be reached, a model is missing or belongs to another base, or its context is
                smaller.
        """
        served = self.served
        try:
            cards = _cards(self._http.get(f"{self._v1}/models"))
        except (httpx.HTTPError, ValueError) as error:
            raise self._error(f"does not list its models: {type(error).__name__}: {error}") from error
        for name in self._names.values():
            if name not in cards:
                listed = ", ".join(plain(one, 80) for one in cards) or "none"
                raise self._error(f"has no model {name!r}, but: {listed}")
            parent = cards[name].get("parent")
            if name != served.base_model and parent not in (None, served.base_model):
                raise self._error(f"has the adapter {name!r} on another base, {plain(str(parent), 80)!r}")
        length = cards[served.base_model].get("max_model_len")
        if isinstance(length, int) and length < served.context:
            raise self._error(f"has a context of {length} tokens, and evaluate.context is {served.context}")
        return self._version()

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> list[int] | None:
        """The token ids that the server makes of a conversation; None if it does not say."""
        asked = {"model": self.served.base_model, **conversation(messages, tools), "add_generation_prompt": True}
        found = self._asked(f"{self._root}/tokenize", asked)
        ids = found.get("tokens") if found is not None and "max_model_len" in found else None
        return ids if isinstance(ids, list) and all(isinstance(one, int) for one in ids) else None

    def log_probabilities(self, adapter: str | None, ids: Sequence[int]) -> list[float] | None:
        """The log probability of every token of a text but the first; None if the server does not say."""
        asked = {
            "model": self._names[adapter], "prompt": list(ids), "max_tokens": 1, "echo": True, "logprobs": 1,
            "temperature": 0.0,
        }  # fmt: skip
        found = self._asked(f"{self._v1}/completions", asked)
        try:
            values = found["choices"][0]["logprobs"]["token_logprobs"] if found is not None else None
        except (KeyError, IndexError, TypeError):
            return None
        if not isinstance(values, list) or len(values) != len(ids) + 1:  # with the token that was generated
            return None
        inner = values[1:-1]
        return [float(one) for one in inner] if all(isinstance(one, int | float) for one in inner) else None

    def identity(self, question: Question) -> dict[str, Any]:
        adapter = question.adapter
        return {
            **super().identity(question),
            "base": self.served.sha256,
            "adapter": None if adapter is None else hash_of_peft(self.served.adapters[adapter]),
        }

    def _model(self, question: Question) -> str:
        return self._names[question.adapter]

    def _asked(self, url: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """The JSON object in the answer; None if the server does not have this function."""

        def read(response: httpx.Response, start: float) -> Any:
            response.read()
            try:
                return response.json()
            except ValueError as error:
                raise BrokenAnswer(f"{type(error).__name__}: {error}") from error

        try:
            found = posted(self._http, url, body, read, self._retry)
        except Refused as error:
            if error.status in _UNSUPPORTED:
                return None
            raise self._error(str(error)) from error
        except httpx.HTTPError as error:
            raise self._error(f"{type(error).__name__}: {error}") from error
        return found if isinstance(found, dict) else None

    def _version(self) -> str:
        try:
            found: Any = self._http.get(f"{self._root}/version").json()
        except (httpx.HTTPError, ValueError):
            return ""
        version = found.get("version") if isinstance(found, dict) else None
        return plain(version, 60) if isinstance(version, str) else ""

    def _error(self, why: str) -> EngineError:
        return EngineError(
            f"{SETTING}: {self._v1} {self.said(why)}",
            f"Start it, then run the same command again: {self.served.command()}",
        )


@contextmanager
def open_server(served: ServedFolder, temperature: float) -> Iterator[ModelServer]:
    """Opens the server and closes its connections at the end."""
    server = ModelServer(served, temperature)
    try:
        yield server
    finally:
        server.close()


def _cards(response: httpx.Response) -> dict[str, dict[str, Any]]:
    """Model → its entry in the list of models."""
    if response.status_code != 200:
        raise Refused(response, response.text[:200])
    found = response.json()
    data = found.get("data") if isinstance(found, dict) else None
    if not isinstance(data, list):
        raise ValueError("no list of models")
    return {str(one["id"]): one for one in data if isinstance(one, dict) and "id" in one}
