"""An engine that runs elsewhere: the user's own llama-server, vLLM, or another OpenAI-compatible server, by its URL.

What can be verified depends on its API. llama-server says which adapters it has loaded and which text its chat template
makes of a conversation. vLLM says which models it has; there, each adapter is a model. Which base file answers, none of
them proves: `check_engine` compares only what they say of themselves.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any

import httpx

from journeyman.engine_identity import EngineIdentity
from journeyman.errors import EngineError
from journeyman.foreign import plain
from journeyman.http_client import engine_client
from journeyman.keys import bearer, said_by_server
from journeyman.protocols import EngineSettings, Pulse

_LOOK_EVERY_S = 2.0
_TIMEOUT_S = 10.0
LLAMA_SERVER = "llama-server"
UNKNOWN_VERSION = "unknown"
OPENAI = "OpenAI-compatible server"


def root_of(url: str) -> str:
    """A server's address, whether its URL is given with or without /v1 at its end."""
    return url.rstrip("/").removesuffix("/v1")


class RemoteEngine:
    """A ServedEngine over HTTP. The caller stops it, which ends no server.

    Args:
        url: with or without /v1 at its end.
        key: that the server needs; None: none.
        settings: what it has to serve.
        names: 'all' or role → the adapter's name in requests, and None → the base's, for servers on which an adapter is
            a model.

    Raises:
        EngineError: it cannot be reached, or lacks an adapter or a model.
    """

    def __init__(self, url: str, key: str | None, settings: EngineSettings, names: Mapping[str | None, str]) -> None:
        self.settings, self._key, self._names = settings, key, names
        self.files: Mapping[Path, str] = {}
        self.address = root_of(url)
        self.headers = bearer(key)
        self._http = engine_client(self.address, self.headers, _TIMEOUT_S)
        self._stopped = threading.Event()
        self._answers, self._why = True, ""
        try:
            adapters = self._llama_adapters()
            self.kind = OPENAI if adapters is None else LLAMA_SERVER
            self._ids = {} if adapters is None else self._ids_of(adapters)
            if adapters is None:
                self._check_models()
            self.engine_identity = EngineIdentity(name=self.kind, version=self._version())
        except BaseException:
            self._http.close()
            raise
        threading.Thread(target=self._watch, name="engine watch", daemon=True).start()

    def selection(self, role: str) -> dict[str, Any]:
        """The fields of a request that choose what answers for a role."""
        adapter = self.settings.adapter_of(role)
        if self.kind == OPENAI:
            return {"model": self._names[adapter]}
        return {"lora": [{"id": number, "scale": float(name == adapter)} for name, number in self._ids.items()]}

    def prompt_text(self, messages: Sequence[Mapping[str, Any]]) -> str | None:
        """The text that its chat template makes of a conversation; None if it does not say."""
        if self.kind == OPENAI:
            return None
        try:
            found = self._http.post(f"{self.address}/apply-template", json={"messages": list(messages)}).json()
        except (httpx.HTTPError, ValueError) as error:
            raise self._error(f"makes no prompt: {type(error).__name__}: {error}") from error
        prompt = found.get("prompt") if isinstance(found, dict) else None
        return prompt if isinstance(prompt, str) else None

    @property
    def alive(self) -> bool:
        """Whether it answered the last time that it was asked, which happens every other second."""
        return self._answers and not self._stopped.is_set()

    def pulse(self) -> Pulse | None:
        """None: it is its owner's to watch and to restart."""
        return None

    def how_it_ended(self) -> str:
        return f"at {self.address} does not answer: {self._why}"

    def kill(self) -> None:
        """Sends no more requests; the server itself goes on."""
        self._stopped.set()

    def stop(self) -> None:
        self._stopped.set()
        self._http.close()

    def _watch(self) -> None:
        while not self._stopped.wait(_LOOK_EVERY_S):
            with suppress(RuntimeError):  # closed in the meantime
                try:
                    status = self._http.get(f"{self.address}/health").status_code
                    self._answers, self._why = status < 500, f"status {status}"
                except httpx.HTTPError as error:
                    self._answers, self._why = False, f"{type(error).__name__}: {error}"
            if not self._answers:
                return  # a new object takes its place when the server answers again

    def _llama_adapters(self) -> list[Any] | None:
        """The adapters that llama-server has loaded; None if it is another server."""
        found = self._get("/lora-adapters")
        return found if isinstance(found, list) else None

    def _ids_of(self, loaded: Sequence[Any]) -> dict[str, int]:
        """Adapter → its number, recognized by the name of its file."""
        files = {
            PurePath(str(one.get("path"))).name: one["id"]
            for one in loaded
            if isinstance(one, dict) and isinstance(one.get("id"), int)
        }
        for path in self.settings.adapters.values():
            if path.name not in files:
                has = ", ".join(plain(name, 80) for name in files) or "none"
                raise self._error(f"has not loaded the adapter {path.name}, but: {has}")
        return {name: files[path.name] for name, path in self.settings.adapters.items()}

    def _check_models(self) -> None:
        found = self._get("/v1/models")
        data = found.get("data") if isinstance(found, dict) else None
        if not isinstance(data, list):
            raise self._error("lists no models")
        has = [str(one["id"]) for one in data if isinstance(one, dict) and "id" in one]
        needed = {self._names[name] for name in self.settings.adapters} or {self._names[None]}
        for name in sorted(needed - set(has)):
            listed = ", ".join(plain(one, 80) for one in has) or "none"
            raise self._error(f"has no model {plain(name, 80)!r}, but: {listed}")

    def _version(self) -> str:
        found: Any = self._get("/props" if self.kind == LLAMA_SERVER else "/version")
        version = found.get("build_info", found.get("version")) if isinstance(found, dict) else None
        return plain(version, 60) if isinstance(version, str) else UNKNOWN_VERSION

    def _get(self, path: str) -> Any:
        """The JSON at a path; None if there is none."""
        try:
            response = self._http.get(self.address + path)
        except httpx.HTTPError as error:
            raise self._error(f"cannot be reached: {type(error).__name__}: {error}") from error
        if response.status_code in (401, 403):
            raise self._error("wants a key or refuses this one")
        try:
            return response.json() if response.status_code == 200 else None
        except ValueError:
            return None

    def _error(self, why: str) -> EngineError:
        if self.settings.adapters:
            loras = " ".join(f"--lora {path.name}" for path in self.settings.adapters.values())
            how = f"in the bundle's folder: llama-server -m {self.settings.base.name} {loras} --lora-init-without-apply"
        else:
            how = f"llama-server -m {self.settings.base.name}"
        return EngineError(
            f"serve.engine_url: {self.address} {said_by_server(why, self._key, 300)}",
            f"Start it, for example {how}; for vLLM, serve.engine_model names the models",
        )
