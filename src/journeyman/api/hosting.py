"""A bundle behind its port: files checked against their hashes, the engine started, the port open. Prints nothing."""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.types import ASGIApp

from journeyman.api.access import config_of, key_of, keys_of
from journeyman.api.engine_choice import chosen_engine, llama_server_of, typed_program
from journeyman.api.following import Following, released
from journeyman.api.prepared import prepared
from journeyman.config import CONFIG_NAME, ServeConfig, load_config
from journeyman.errors import EngineError, UsageError
from journeyman.foreign import plain
from journeyman.manifests import BundleManifest
from journeyman.protocols import ServedEngine
from journeyman.runs import folder_with_config
from journeyman.serving.app import COUNTED, make_app, served_base
from journeyman.serving.engine import Start
from journeyman.serving.keyring import Keys
from journeyman.serving.metrics import Metrics
from journeyman.serving.observing import Log, Observer
from journeyman.serving.origin import Door
from journeyman.serving.preparing import conversation_of
from journeyman.serving.prompts import PromptCheck
from journeyman.serving.request_log import RequestLog
from journeyman.serving.server import BoundedServer
from journeyman.serving.switching import SwitchingApp, longest_request_s


class Host:
    """One bundle, or the releases that become current, and a port.

    Attributes:
        address: the base URL of the API, http://HOST:PORT/v1.
        key: the key of this program; None if it has none.
        engine: the engine that was started first; it is replaced if it ends.
    """

    def __init__(
        self,
        bundle: BundleManifest,
        engine: ServedEngine,
        listener: socket.socket,
        told: Callable[[str], None],
        hosts: Sequence[str] = (),
        key: str | None = None,
        address: str = "",
        *,
        keys: Keys | None = None,
        config: ServeConfig | None = None,
        log: Log | None = None,
        prompts: PromptCheck | None = None,
        start: Start | None = None,
        following: Following | None = None,
    ) -> None:
        self._bundle, self._following, self.address, self.key = bundle, following, address, key
        self.engine, self._listener, self._given_up = engine, listener, False
        config, metrics = config or ServeConfig(), Metrics()

        def make(bundle: BundleManifest, engine: ServedEngine, given_up: Callable[[], None]) -> Starlette:
            return make_app(bundle, engine, None, told, given_up, config, metrics=metrics)

        give_up = self._give_up if following is None else following.if_served(self._give_up)
        app = make_app(bundle, engine, prompts, told, give_up, config, start, metrics)

        def last_call() -> None:
            if hasattr(app.state, "kept"):
                app.state.kept.last_call()

        served: ASGIApp = app
        if following is not None:
            served = switching = SwitchingApp(
                app, partial(following.application, make, self._give_up), told, longest_request_s(config)
            )
            last_call = switching.last_call
        door = Door(served, hosts, keys or Keys(key))
        observer = Observer(door, metrics, COUNTED, log)
        self._server = BoundedServer(observer, last_call, config.shutdown_s, config.body_s)

    @property
    def bundle(self) -> BundleManifest:
        """What is served now."""
        return self._bundle if self._following is None else self._following.served.manifest

    def run(self) -> None:
        """Answers until a signal (in the main thread), `stop`, or the engine is given up.

        Raises:
            EngineError: the engine ended again and again.
        """
        self._server.run(sockets=[self._listener])
        if self._given_up:
            raise EngineError("the engine ended again and again, and was given up", "See journeyman doctor")

    def stop(self) -> None:
        """Asks `run` to return, within SHUTDOWN_S; from any thread."""
        self._server.should_exit = True

    def _give_up(self) -> None:
        self._given_up = True
        self.stop()


