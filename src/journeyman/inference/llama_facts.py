"""What llama.cpp says of itself without a model: which engine it is, and which architectures it has.

It is asked in a process of its own, because the engine's library brings its own OpenMP, which must not be loaded for
training.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
from pydantic import ValidationError

from journeyman.engine_identity import EngineIdentity
from journeyman.errors import EngineError
from journeyman.inference.engine import IDENTITY, REFUSAL
from journeyman.inference.llama import MODULE, START_TIMEOUT_S

_ASKED = 5


def llama_identity(
    context: int, parallel: int, threads: int | None, llama_server: Path | None = None
) -> EngineIdentity:
    """The engine that would be started with these settings; no model is loaded.

    Args:
        llama_server: the user's own; None: the engine in the wheel.

    Raises:
        EngineError: the engine's package cannot be loaded.
    """
    program = llama_server and str(llama_server)
    job = json.dumps({"context": context, "parallel": parallel, "threads": threads, "llama_server": program})
    command = [sys.executable, "-m", MODULE, IDENTITY]
    ended = subprocess.run(command, input=job.encode() + b"\n", capture_output=True, timeout=START_TIMEOUT_S)
    try:
        return EngineIdentity.model_validate_json(ended.stdout)
    except ValidationError as error:
        lines = ended.stderr.decode(errors="replace").strip().splitlines()
        why = lines[-1][:300] if lines else f"it ended with code {ended.returncode} and printed nothing"
        raise EngineError(f"the engine does not report its identity: {why}", "Run: journeyman doctor") from error


def llama_knows(architecture: str) -> bool:
    """Whether the engine has an architecture (`general.architecture`).

    It is asked to load a file without tensors: one that names the architecture, and one whose name no architecture has.
    If its first error is the same for both, it does not know the architecture.

    Raises:
        EngineError: the engine says nothing.
    """
    return _error_of(architecture) != _error_of("no-such-architecture")


def _error_of(architecture: str) -> str:
    """The engine's first error about a file with nothing but this architecture's name.

    A thread of its own prints what the engine says, and the process can end before that: so silence is not an answer.
    """
    for _ in range(_ASKED):
        for line in _said_of(architecture):
            if line.startswith("E "):
                return line
    raise EngineError("the engine does not say which architectures it has", "Run: journeyman doctor")


def _said_of(architecture: str) -> list[str]:
    """What the engine prints about such a file, with an empty string for the name."""
    with tempfile.TemporaryDirectory(prefix="journeyman-engine-") as folder:
        path = Path(folder) / "empty.gguf"
        writer = gguf.GGUFWriter(path, architecture)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        job = {"base": str(path), "adapters": [], "context": 128, "parallel": 1, "threads": 1, "key": ""}
        command = [sys.executable, "-m", MODULE, REFUSAL]
        asked = json.dumps(job).encode() + b"\n"
        ended = subprocess.run(command, input=asked, capture_output=True, timeout=START_TIMEOUT_S, check=False)
        text = ended.stderr.decode(errors="replace").replace(f"'{architecture}'", "''").replace(folder, "")
    return re.sub(r"(?m)^[\d.]+ ", "", text).splitlines()
