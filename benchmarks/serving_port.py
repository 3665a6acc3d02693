"""A port in a process of its own, for the benchmarks of serving: three roles, each with an adapter of random values.

`python serving_port.py FOLDER BASE THREADS SPREAD STEADY` prints a line of JSON that says where it is, and serves.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from journeyman.api.hosting import Host, open_listener
from journeyman.config import LoraConfig, ServeConfig
from journeyman.inference.engines import running_engine
from journeyman.inference.llama import LlamaEngine
from journeyman.manifests import BundleManifest
from journeyman.models.gguf_file import GgufFile
from journeyman.models.opening import find_base
from journeyman.protocols import EngineSettings
from journeyman.serving import engine as keeping
from journeyman.training.export import write_gguf
from journeyman.training.lora import Adapter

RESULTS = Path(__file__).parent / "results"
ROLES = ("coder", "tester", "writer")
CONTEXT, SLOTS = 1024, 4
TESTS = Path(__file__).parents[1] / "tests"


@dataclass
class Port:
    """A running port.

    Attributes:
        place: what it printed: the URLs of port and engine, and what a request to the engine contains.
    """

    process: psutil.Process
    place: dict[str, Any]

    @property
    def url(self) -> str:
        return str(self.place["port"])

    def engine(self) -> psutil.Process | None:
        """The engine's process; None while there is none."""
        for one in self.process.children():
            try:
                if "journeyman.inference.engine" in " ".join(one.cmdline()):
                    return one
            except psutil.Error:  # it has just ended
                continue
        return None


@contextmanager
def running_port(
    base: str, threads: int | None = None, spread: float = 0.002, steady_s: float = 60.0
) -> Iterator[Port]:
    """A port, stopped at the end.

    Args:
        base: what base.model may name; "tiny" is a model of two layers with random values.
        spread: of the adapters' random values.
        steady_s: an engine that ran for so long is restarted at once when it ends.
    """
    with tempfile.TemporaryDirectory() as folder:
        name = str(tiny_model(Path(folder) / "tiny.gguf")) if base == "tiny" else base
        command = [sys.executable, __file__, folder, name, str(threads or 0), str(spread), str(steady_s)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert child.stdout
        try:
            place = json.loads(child.stdout.readline())
            yield Port(psutil.Process(child.pid), place)
        finally:
            child.terminate()
            child.wait(timeout=30)
            child.stdout.close()


def tiny_model(path: Path) -> Path:
    """The tests' model with random values, whose template knows tools."""
    sys.path[:0] = [str(TESTS), *(str(TESTS / name) for name in ("helpers", "rendering"))]
    from conftest import write_tiny_gguf
    from test_control_tokens import WITH_TOOLS

    return write_tiny_gguf(path, template=WITH_TOOLS, context=4 * CONTEXT)


def serve(folder: Path, name: str, threads: int | None, spread: float) -> None:
    base = GgufFile(find_base(name, Path()))
    adapters = {}
    for number, role in enumerate(ROLES):
        adapter = Adapter(base.geometry, LoraConfig(rank=8), seed=number)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for name, value in adapter.parameters.items():
                if "lora_B" in name:  # zeros, with which an adapter has no effect
                    value.normal_(0, spread, generator=generator)
        adapters[role] = folder / f"{role}.gguf"
        write_gguf(adapter, adapters[role])
    bundle = BundleManifest.model_construct(
        roles=list(ROLES), system_prompts={}, prompts={}, redact={},
        settings={"temperature": 0.0, "max_new_tokens": 64, "context": CONTEXT, "threads": threads, "parallel": SLOTS},
    )  # fmt: skip
    settings = EngineSettings(base.path, adapters, CONTEXT, threads, 0.0, SLOTS)
    listener = open_listener("127.0.0.1", 0)
    with running_engine(settings) as engine:
        assert isinstance(engine, LlamaEngine)
        place = {
            "port": f"http://127.0.0.1:{listener.getsockname()[1]}", "engine": engine.address,
            "lora": {role: {"lora": settings.lora(role)} for role in ROLES}, "headers": dict(engine.headers),
            "identity": engine.engine_identity.line(),
        }  # fmt: skip
        host = Host(bundle, engine, listener, lambda text: print(text, file=sys.stderr), config=ServeConfig(queue=1000))
        listener.listen()
        print(json.dumps(place), flush=True)
        host.run()


def report(name: str, result: dict[str, Any]) -> None:
    """Prints a result and keeps it in results/."""
    text = json.dumps(result, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    assert hasattr(keeping, "_STEADY_S")
    keeping._STEADY_S = float(sys.argv[5])
    serve(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) or None, float(sys.argv[4]))
