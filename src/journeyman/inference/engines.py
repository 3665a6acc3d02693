"""The only place that names the serving engine. All other code uses the protocols of `journeyman.protocols`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from journeyman.config import EvaluateConfig
from journeyman.engine_identity import EngineIdentity
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


@cache
def engine_identity(context: int, parallel: int, threads: int | None) -> EngineIdentity:
    """The engine that this machine would run, determined once per process; raises as llama_identity does."""
    return llama_identity(context, parallel, threads)


def identity_now(context: int, parallel: int, threads: int | None, llama_server: Path | None = None) -> EngineIdentity:
    """The same, determined anew: a server may run for months. Arguments and errors are those of llama_identity."""
    return llama_identity(context, parallel, threads, llama_server)


def engine_inputs(config: EvaluateConfig) -> dict[str, str]:
    """The engine's part of an evaluation's fingerprint, without the settings that [evaluate] contains itself."""
    return {key: value for key, value in engine_of(config).decisive().items() if key not in _SET}


def engine_of(config: EvaluateConfig) -> EngineIdentity:
    """The engine that an evaluation with these settings would use."""
    return engine_identity(config.context, config.parallel, config.threads)


@cache
def engine_knows(architecture: str) -> bool:
    """Whether the engine can serve an architecture, by its name in GGUF; raises as llama_knows does."""
    return llama_knows(architecture)


def engine_sees_gpu() -> bool:
    """Whether the installed engine can compute on a GPU of this machine."""
    import xllamacpp

    processors = {xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU}
    return any(device["type"] not in processors for device in xllamacpp.get_device_info())
