"""The only place that names the serving engine. All other code uses the protocols of `journeyman.protocols`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from journeyman.config import EvaluateConfig
from journeyman.engine_identity import EngineIdentity
from journeyman.errors import UsageError
from journeyman.inference.llama import LlamaEngine
from journeyman.inference.llama_facts import llama_identity, llama_knows
from journeyman.protocols import EngineSettings, ServingEngine

ENGINE = "engine."
"""Prefix of the engine's inputs in a fingerprint."""
_SET = {"engine.context", "engine.parallel", "engine.threads"}


def start_engine(settings: EngineSettings) -> ServingEngine:
    """Starts an engine; the caller stops it.

    Raises:
        EngineError: the engine did not start.
    """
    return LlamaEngine(settings)


@contextmanager
def running_engine(settings: EngineSettings) -> Iterator[ServingEngine]:
    """Starts an engine and always stops it at the end."""
    engine = start_engine(settings)
    try:
        yield engine
    finally:
        engine.stop()


def own_server(name: str, folder: Path, key: str) -> Path | None:
    """The user's own llama-server; None if no name is given.

    Args:
        name: of a program on PATH, or a path.
        folder: what a relative path with a folder in it starts from.
        key: of the config, which says `name`.

    Raises:
        UsageError: there is no such program.
    """
    if not name:
        return None
    found = shutil.which(folder.absolute() / Path(name).expanduser() if os.sep in name else name)
    if found is None:
        raise UsageError(f"{key}: {name}: no program of this name", "Give its path, or add it to PATH")
    return Path(found).absolute()


def evaluated_server(config: EvaluateConfig, root: Path) -> Path | None:
    """The user's own llama-server that answers in an evaluation; see own_server. `root`: the run's folder."""
    return own_server(config.llama_server, root, "evaluate.llama_server")


@cache
def engine_identity(
    context: int, parallel: int, threads: int | None, llama_server: Path | None = None
) -> EngineIdentity:
    """The engine that this machine would run, determined once per process; see llama_identity."""
    return llama_identity(context, parallel, threads, llama_server)


def identity_now(context: int, parallel: int, threads: int | None, llama_server: Path | None = None) -> EngineIdentity:
    """The same, determined anew: a server may run for months. Arguments and errors are those of llama_identity."""
    return llama_identity(context, parallel, threads, llama_server)


def engine_inputs(config: EvaluateConfig, root: Path) -> dict[str, str]:
    """The engine's part of an evaluation's fingerprint, without the settings that [evaluate] contains itself."""
    return {key: value for key, value in engine_of(config, root).decisive().items() if key not in _SET}


def engine_of(config: EvaluateConfig, root: Path) -> EngineIdentity:
    """The engine that an evaluation with these settings would use; raises as evaluated_server and llama_identity do."""
    return engine_identity(config.context, config.parallel, config.threads, evaluated_server(config, root))


@cache
def engine_knows(architecture: str) -> bool:
    """Whether the engine can serve an architecture, by its name in GGUF; raises as llama_knows does."""
    return llama_knows(architecture)


def engine_sees_gpu() -> bool:
    """Whether the installed engine can compute on a GPU of this machine."""
    import xllamacpp

    processors = {xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU}
    return any(device["type"] not in processors for device in xllamacpp.get_device_info())
