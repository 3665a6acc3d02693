"""The user's own llama-server, such as a build for CUDA: its command, its process and its identity.

It is a child of the engine process (inference.engine), which ends it. Files, limits and safety are in its arguments;
everything else, such as the layers on the GPU, can be set in llama.cpp's environment variables
(LLAMA_ARG_N_GPU_LAYERS), which it inherits.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from journeyman.artifacts import sha256_of
from journeyman.child_process import die_with_parent
from journeyman.processors import default_threads

NAME = "llama-server"
_ANSWER_S, _LISTENS_S, _LOOK_EVERY_S = 60.0, 300.0, 0.05
_LIBRARY = re.compile(r"(?:lib)?(?:ggml|llama|mtmd)[^/]*\.(?:so|dylib)(?:\.\d+)*")
_OURS = ("LLAMA_ARG_CHAT_TEMPLATE", "LLAMA_ARG_CHAT_TEMPLATE_FILE", "LLAMA_ARG_CHAT_TEMPLATE_KWARGS")


class LlamaServer:
    """A llama-server that listens on a free port of loopback and loads its model.

    Attributes:
        pid: its process.
        listening_address: its base URL.

    Raises:
        OSError: it cannot be executed.
        SystemExit: it ended.
        RuntimeError: it does not listen in time.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            command(settings),
            stdin=subprocess.DEVNULL,
            stdout=2,  # ours is for the parent
            env=_environment(settings),
            preexec_fn=_with_parent,  # safe, as this process has one thread
        )
        self.pid = self._process.pid
        self.listening_address = f"http://127.0.0.1:{self._port()}"

    def wait(self) -> int:
        """Waits for its end; returns its exit code, or 128 and the number of the signal."""
        code = self._process.wait()
        return code if code >= 0 else 128 - code

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _port(self) -> int:
        """The port that it has chosen. Nobody else can listen there, as it is asked of the system by its process."""
        deadline = time.monotonic() + _LISTENS_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise SystemExit(self.wait() or 1)  # it has printed why
            with suppress(psutil.Error):
                for one in psutil.Process(self.pid).net_connections("tcp"):
                    if one.status == psutil.CONN_LISTEN and one.laddr:
                        return int(one.laddr.port)
            time.sleep(_LOOK_EVERY_S)
        self.kill()
        raise RuntimeError(f"{NAME} listens on no port after {_LISTENS_S:.0f} s")


def command(settings: dict[str, Any]) -> list[str]:
    """The program and its arguments; the key is not among them, as `ps` shows them to everybody."""
    parallel, threads = settings["parallel"], settings["threads"] or default_threads()
    words = [settings["llama_server"], "--host", "127.0.0.1", "--port", "0", "--model", settings["base"]]
    for adapter in settings["adapters"]:
        words += ["--lora", _in_list(adapter)]
    words += [
        "--lora-init-without-apply",  # each request selects its adapter
        "--ctx-size", str(settings["context"] * parallel), "--parallel", str(parallel),  # divided among the requests
        "--threads", str(threads), "--threads-batch", str(threads), "--threads-http", str(settings["http_threads"]),
        "--jinja", "--metrics", "--no-slots", "--no-webui",
    ]  # fmt: skip
    if settings.get("template_variables"):
        words += ["--chat-template-kwargs", json.dumps(settings["template_variables"])]
    return words


def _in_list(path: str) -> str:
    """A path as the only one of a comma-separated list."""
    return '"' + path.replace('"', '""') + '"' if set(path) & set(',"') else path


def _environment(settings: dict[str, Any]) -> dict[str, str]:
    # No cache of past prompts, which could take gigabytes, and errors only; releases that lack one ignore it.
    found = {"LLAMA_ARG_CACHE_RAM": "0", "LLAMA_ARG_LOG_VERBOSITY": "1", **os.environ}
    for name in _OURS:
        found.pop(name, None)
    if settings.get("chat_template") is not None:
        found["LLAMA_ARG_CHAT_TEMPLATE"] = settings["chat_template"]
    return {**found, "LLAMA_API_KEY": settings["key"]}


def _with_parent() -> None:
    """Runs in the child before the program: the kernel ends it however this process ends; Linux only."""
    die_with_parent(True)
    if os.getppid() == 1:  # ended already
        os.kill(os.getpid(), signal.SIGKILL)


def server_identity(settings: dict[str, Any]) -> dict[str, Any]:
    """The fields of EngineIdentity: what the program prints about itself, and a hash of it and its libraries.

    Raises:
        OSError: it cannot be executed.
        RuntimeError: it does not say its version.
    """
    program = settings["llama_server"]
    said = _said(program, "--version")
    version = re.search(r"^version: *(.+)$", said, re.MULTILINE)
    if version is None:
        raise RuntimeError(f"{program} does not print its version as {NAME} does")
    built = re.search(r"^built\s+with\s+(.+)$", said, re.MULTILINE)
    devices = re.findall(r"^ +(\w+: .+?)(?: \(\d+ MiB.*\))?$", _said(program, "--list-devices"), re.MULTILINE)
    return {
        "name": NAME,
        "version": version[1].strip()[:200],
        "build": {"compiler": built[1].strip()[:200] if built else "", "files": _hash_of_program(Path(program))},
        "settings": {key: settings[key] for key in ("context", "parallel", "threads")},
        "processor": ", ".join(devices)[:200],
    }


def _said(program: str, argument: str) -> str:
    ended = subprocess.run(
        [program, argument], stdin=subprocess.DEVNULL, capture_output=True, timeout=_ANSWER_S, check=False
    )
    return (ended.stdout + b"\n" + ended.stderr).decode(errors="replace")


def _hash_of_program(program: Path) -> str:
    """Of the program and of llama.cpp's libraries beside it, or in lib/ beside its folder."""
    digests = [sha256_of(path) for path in (program, *sorted(set(_libraries(program.resolve().parent))))]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _libraries(folder: Path) -> Iterator[Path]:
    for place in (folder, folder.parent / "lib"):
        if place.is_dir():
            yield from (path.resolve() for path in place.iterdir() if _LIBRARY.fullmatch(path.name) and path.is_file())