@contextmanager
def hosted(
    folder: Path,
    port: int | None,
    allow_hosts: Sequence[str] = (),
    key_env: str | None = None,
    *,
    allow_other_engine: bool = False,
    engine_url: str | None = None,
    llama_server: str | None = None,
    told: Callable[[str], None] = lambda text: None,
    releases: Path | None = None,
) -> Iterator[Host]:
    """A host whose port takes connections; the engine is stopped at the end.

    Args:
        folder: of a run or of a bundle. Its config file and its keys apply, or those of the run that it is part of,
            also with `releases`.
        port, key_env, engine_url, llama_server: replace those of the config file.
        allow_hosts: in addition to those of the config file.
        allow_other_engine: serve with another engine than the one that was evaluated.
        told: hears warnings, and of an engine that ended.
        releases: a folder with releases: the current one is served instead of the folder's bundle, and each that
            becomes current takes over.

    Raises:
        EngineError: the engine did not start.
        InputError: there is no bundle, or a file of it has changed.
        NotDeployable: it has merged weights, which were not evaluated, and its manifest does not allow that.
        StaleArtifact: another engine than the evaluated one would serve it.
        UsageError: the port is taken, the key is missing or too short, or there are releases and no config file.
    """
    config = config_of(folder, releases, told)
    run = folder_with_config(folder)
    settled = run or folder
    if engine_url is not None:
        config = config.model_copy(update={"engine_url": engine_url})
    if llama_server is not None:
        config = config.model_copy(update={"llama_server": llama_server and str(typed_program(llama_server))})
    elif run is not None and not config.llama_server and not config.engine_url:  # what was evaluated
        evaluated = load_config(run / CONFIG_NAME).evaluate.llama_server
        config = config.model_copy(update={"llama_server": evaluated})
    if config.llama_server:  # a relative path starts from the config file, also for a release
        config = config.model_copy(update={"llama_server": str(llama_server_of(config, settled))})
    if releases is not None and config.engine_url:
        raise UsageError(
            f"--releases: {config.engine_url} answers, and does not get the adapters of a new release",
            "Serve one bundle there, or let this machine's engine answer: --engine-url ''",
        )
    release = None if releases is None else released(releases)
    bundle, settings = prepared(release.place if release else folder, config, allow_other_engine, told)
    following = None
    if release is not None and releases is not None:
        following = Following(releases, release, config, allow_other_engine, told)
    key = key_of(config.key_env if key_env is None else key_env)
    own = secrets.token_urlsafe(32)
    keys = keys_of(settled, key, config.host, told, own)
    prompts = PromptCheck(served_base(settings))
    with open_listener(config.host, config.port if port is None else port) as listener:
        conversation_of(bundle).text("warm up")  # the rules load now, not in the first request
        chosen = chosen_engine(bundle, settings, config, prompts, run, allow_other=allow_other_engine, told=told)
        with chosen as (engine, start):
            address = address_of(config.host, listener.getsockname()[1])
            hosts = [config.host, *config.allow_hosts, *allow_hosts]
            with open_log(config.log, settled, told) as log:
                host = Host(
                    bundle, engine, listener, told, hosts, own, address,
                    keys=keys, config=config, log=log, prompts=prompts, start=start, following=following,
                )  # fmt: skip
                take_connections(listener, config.host)  # the address is known to others from now on
                yield host


@contextmanager
def open_log(name: str, folder: Path, told: Callable[[str], None]) -> Iterator[Log | None]:
    """The log of requests that serve.log names; None if it names none.

    Raises:
        UsageError: the file cannot be opened.
    """
    if not name:
        yield None
        return
    log = RequestLog(None if name == "-" else folder / name, told)
    try:
        yield log
    finally:
        log.close()


def address_of(host: str, port: int) -> str:
    """The base URL of the API; an IPv6 address is in brackets (RFC 3986, section 3.2.2)."""
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


def open_listener(host: str, port: int, command: str = "serve") -> socket.socket:
    """A socket bound to the port, which does not take connections yet.

    Args:
        command: that errors advise.

    Raises:
        UsageError: the host is not an address of this machine, or the port is taken.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise _no_listener(host, port, error, command) from error
    return listener


def take_connections(listener: socket.socket, host: str) -> None:
    """Lets connections in. Two programs may be bound to a port, but only one takes its connections.

    Raises:
        UsageError: another program was faster.
    """
    try:
        listener.listen()
    except OSError as error:
        raise _no_listener(host, listener.getsockname()[1], error) from error


def _no_listener(host: str, port: int, error: OSError, command: str = "serve") -> UsageError:
    where = f"port {port} on {plain(host, 80)}: {error.strerror}"
    if error.errno == errno.EADDRINUSE:
        return UsageError(where, f"Take another: journeyman {command} --port 0")
    if error.errno == errno.EACCES:
        return UsageError(where, f"Take one from 1024: journeyman {command} --port 8011")
    return UsageError(where, f"Set {command}.host to an address of this machine: 127.0.0.1, or 0.0.0.0 for all of them")
