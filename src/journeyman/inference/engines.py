"""Which serving engine there is: the one place that names it. Everything else knows the protocols of `ports`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from journeyman.config import EvaluateConfig
from journeyman.engine_identity import EngineIdentity
from journeyman.inference.llama import LlamaEngine, llama_identity
from journeyman.protocols import EngineSettings, ServingEngine

ENGINE = "engine."
"""What the names of the engine's inputs in a fingerprint begin with."""
_SET = {"engine.context", "engine.parallel", "engine.threads"}


def start_engine(settings: EngineSettings) -> ServingEngine:
    """A running engine; whoever starts it stops it.

    Raises:
        EngineError: it did not start.
    """
    return LlamaEngine(settings)


@contextmanager
def running_engine(settings: EngineSettings) -> Iterator[ServingEngine]:
    """An engine that is stopped at the end, whatever happens."""
    engine = start_engine(settings)
    try:
        yield engine
    finally:
        engine.stop()


@cache
def engine_identity(context: int, parallel: int, threads: int | None) -> EngineIdentity:
    """The engine that this machine would run, found out once in a process; raises as llama_identity does."""
    return llama_identity(context, parallel, threads)


def engine_inputs(config: EvaluateConfig) -> dict[str, str]:
    """What an evaluation's fingerprint takes of the engine, beside what [evaluate] sets itself."""
    return {key: value for key, value in engine_of(config).decisive().items() if key not in _SET}


def engine_of(config: EvaluateConfig) -> EngineIdentity:
    """The engine that an evaluation with these settings would ask."""
    return engine_identity(config.context, config.parallel, config.threads)
