"""Starts the engine process and speaks its OpenAI-compatible HTTP."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from journeyman.errors import EngineError
from journeyman.records import Message, Prediction, ToolCall

_START_TIMEOUT_S = 300.0
_REQUEST_TIMEOUT_S = 600.0
ONE_SHOT = httpx.Limits(max_keepalive_connections=0)
"""A connection a request: the server closes idle ones, and a request may meet one that is just closing."""


@dataclass(frozen=True)
class EngineSettings:
    """What the engine is started with and asks with.

    Attributes:
        adapters: 'all' or role → file. A role without one, where there is none for all, is answered by the base.
    """

    base: Path
    adapters: Mapping[str, Path]
    context: int
    threads: int | None
    max_new_tokens: int
    temperature: float

    def lora(self, role: str, arm: str = "tuned") -> list[dict[str, float]]:
        """The scale of each adapter for an answer, as the engine's requests take it."""
        mine = role if role in self.adapters else "all"
        return [
            {"id": number, "scale": float(arm == "tuned" and name == mine)} for number, name in enumerate(self.adapters)
        ]


class LlamaEngine:
    """A running engine; a Generator. Use `running_engine`, which stops it."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        start = time.perf_counter()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "journeyman.inference.engine"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C in the terminal is the parent's to handle
        )
        key = secrets.token_hex(16)
        try:
            self.address = self._wait_for_address(key)
            headers = {"Authorization": f"Bearer {key}"}
            self.http = httpx.Client(
                base_url=self.address, headers=headers, timeout=_REQUEST_TIMEOUT_S, trust_env=False, limits=ONE_SHOT
            )
            self.headers = headers
            self._warm_up()
        except BaseException:
            self.stop()
            raise
        self.load_s = time.perf_counter() - start

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> list[int]:
        """Token ids of the prompt, through the engine's own template and tokenizer."""
        prompt = self._post("/apply-template", _conversation(messages, tools))["prompt"]
        asked = {"content": prompt, "add_special": True, "parse_special": True}
        return list(self._post("/tokenize", asked)["tokens"])

    def generate(
        self,
        row_id: str,
        role: str,
        messages: Sequence[Message],
        arm: str,
        on_token: Callable[[int], None] | None = None,
        tools: Sequence[dict[str, Any]] = (),
    ) -> Prediction:
        """One answer, streamed; `latency_s` runs from the request to the last token. Adapters act in "tuned" only."""
        body = {
            **_conversation(messages, tools),
            "temperature": self.settings.temperature,
            "max_tokens": self.settings.max_new_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            "cache_prompt": False,  # every answer pays for its whole prompt, so the arms' latencies compare
        }
        if self.settings.adapters:
            body["lora"] = self.settings.lora(role, arm)
        start = time.perf_counter()
        first: float | None = None
        text, finish, usage, count = [], "error", {"prompt_tokens": 0, "completion_tokens": 0}, 0
        calls: dict[int, dict[str, str]] = {}
        for event in self._stream("/v1/chat/completions", body):
            usage = event.get("usage") or usage
            for choice in event.get("choices", []):
                finish = choice.get("finish_reason") or finish
                delta = choice.get("delta", {})
                piece = delta.get("content") or ""
                _gather_calls(calls, delta.get("tool_calls") or [])
                if piece or delta.get("tool_calls"):
                    first = first or time.perf_counter()
                    text.append(piece)
                    count += 1
                    if on_token:
                        on_token(count)
        end = time.perf_counter()
        return Prediction(
            id=row_id,
            role=role,
            arm=arm,
            text="".join(text),
            calls=[ToolCall(name=c["name"], arguments=_json_or_text(c["arguments"])) for c in calls.values()],
            finish_reason=finish,
            latency_s=end - start,
            first_token_s=(first or end) - start,
            prompt_tokens=usage["prompt_tokens"],
            answer_tokens=usage["completion_tokens"],
        )

    def next_tokens(self, ids: Sequence[int], count: int) -> dict[int, float]:
        """Log probabilities of the `count` likeliest tokens after `ids`; all adapters act."""
        body = {
            "prompt": list(ids), "n_predict": 1, "n_probs": count, "temperature": 0.0, "cache_prompt": False,
            "lora": [{"id": number, "scale": 1.0} for number in range(len(self.settings.adapters))],
        }  # fmt: skip
        (likely,) = self._post("/completion", body)["completion_probabilities"]
        return {one["id"]: one["logprob"] for one in likely["top_logprobs"]}

    def peak_memory_bytes(self) -> int | None:
        """Highest resident memory of the engine process; None where the system does not tell."""
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return None
        match = re.search(r"VmHWM:\s+(\d+) kB", status)
        return int(match[1]) * 1024 if match else None

    def stop(self) -> None:
        """Ends the process: by its closed input, then by signal."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._log.close()

    def _wait_for_address(self, key: str) -> str:
        assert self._process.stdin and self._process.stdout
        s = self.settings
        job = {
            "base": str(s.base),
            "adapters": [str(path) for path in s.adapters.values()],
            "context": s.context,
            "threads": s.threads or psutil.cpu_count(logical=False) or 1,
            "key": key,
        }
        timer = threading.Timer(_START_TIMEOUT_S, self._process.kill)
        timer.start()
        try:
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            timer.cancel()
        if not line:
            raise EngineError(f"the engine did not start with {s.base}: {self._last_words()}", "See journeyman doctor")
        return str(json.loads(line)["address"])

    def _warm_up(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                if self.http.get("/health").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise EngineError(f"the engine ended while loading: {self._last_words()}", "See journeyman doctor")
            time.sleep(0.02)
        self._post("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2})

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        try:
            response = self.http.post(path, json=body)
        except httpx.HTTPError as error:
            raise EngineError(f"the engine stopped answering: {error}; {self._last_words()}", "Run it again") from error
        if response.status_code != 200:
            raise EngineError(f"the engine refused {path}: {response.text[:300]}", "Is evaluate.context large enough?")
        return response.json()

    def _stream(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        try:
            with self.http.stream("POST", path, json=body) as response:
                if response.status_code != 200:
                    text = response.read().decode(errors="replace")[:300]
                    raise EngineError(f"the engine refused the prompt: {text}", "Is evaluate.context large enough?")
                for line in response.iter_lines():
                    if line.startswith("data: ") and line != "data: [DONE]":
                        yield json.loads(line[6:])
        except httpx.HTTPError as error:
            raise EngineError(f"the engine stopped answering: {error}; {self._last_words()}", "Run it again") from error

    def _last_words(self) -> str:
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - 2000))
        lines = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1][:300] if lines else "it said nothing"


def _conversation(messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> dict[str, Any]:
    asked: dict[str, Any] = {"messages": [message.as_openai() for message in messages]}
    return {**asked, "tools": list(tools)} if tools else asked


def _gather_calls(calls: dict[int, dict[str, str]], pieces: Sequence[dict[str, Any]]) -> None:
    """Adds a streamed piece of tool calls: the name comes first, the arguments bit by bit."""
    for piece in pieces:
        call = calls.setdefault(piece.get("index", 0), {"name": "", "arguments": ""})
        for key in call:
            call[key] += piece.get("function", {}).get(key) or ""


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@contextmanager
def running_engine(settings: EngineSettings) -> Iterator[LlamaEngine]:
    """An engine that is stopped at the end, whatever happens."""
    engine = LlamaEngine(settings)
    try:
        yield engine
    finally:
        engine.stop()
