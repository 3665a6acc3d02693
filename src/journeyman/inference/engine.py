"""The engine process: llama.cpp's server with a base and its adapters, on a loopback port: the one in the wheel
(xllamacpp), or the user's own llama-server as a child of this process.

Run as `python -m journeyman.inference.engine`, with the settings as one JSON line on standard input. With the argument
`identity`, it only prints its identity; with `refusal`, why it does not load a file. When its input closes, or its
parent is no longer the process named in the settings, it exits at once: so it never outlives its parent, and the
server's destructor, which can hang, is never called. The server's permissive
defaults (any origin, web page, slots) are turned off.
"""

from __future__ import annotations

import enum
import hashlib
import json
import os
import select
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from journeyman.child_process import die_with_parent
from journeyman.inference.llama_server import LlamaServer, server_identity
from journeyman.processors import default_threads

_HTTP_THREADS = 64
"""Each waiting request and each stalled reader occupies one; waiting threads cost nothing."""


IDENTITY = "identity"
"""The argument that makes the process print its identity and exit."""
REFUSAL = "refusal"
"""The argument that makes the process try to load a file, and print to standard error what llama.cpp says about it."""
_DECIDES = (
    "n_batch", "n_ubatch", "flash_attn_type", "cache_type_k", "cache_type_v", "kv_unified", "swa_full", "cont_batching",
    "ctx_shift", "no_extra_bufts", "n_gpu_layers", "rope_scaling_type", "rope_freq_base", "rope_freq_scale",
    "use_jinja", "reasoning_format", "enable_reasoning", "prefill_assistant",
)  # fmt: skip
"""Parameters that can change an answer; their actual values count, so a new default of the engine is a change."""


def main() -> None:
    """Serves until the parent exits."""
    settings = json.loads(sys.stdin.readline())
    if sys.argv[1:] == [IDENTITY]:
        print(json.dumps(_identity(settings)), flush=True)
        return
    if sys.argv[1:] == [REFUSAL]:
        started(settings, errors=True)
        return
    die_with_parent(True)  # loading holds the interpreter lock, so the end of the input would go unnoticed
    if os.getppid() != settings["parent"]:
        return
    own = LlamaServer({**settings, "http_threads": _HTTP_THREADS}) if settings.get("llama_server") else None
    server = own or started(settings)
    pid = own.pid if own else os.getpid()
    print(json.dumps({"address": server.listening_address, "identity": _identity(settings), "pid": pid}), flush=True)
    die_with_parent(False)  # the kernel watches the thread that started this, which may end before its process
    if own:
        threading.Thread(target=lambda: os._exit(own.wait()), name="llama-server", daemon=True).start()
    while os.getppid() == settings["parent"]:
        readable, _, _ = select.select([sys.stdin], [], [], 1.0)
        if readable and not os.read(sys.stdin.fileno(), 1024):
            break
    if own:
        own.kill()


def _identity(settings: dict[str, Any]) -> dict[str, Any]:
    return server_identity(settings) if settings.get("llama_server") else identity(settings)


def identity(settings: dict[str, Any]) -> dict[str, Any]:
    """The fields of EngineIdentity, from the engine's library and its start parameters."""
    import xllamacpp

    params = _answering(settings)
    with Path(sys.modules["xllamacpp.xllamacpp"].__file__ or "").open("rb") as library:  # releases can be rebuilt
        digest = hashlib.file_digest(library, "sha256").hexdigest()
    features = [part.rpartition(":")[2].strip() for part in xllamacpp.get_system_info().split("|")]
    devices = [str(one["description"]) for one in xllamacpp.get_device_info()]
    decides = {name: _plain(getattr(params, name)) for name in _DECIDES}
    asked = {key: settings[key] for key in ("context", "parallel", "threads")}
    return {
        "name": "llama.cpp (xllamacpp)",
        "version": xllamacpp.__version__,
        "build": {**{key: str(value) for key, value in xllamacpp.BUILD_INFO.items()}, "library": digest},
        "settings": {**asked, **decides},
        "processor": ", ".join(devices),
        "cpu_features": [part.removesuffix(" = 1") for part in features if part and not part.endswith("= 0")],
    }


def _plain(value: Any) -> Any:
    """A parameter as a JSON value: members of enumerations by their names."""
    return value.name if isinstance(value, enum.Enum) else value


def _answering(settings: dict[str, Any]) -> Any:
    """The parameters, apart from the files, that can change an answer."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.n_parallel = settings["parallel"]
    params.n_ctx = settings["context"] * settings["parallel"]  # divided among the requests
    # Mapped weights stay resident next to the copies repacked for this processor: 7.8 GB for a 4.7 GB file.
    params.load_mode = xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_NONE
    params.cache_ram_mib = 0  # no cache of past prompts: it could take gigabytes that the measurement does not show
    threads = settings["threads"] or default_threads()
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    return params


def started(settings: dict[str, Any], *, errors: bool = False) -> Any:
    """llama.cpp's server, with the base and its adapters loaded. With `errors`, it prints its errors."""
    import xllamacpp

    params = _answering(settings)
    params.model.path = settings["base"]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_threads_http = _HTTP_THREADS
    params.api_keys = [settings["key"]]
    params.cors_origins = "localhost"
    params.ui = False
    params.endpoint_slots = False
    params.endpoint_metrics = True
    params.endpoint_props = False
    params.server_tools = []
    params.verbosity = int(errors)
    adapters = []
    for path in settings["adapters"]:
        adapter = xllamacpp.CommonAdapterLoraInfo()
        adapter.path, adapter.scale = path, 0.0  # each request selects its adapter
        adapters.append(adapter)
    params.lora_adapters = adapters
    if settings.get("chat_template") is not None:
        params.chat_template = settings["chat_template"]
    params.default_template_kwargs = {
        name: json.dumps(value, ensure_ascii=False) for name, value in settings.get("template_variables", {}).items()
    }
    return xllamacpp.Server(params)


if __name__ == "__main__":
    try:
        main()
    except SystemExit as error:
        os._exit(int(error.code or 0))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
