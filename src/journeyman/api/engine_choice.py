"""Which engine answers for a bundle: the one in the wheel, or a server of the user's by its URL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from journeyman.config import ServeConfig
from journeyman.engine_identity import EngineIdentity
from journeyman.errors import EngineError
from journeyman.inference.engines import running_engine, start_engine
from journeyman.inference.remote import UNKNOWN_VERSION, RemoteEngine, root_of
from journeyman.keys import key_of
from journeyman.manifests import BundleManifest
from journeyman.protocols import EngineSettings, ServedEngine
from journeyman.serving.engine import Start
from journeyman.serving.evaluated import check_engine
from journeyman.serving.prompts import PromptCheck


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
            yield engine, lambda: start_engine(settings)
        return

    def start() -> RemoteEngine:
        key = key_of(config.engine_key_env)
        engine = RemoteEngine(config.engine_url, key, settings, _names(bundle, config))
        try:
            _check_prompts(engine, bundle, prompts)
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


def _check_prompts(engine: RemoteEngine, bundle: BundleManifest, prompts: PromptCheck) -> None:
    """Compares the text that the server's chat template makes with that of training, for each role's prompt."""
    for role in bundle.roles:
        system = bundle.system_prompts.get(role)
        turns = [{"role": "system", "content": system}] if system else []
        turns.append({"role": "user", "content": "Are you there?"})
        served = engine.prompt_text(turns)
        if served is not None and served != prompts.text(turns):
            raise EngineError(
                f"serve.engine_url: {engine.address} makes other prompts than training for {role!r}: it has another "
                "chat template",
                "Start llama-server with --jinja and --chat-template-file, or with the bundle's file",
            )
