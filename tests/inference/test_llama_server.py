"""The user's own llama-server, started by us: a script with its arguments, and a real one if it is on PATH."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from fake_engine import ASK
from faults import wait_until
from journeyman.api.engine_choice import llama_server_of, typed_program
from journeyman.api.hosting import hosted
from journeyman.api.serving import Server
from journeyman.cli import doctor
from journeyman.config import ServeConfig
from journeyman.errors import EngineError, StaleArtifact, UsageError
from journeyman.inference.engines import engine_identity, identity_now, running_engine, start_engine
from journeyman.inference.llama import LlamaEngine
from journeyman.inference.llama_server import command
from journeyman.manifests import EvaluationManifest
from journeyman.promotion import promote
from journeyman.protocols import EngineSettings
from journeyman.runs import typed_result
from llama_server import write_llama_server
from test_pipeline import call
from test_switching import _bundle

TURNS = [{"role": "user", "content": "hi"}]


@pytest.fixture(params=["script", "llama-server"])
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "script":
        return write_llama_server(tmp_path / "llama-server")
    found = shutil.which(request.param)
    if found is None:
        pytest.skip("no llama-server on PATH")
    return Path(found)


@pytest.fixture
def settings(program: Path, tiny_gguf: Path) -> EngineSettings:
    return EngineSettings(tiny_gguf, {}, 512, 1, 0.0, 2, llama_server=program)


def test_it_answers_as_the_engine_in_the_wheel_does(settings: EngineSettings, tiny_gguf: Path) -> None:
    with running_engine(EngineSettings(tiny_gguf, {}, 512, 1, 0.0, 2)) as own:
        expected, text = own.greedy([1, 2, 3], 8), own.prompt_text(TURNS)
    with running_engine(settings) as engine:
        assert isinstance(engine, LlamaEngine)
        assert engine.greedy([1, 2, 3], 8) == expected and engine.prompt_text(TURNS) == text
        assert engine.engine_identity == identity_now(512, 2, 1, settings.llama_server)
        assert engine.engine_identity.name == "llama-server" and engine.engine_identity.known
        pulse = engine.pulse()
        assert pulse is not None and pulse.requests == 0 and pulse.steps and pulse.cpu_s > 0
        key = engine.headers["Authorization"].removeprefix("Bearer ")
        for process in (engine.pid, engine._process.pid):
            assert key not in " ".join(psutil.Process(process).cmdline()), "ps shows it to everybody"


def test_the_bundles_template_and_its_variables_are_used(settings: EngineSettings, tiny_gguf: Path) -> None:
    template = "{% for m in messages %}[{{ mood }}] {{ m.content }}{% endfor %}"
    changed = EngineSettings(
        tiny_gguf, {}, 512, 1, 0.0, chat_template=template, template_variables={"mood": 'so "so"'},
        llama_server=settings.llama_server,
    )  # fmt: skip
    with running_engine(changed) as engine:
        assert engine.prompt_text(TURNS) == '[so "so"] hi'


def _children() -> Iterator[tuple[psutil.Process, list[str]]]:
    """The programs that this process has started, with their command lines; one that is just ending is left out."""
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            yield one, one.cmdline()


def _ended(process: psutil.Process) -> Callable[[], bool]:
    return lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("whom", ["itself", "its parent", "both"])
def test_neither_process_outlives_the_other(settings: EngineSettings, whom: str) -> None:
    engine = LlamaEngine(settings)
    both = [psutil.Process(engine.pid), psutil.Process(engine._process.pid)]
    assert both[0] != both[1]
    if whom == "both":
        engine.kill()
    else:
        os.kill(engine.pid if whom == "itself" else engine._process.pid, signal.SIGKILL)
    for process in both:
        wait_until(_ended(process))
    wait_until(lambda: not engine.alive)
    assert "ended" in engine.how_it_ended()
    engine.stop()


def test_what_does_not_start_says_why(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"no model")
    with pytest.raises(EngineError, match=r"did not start|ended while loading"):
        start_engine(EngineSettings(tmp_path / "bad.gguf", {}, 512, 1, 0.0, llama_server=program))
    with pytest.raises(EngineError, match="does not print its version"):
        identity_now(512, 1, 1, Path("/bin/true"))
    with pytest.raises(UsageError, match="no program of this name"):
        llama_server_of(ServeConfig(llama_server="no-such-llama-server"), tmp_path)
    with pytest.raises(UsageError, match="name two engines"):
        llama_server_of(ServeConfig(llama_server=str(program), engine_url="http://127.0.0.1:1"), tmp_path)
    assert llama_server_of(ServeConfig(), tmp_path) is None
    (tmp_path / "bin").mkdir()
    mine = write_llama_server(tmp_path / "bin" / "mine")
    assert llama_server_of(ServeConfig(llama_server="bin/mine"), tmp_path) == mine, "from the run's folder"
    monkeypatch.chdir(tmp_path / "bin")
    assert typed_program("./mine") == mine and typed_program("mine") == Path("mine"), "from the current one, or PATH"


def test_arguments() -> None:
    job = {
        "llama_server": "/x/llama-server", "base": "/b.gguf", "adapters": ["/a.gguf", '/b, "c".gguf'], "context": 512,
        "parallel": 3, "threads": 2, "http_threads": 64, "key": "secret-key", "template_variables": {},
    }  # fmt: skip
    words = command(job)
    assert "secret-key" not in words and words[words.index("--ctx-size") + 1] == "1536"
    assert [words[place + 1] for place, word in enumerate(words) if word == "--lora"] == ["/a.gguf", '"/b, ""c"".gguf"']
    assert {"--lora-init-without-apply", "--jinja", "--no-slots", "--no-webui"} <= set(words)
    assert words[words.index("--host") + 1] == "127.0.0.1"


# --- a bundle ---------------------------------------------------------------------------------------


def test_it_serves_a_bundle_that_it_was_evaluated_with_and_no_other(program: Path, tmp_path: Path) -> None:
    identity = identity_now(512, 1, 1, program)
    evaluated = _bundle(tmp_path / "evaluated", 1, engine=identity)
    with hosted(evaluated, 0, llama_server=str(program)) as host:
        assert host.engine.engine_identity == identity
    other = _bundle(tmp_path / "other", 1, engine=identity.model_copy(update={"version": "1 (older)"}))
    with pytest.raises(StaleArtifact, match=r"1 \(older\)"), hosted(other, 0, llama_server=str(program)):
        pass
    told: list[str] = []
    with hosted(other, 0, llama_server=str(program), allow_other_engine=True, told=told.append):
        assert any("verdict does not apply" in line for line in told)


def test_it_is_restarted_unless_the_program_was_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = write_llama_server(tmp_path / "llama-server")
    bundle = _bundle(tmp_path / "bundle", 1)
    (bundle / "journeyman.toml").write_text('[serve]\nllama_server = "../llama-server"\nrestart_s = 60.0\n')
    with Server(bundle, 0) as server:
        assert server._host is not None
        first = server.chat("coder", ASK["messages"], max_tokens=8).text
        os.kill(server._host.engine.pid, signal.SIGKILL)  # type: ignore[attr-defined]
        wait_until(lambda: any("is running again" in line for line in server.warnings))
        assert server.chat("coder", ASK["messages"], max_tokens=8).text == first
        write_llama_server(program, version="7778")
        for one, words in _children():
            if any(word.endswith("/llama-server") for word in words):
                one.kill()
        wait_until(lambda: any("replaced while" in line and "7778" in line for line in server.warnings))


def test_a_release_is_served_by_it_too(tmp_path: Path) -> None:
    write_llama_server(tmp_path / "mine")
    (tmp_path / "journeyman.toml").write_text('[serve]\nllama_server = "./mine"\n')
    promote(_bundle(tmp_path / "one", 1), tmp_path / "releases")
    with Server(tmp_path, 0, releases=tmp_path / "releases") as server:
        first = server.chat("coder", ASK["messages"], max_tokens=8).text
        promote(_bundle(tmp_path / "two", 2), tmp_path / "releases")
        wait_until(lambda: server.chat("coder", ASK["messages"], max_tokens=8).text != first)
        assert server._host is not None and server._host.engine.engine_identity.name == "llama-server"
        assert any(str(tmp_path / "releases" / "0002" / "base.gguf") in words for _, words in _children())


def test_doctor_says_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # it may be relative
    monkeypatch.chdir(tmp_path)
    assert not doctor._has_own_server()
    write_llama_server(tmp_path / "mine")
    Path("journeyman.toml").write_text('[serve]\nllama_server = "./mine"\n')
    assert doctor._has_own_server() and doctor._line("llama-server", doctor._llama_server)
    assert "llama-server 7777 (abc1234), CUDA0: A GPU of tests" in capsys.readouterr().out
    Path("journeyman.toml").write_text('[serve]\nllama_server = "./other"\n')
    assert doctor._has_own_server() and not doctor._line("llama-server", doctor._llama_server)


def test_a_bundle_whose_prompts_it_makes_otherwise_is_not_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = write_llama_server(tmp_path / "llama-server")
    program.write_text(program.read_text().replace('os.environ.get("LLAMA_ARG_CHAT_TEMPLATE")', '"other"'))
    bundle = _bundle(tmp_path / "bundle", 1)
    with pytest.raises(EngineError, match="other prompts than training"), hosted(bundle, 0, llama_server=str(program)):
        pass


# --- an evaluation ----------------------------------------------------------------------------------


def test_what_is_evaluated_with_it_is_served_with_it_and_another_program_is_another_engine(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_run(toml='llama_server = "./mine"\n')
    program = write_llama_server(folder / "mine")
    assert call("run", "--dir", folder, "--override", "a test") in (0, 3)
    made = typed_result(folder, "evaluate", EvaluationManifest)
    assert made.engine.name == "llama-server" and made.engine.version.startswith("7777")
    with Server(folder, 0) as server:
        assert not server.warnings
        assert server.chat("coder", ASK["messages"], max_tokens=4).text
    with pytest.raises(StaleArtifact, match="evaluated with llama-server"), hosted(folder, 0, llama_server=""):
        pass
    moved = folder / "elsewhere"
    program.rename(moved)
    settings = ["--set", "evaluate.llama_server=./elsewhere"]
    assert call("run", "--dir", folder, "--until", "evaluate", *settings) == 0, "the same program at another place"
    write_llama_server(moved, version="7778")
    engine_identity.cache_clear()
    assert call("run", "--dir", folder, "--until", "evaluate", *settings) == 1, "stale"
