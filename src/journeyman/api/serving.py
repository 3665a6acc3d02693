"""run.serve(): the port in a thread of this program, and a client for it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from journeyman.api.hosting import Host, hosted
from journeyman.api.html import facts
from journeyman.errors import EngineError, JourneymanError, UsageError
from journeyman.http_client import engine_client
from journeyman.keys import bearer
from journeyman.serving.dialects.chat import FIELDS

Messages = str | Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Reply:
    """One answer.

    Attributes:
        finish_reason: stop, length or tool_calls.
        tool_calls: as the chat completions API has them.
        raw: the whole response.
    """

    text: str
    finish_reason: str
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return self.text


class Server:
    """A bundle that is being served. Use it in a `with` statement, or call close.

    Attributes:
        url: the base URL of the OpenAI-compatible API.
        warnings: what was said at the start and since, such as that another machine evaluated the bundle.
    """

    url: str

    def __init__(
        self,
        folder: Path,
        port: int | None = None,
        *,
        allow_hosts: Sequence[str] = (),
        key_env: str | None = None,
        allow_other_engine: bool = False,
        releases: Path | None = None,
    ) -> None:
        """See Run.serve."""
        self.warnings: list[str] = []
        self._host: Host | None = None
        self._failed: BaseException | None = None
        self._ready = threading.Event()

        def work() -> None:
            # All of it in one thread: the system ends the engine together with the thread that started it.
            try:
                with hosted(
                    folder,
                    port,
                    allow_hosts,
                    key_env,
                    allow_other_engine=allow_other_engine,
                    told=self.warnings.append,
                    releases=releases,
                ) as self._host:
                    self._ready.set()
                    self._host.run()
            except BaseException as error:
                self._failed = error
            finally:
                self._ready.set()

        self._thread = threading.Thread(target=work, name="journeyman serve", daemon=True)
        self._thread.start()
        try:
            self._ready.wait()
        except BaseException:  # interrupted while the engine loads: it is stopped as soon as it is there
            threading.Thread(target=self.close, name="journeyman serve: close").start()
            raise
        if self._host is None:
            assert self._failed is not None
            raise self._failed
        self.url = self._host.address

    @property
    def roles(self) -> list[str]:
        """What may be asked: the names of the models, of the release that is served now."""
        assert self._host is not None, "otherwise the constructor has failed"
        return list(self._host.bundle.roles)

    @property
    def alive(self) -> bool:
        """False once it was closed, or has failed."""
        return self._thread.is_alive()

    def chat(self, role: str, messages: Messages, *, timeout_s: float = 600.0, **options: Any) -> Reply:
        """Asks a role.

        Args:
            messages: what the user says, or the turns of a conversation: [{"role": "user", "content": "…"}]. The
                system prompt that the role was trained with is added by the server.
            options: further fields of a chat completion: tools, max_tokens, temperature, response_format, …

        Raises:
            UsageError: there is no such role, or the server refuses the request.
            EngineError: the server has ended, or its engine fails.
        """
        if not self.alive or self._host is None:
            why = f": {self._failed}" if isinstance(self._failed, JourneymanError) else ""
            raise EngineError(f"the server on {self.url} has ended{why}", "Start it again: run.serve()")
        turns = (
            [{"role": "user", "content": messages}] if isinstance(messages, str) else [dict(one) for one in messages]
        )
        if unknown := options.keys() - FIELDS:
            raise UsageError(
                f"{', '.join(sorted(unknown))}: no field of a chat completion", f"Fields: {', '.join(sorted(FIELDS))}"
            )
        body = {**options, "model": role, "messages": turns, "stream": False}
        try:
            with engine_client(self.url, bearer(self._host.key), timeout_s) as http:
                response = http.post("chat/completions", json=body)
                found = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise EngineError(f"{self.url}: {type(error).__name__}: {error}", "Is server.alive still True?") from error
        if response.status_code != 200:
            said = found.get("error", {}).get("message", response.status_code)
            if response.status_code >= 500:
                raise EngineError(f"{self.url}: {said}", "Try again")
            raise UsageError(f"{self.url}: {said}", f"Its roles: {', '.join(self.roles)}")
        choice = found["choices"][0]
        message = choice["message"]
        return Reply(message.get("content") or "", choice["finish_reason"], message.get("tool_calls") or [], found)

    def close(self) -> None:
        """Stops the server: answers in progress get 5 s, everything together 10 s. Closing twice does no harm."""
        self._ready.wait()
        if self._host is not None:
            self._host.stop()
        self._thread.join()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Server of {', '.join(self.roles)} on {self.url}{'' if self.alive else ', closed'}>"

    def _repr_html_(self) -> str:
        state = "open" if self.alive else "closed"
        return facts("Server", {"url": self.url, "roles": ", ".join(self.roles), "state": state})
