"""Which engine answers for a bundle: the one in the wheel, the user's own llama-server, or a server by its URL."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from journeyman.config import ServeConfig
from journeyman.engine_identity import EngineIdentity
from journeyman.errors import EngineError, UsageError
from journeyman.inference.engines import own_server, running_engine, start_engine
from journeyman.inference.remote import UNKNOWN_VERSION, RemoteEngine, root_of
from journeyman.keys import key_of
from journeyman.manifests import BundleManifest
from journeyman.protocols import EngineSettings, ServedEngine
from journeyman.serving.engine import Start
from journeyman.serving.evaluated import check_engine
from journeyman.serving.prompts import PromptCheck


def llama_server_of(config: ServeConfig, folder: Path) -> Path | None:
    """The program that serve.llama_server names; None if it names none.

    Args:
        folder: what a relative path with a folder in it starts from.

    Raises:
        UsageError: there is no such program, or serve.engine_url names another engine.
    """
    if not config.llama_server:
        return None
    if config.engine_url:
        raise UsageError(
            f"serve.engine_url ({config.engine_url}) and serve.llama_server ({config.llama_server}) name two engines",
            "Keep one; on the command line, '' turns the other off: --engine-url ''",
        )
    return own_server(config.llama_server, folder, "serve.llama_server")


def typed_program(name: str) -> Path:
    """A program as it is typed in a terminal: a name on PATH, or a path from the current folder."""
    return Path(name).expanduser().absolute() if os.sep in name else Path(name)


@contextmanager
def chosen_engine(
    bundle: BundleManifest,
    settings: EngineSettings,
    config: ServeConfig,
    prompts: PromptCheck,
    run: Path | None,
    *,
    allow_other: bool,
    told: Callable[[str], None],
) -> Iterator[tuple[ServedEngine, Start]]:
    """The running engine, and what starts it again; it is stopped at the end.

    Args:
        run: for errors: the run's folder, if it is known.

    Raises:
        EngineError: it does not start, cannot be reached, lacks an adapter, or makes other prompts.
        StaleArtifact: it is not the one that was evaluated, and `allow_other` is not set.
    """
    if not config.engine_url:
        with running_engine(settings) as engine:
            if settings.llama_server is not None:
                _check_prompts(engine, f"serve.llama_server: {settings.llama_server}", bundle, prompts)
            yield engine, lambda: start_engine(settings)
        return

    def start() -> RemoteEngine:
        key = key_of(config.engine_key_env)
        engine = RemoteEngine(config.engine_url, key, settings, _names(bundle, config))
        try:
            _check_prompts(engine, f"serve.engine_url: {engine.address}", bundle, prompts)
        except BaseException:
            engine.stop()
            raise
        return engine

    remote = start()
    try:
        for line in _checked(bundle, remote, run, allow_other):
            told(line)
        yield remote, start
    finally:
        remote.stop()


def _checked(bundle: BundleManifest, remote: RemoteEngine, run: Path | None, allow_other: bool) -> list[str]:
    """Compares the server with the engine that was evaluated; raises as check_engine does, and returns what to tell.

    A server that was evaluated is known by its address, and its adapters by their hashes; its version may be another
    one now.
    """
    here, used = remote.engine_identity, bundle.server
    if used is None or root_of(used.url) != remote.address:
        return check_engine(bundle.engine, here, run, allow_other=allow_other)
    if here.version == UNKNOWN_VERSION and not used.version:
        return [f"warning: {remote.address} does not say its version: another one than the evaluated is not noticed"]
    name = f"server {used.url}"
    evaluated = EngineIdentity(name=name, version=used.version or UNKNOWN_VERSION)
    return check_engine(evaluated, EngineIdentity(name=name, version=here.version), run, allow_other=allow_other)


def _names(bundle: BundleManifest, config: ServeConfig) -> Mapping[str | None, str]:
    """'all' or role → its adapter's name at the server, None → the base's."""
    if bundle.server is not None:
        base, tuned = bundle.server.base_model, bundle.server.tuned_models
    else:
        base = config.engine_model.replace("{adapter}", "base")
        tuned = {name: config.engine_model.replace("{adapter}", name) for name in bundle.adapter_files}
    names: dict[str | None, str] = {None: base}
    names.update(tuned)
    return names


class _Templated(Protocol):
    def prompt_text(self, messages: Sequence[Mapping[str, Any]]) -> str | None: ...


def _check_prompts(engine: _Templated, name: str, bundle: BundleManifest, prompts: PromptCheck) -> None:
    """Compares the text that the server's chat template makes with that of training, for each role's prompt."""
    for role in bundle.roles:
        system = bundle.system_prompts.get(role)
        turns = [{"role": "system", "content": system}] if system else []
        turns.append({"role": "user", "content": "Are you there?"})
        served = engine.prompt_text(turns)
        if served is not None and served != prompts.text(turns):
            raise EngineError(
                f"{name} makes other prompts than training for {role!r}: it has another chat template, or reads it "
                "otherwise",
                "Use a llama-server of the evaluated engine's version; start one of your own with --jinja and "
                "--chat-template-file, or with the bundle's file",
            )
