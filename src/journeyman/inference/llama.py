"""Starts the engine process and talks to its OpenAI-compatible HTTP server."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from journeyman.artifacts import hash_of_file
from journeyman.engine_identity import EngineIdentity
from journeyman.errors import EngineError
from journeyman.http_client import ENGINE_DROPS, engine_client, with_retries
from journeyman.inference.chat import conversation, events_of, read_answer, request_body
from journeyman.model_files import hash_of_model, parts_of
from journeyman.peak_memory import peak_resident_bytes
from journeyman.protocols import EngineSettings, Pulse, Question
from journeyman.records import Message, Prediction

MODULE = "journeyman.inference.engine"
START_TIMEOUT_S = 300.0
_REQUEST_TIMEOUT_S = 600.0
_PULSE_TIMEOUT_S = 3.0
_COUNT = re.compile(r"^llamacpp:(\w+) (\S+)$", re.MULTILINE)
_REQUESTS = ("requests_processing", "requests_deferred")
_STEPS = ("n_decode_total", "prompt_tokens_total", "tokens_predicted_total")
_SPINS = "1000"
"""How many times a thread polls at an OpenMP barrier before it sleeps; libgomp's default is 300,000.

With that default, if another program takes one of the cores, all other threads spin while they wait for the one without
a core. On two cores with a load of 6, the 135M base generated 1 to 2 tokens per second, and 16 to 31 with this value;
on an idle machine, 95 and 96.
"""


class LlamaEngine:
    """A ServingEngine. Use `engines.running_engine`, which stops it."""

    replicas = 1

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self.files = hashes_of_files(settings)
        start = time.perf_counter()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        self._process = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C in the terminal is the parent's to handle
            env={"GOMP_SPINCOUNT": _SPINS, **os.environ},
        )
        key = secrets.token_hex(16)
        try:
            self.address, self.engine_identity, self.pid = self._wait_for_address(key)
            headers = {"Authorization": f"Bearer {key}"}
            self.http = engine_client(self.address, headers, _REQUEST_TIMEOUT_S)
            self.headers = headers
            self._wait_until_loaded()
            if hashes_of_files(settings) != self.files:
                raise EngineError(f"{settings.base}: changed while the engine loaded it", "Run the same command again")
            self.load_s = time.perf_counter() - start
            self._warm_up()
            self.warm_up_s = time.perf_counter() - start - self.load_s
        except BaseException:
            self.stop()
            raise

    def _warm_up(self) -> None:
        try:
            self._post("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2})
        except EngineError:  # two tokens may be no answer in the form that the engine's parser expects
            self._post("/completion", {"prompt": "Hi", "n_predict": 2})

    def prompt_text(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The text that its chat template makes of a conversation."""
        return str(self._post("/apply-template", {"messages": list(messages)})["prompt"])

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> list[int]:
        """Token ids of the prompt, through the engine's own template and tokenizer."""
        prompt = self._post("/apply-template", conversation(messages, tools))["prompt"]
        asked = {"content": prompt, "add_special": True, "parse_special": True}
        return list(self._post("/tokenize", asked)["tokens"])

    def generate(self, question: Question, on_token: Callable[[int], None] | None = None) -> Prediction:
        """One answer, streamed. Alone, it processes its whole prompt; under load, prompts are cached as in serving."""
        body = {**request_body(question, self.settings.temperature), "cache_prompt": question.load > 1}
        if self.settings.adapters:
            body["lora"] = self.settings.lora(question.adapter)
        start = time.perf_counter()
        return read_answer(self._stream("/v1/chat/completions", body), question, on_token, start)

    def selection(self, role: str) -> dict[str, Any]:
        """The scales of the adapters in a request for a role."""
        return {"lora": self.settings.lora(self.settings.adapter_of(role))}

    def identity(self, question: Question) -> dict[str, Any]:
        return identity_of_answer(self.settings, self.engine_identity, question.adapter)

    def next_tokens(self, ids: Sequence[int], count: int, *, adapted: bool = True) -> dict[int, float]:
        """Log probabilities of the `count` likeliest tokens after `ids`, with all adapters active, or with none."""
        body = {
            "prompt": list(ids), "n_predict": 1, "n_probs": count, "temperature": 0.0, "cache_prompt": False,
            "lora": [{"id": number, "scale": float(adapted)} for number in range(len(self.settings.adapters))],
        }  # fmt: skip
        answer = self._post("/completion", body).get("completion_probabilities", [])
        return {one["id"]: one["logprob"] for likely in answer for one in likely["top_logprobs"]}

    def greedy(self, ids: Sequence[int], count: int, *, adapted: bool = True) -> list[int]:
        """Up to `count` tokens after `ids`, each the likeliest one, with all adapters active, or with none."""
        body = {
            "prompt": list(ids), "n_predict": count, "temperature": 0.0, "cache_prompt": False, "return_tokens": True,
            "lora": [{"id": number, "scale": float(adapted)} for number in range(len(self.settings.adapters))],
        }  # fmt: skip
        return [int(token) for token in self._post("/completion", body)["tokens"]]

    def peak_memory_bytes(self) -> int | None:
        """Highest resident memory of the engine process; None if the system does not report it."""
        return peak_resident_bytes(self.pid)

    @property
    def alive(self) -> bool:
        """Whether the process is running. Reading this reaps a process that has ended."""
        return self._process.poll() is None

    def pulse(self) -> Pulse | None:
        """What it is doing. Its task queue is asked, so that more is known than that its HTTP server answers."""
        try:
            used = psutil.Process(self.pid).cpu_times()
            answer = self.http.get("/metrics", timeout=_PULSE_TIMEOUT_S)
        except httpx.HTTPError:
            return Pulse(None, None, used.user + used.system)
        except (psutil.Error, RuntimeError):  # it has ended, or was stopped
            return None
        counts = {name: float(value) for name, value in _COUNT.findall(answer.text)}
        if answer.status_code != 200 or not counts.keys() >= {*_REQUESTS, *_STEPS}:
            return None
        requests, steps = (int(sum(counts[name] for name in names)) for names in (_REQUESTS, _STEPS))
        return Pulse(requests, steps, used.user + used.system)

    def kill(self) -> None:
        """Kills the process and its child without waiting for them; its current requests fail."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def how_it_ended(self) -> str:
        """For the user: exit code or signal, and the last line of its output."""
        code = self._process.poll()
        how = "is running" if code is None else f"ended by signal {-code}" if code < 0 else f"ended with code {code}"
        return f"{how}; {self._last_words()}"

    def stop(self) -> None:
        """Ends the process by closing its input, then by a signal. May be called more than once."""
        if self._process.stdin:
            with suppress(OSError):  # the process may have ended with unread input
                self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        if hasattr(self, "http"):
            self.http.close()
        self._log.close()

    def _wait_for_address(self, key: str) -> tuple[str, EngineIdentity, int]:
        assert self._process.stdin and self._process.stdout
        s = self.settings
        job = {
            "base": str(s.base),
            "adapters": [str(path) for path in s.adapters.values()],
            "context": s.context,
            "parallel": s.parallel,
            "threads": s.threads,
            "chat_template": s.chat_template,
            "template_variables": dict(s.template_variables),
            "llama_server": s.llama_server and str(s.llama_server),
            "key": key,
            "parent": os.getpid(),
        }
        timer = threading.Timer(START_TIMEOUT_S, self.kill)
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
            self._process.wait()  # its last words are written before it ends
            raise EngineError(f"the engine did not start with {s.base}: {self._last_words()}", "Run: journeyman doctor")
        started = json.loads(line)
        return str(started["address"]), EngineIdentity.model_validate(started["identity"]), int(started["pid"])

    def _wait_until_loaded(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                if self.http.get("/health").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise EngineError(f"the engine ended while loading: {self._last_words()}", "Run: journeyman doctor")
            time.sleep(0.02)

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        with self._response(path, body) as response:
            return json.loads(response.read())

    def _stream(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        with self._response(path, body) as response:
            yield from events_of(response.iter_bytes())

    @contextmanager
    def _response(self, path: str, body: dict[str, Any]) -> Iterator[httpx.Response]:
        """A response whose headers have arrived; a connection that was dropped before that is retried."""
        response = self._send(path, body)
        try:
            if response.status_code != 200:
                text = response.read().decode(errors="replace")[:300]
                raise EngineError(
                    f"the engine refused {path}: {text}", "If the prompt is too long, raise evaluate.context"
                )
            yield response
        except httpx.HTTPError as error:
            raise self._gone(error) from error
        finally:
            response.close()

    def _send(self, path: str, body: dict[str, Any]) -> httpx.Response:
        def attempt() -> httpx.Response:
            return self.http.send(self.http.build_request("POST", path, json=body), stream=True)

        try:
            return with_retries(attempt, ENGINE_DROPS, again=lambda: self.alive)
        except httpx.HTTPError as error:
            raise self._gone(error) from error

    def _gone(self, error: httpx.HTTPError) -> EngineError:
        code = self._process.poll()
        how = "" if code is None else f" (its process ended with code {code})"
        return EngineError(
            f"the engine stopped answering{how}: {error}; {self._last_words()}", "Run the same command again"
        )

    def _last_words(self) -> str:
        if self._log.closed:
            return "it was stopped"
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - 2000))
        lines = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1][:300] if lines else "it printed nothing"


def identity_of_answer(settings: EngineSettings, engine: EngineIdentity, adapter: str | None) -> dict[str, Any]:
    """What an answer depends on besides its question: see Generator.identity."""
    # The chat template counts if it is not the base's own with its defaults; earlier versions knew no other.
    template = {"chat_template": settings.chat_template, "template_variables": dict(settings.template_variables)}
    return {
        "base": hash_of_model(settings.base),
        "adapter": hash_of_file(settings.adapters[adapter]) if adapter is not None else None,
        "temperature": settings.temperature,
        **{key: value for key, value in template.items() if value},
        # The number of concurrent requests is the question's load; the engine's limit changes no answer.
        **{key: value for key, value in engine.decisive().items() if key != "engine.parallel"},
    }


def hashes_of_files(settings: EngineSettings) -> dict[Path, str]:
    """The files that the engine loads → SHA-256.

    Raises:
        EngineError: one cannot be read.
    """
    try:
        return {path: hash_of_file(path) for path in (*parts_of(settings.base), *settings.adapters.values())}
    except OSError as error:
        raise EngineError(f"{error.filename}: {error.strerror}", "Restore the file, or export again") from error
