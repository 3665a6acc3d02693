"""The engine process: llama.cpp's server (xllamacpp) with a base and an adapter, on a loopback port.

Run as `python -m journeyman.inference.engine`; settings come as one JSON line on standard input. When that
closes, or the parent is no longer the process that the settings name, the process ends at once, so it never
outlives its parent, and the server's destructor, which can hang, is never called. The server's open defaults (any
origin, web page, slots) are closed.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import traceback
from typing import Any

_PR_SET_PDEATHSIG = 1
_HTTP_THREADS = 64
"""Each waiting request and each reader that has stopped reading holds one; they cost nothing while they wait."""


def main() -> None:
    """Serves until the parent is gone."""
    settings = json.loads(sys.stdin.readline())
    die_with_parent(True)  # loading holds the interpreter: nothing here would notice the end of the input
    if os.getppid() != settings["parent"]:
        return
    server = started(settings)
    print(json.dumps({"address": server.listening_address}), flush=True)
    die_with_parent(False)  # it means the thread that started this, which may end before its process
    while os.getppid() == settings["parent"]:
        readable, _, _ = select.select([sys.stdin], [], [], 1.0)
        if readable and not os.read(sys.stdin.fileno(), 1024):
            return


def started(settings: dict[str, Any]) -> Any:
    """llama.cpp's server, with the base and its adapters loaded."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["base"]
    params.n_parallel = settings["parallel"]
    params.n_ctx = settings["context"] * settings["parallel"]  # divided among the requests
    # Mapped weights stay resident beside the copies that are laid out anew for this processor: 7.8 GB of a 4.7 GB file.
    params.load_mode = xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_NONE
    params.cache_ram_mib = 0  # no store of past prompts: it could take gigabytes that no measurement foresees
    params.cpuparams.n_threads = settings["threads"]
    params.cpuparams_batch.n_threads = settings["threads"]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_threads_http = _HTTP_THREADS
    params.api_keys = [settings["key"]]
    params.cors_origins = "localhost"
    params.ui = False
    params.endpoint_slots = False
    params.endpoint_props = False
    params.server_tools = []
    params.verbosity = 0
    adapters = []
    for path in settings["adapters"]:
        adapter = xllamacpp.CommonAdapterLoraInfo()
        adapter.path, adapter.scale = path, 0.0  # every request says which it wants
        adapters.append(adapter)
    params.lora_adapters = adapters
    return xllamacpp.Server(params)


def die_with_parent(on: bool) -> None:
    """Whether the kernel kills this process when the thread that started it ends; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL if on else 0, 0, 0, 0)


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
