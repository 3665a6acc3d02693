r"""A log of hostile rows goes from `ingest` to `serve`: nothing executed, nothing printed raw, nothing lost.

The logs are made by `tools/make_hostile_log.py`: whatever gets to run leaves a file `PROOF…`, whatever could act where
it is shown contains the word RAW. Every command is a separate process; the engine, the sandbox and the port are real.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import runpy
import signal
import stat
import subprocess
import sys
import time
import unicodedata
import urllib.request
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt

from conftest import write_tiny_gguf
from journeyman import __file__ as package
from journeyman.artifacts import read_json, read_rows
from journeyman.records import Example, Finding, Interaction, Rejected, Score

pytestmark = pytest.mark.slow  # a whole run

TOOL = Path(__file__).parents[1] / "tools" / "make_hostile_log.py"
CHECKS = runpy.run_path(str(TOOL))["CHECKS"]
TOML = """
[base]
model = "{base}"
[data]
sources = ["logs"]
[curate]
max_length = 1024
test_share = 0.15
val_share = 0.05
[train]
adapters = "per-role"
epochs = 1
batch_size = 32
learning_rate = 1e-5
precision = "float32"
threads = 1
[train.lora]
rank = 2
targets = ["q_proj"]
[evaluate]
max_new_tokens = 4
context = 2048
threads = 1
timed_rows = 1
few_shot = 0
regression_suite = false
"""
ENDS = {"ingest": 0, "curate": 0, "plan": 0, "train": 0, "evaluate": 0, "decide": 3, "export": 3}
"""Verb → the exit code that the documentation gives it: a tiny random model is not deployed."""
LOOKS = (["status"], *(["show", command] for command in ENDS), ["show", "dataset", "--row", "3"])


@dataclass
class Taken:
    """A hostile run after its export.

    Attributes:
        proof: the folder in which commands of rows would leave files.
        around: the working directory, HOME and TMPDIR of every process.
        said: command → how it ended, with its output.
    """

    folder: Path
    proof: Path
    around: list[Path]
    said: dict[str, subprocess.CompletedProcess[bytes]]

    def result(self, stage: str) -> Any:
        (place,) = self.folder.glob(f"0?-{stage}")
        return read_json(place / "manifest.json")["result"]


def environment(around: list[Path]) -> dict[str, str]:
    _, home, temporary = around
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    source = str(Path(str(package)).parents[1])  # the code under test, whatever the working directory
    own = {"PYTHONPATH": source, "HOME": str(home), "TMPDIR": str(temporary), "LC_ALL": "C.UTF-8", "COLUMNS": "120"}
    return {**kept, **own, "OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "1000"}


def journeyman(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "journeyman", *arguments], capture_output=True, **settings)


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Taken:
    place = tmp_path_factory.mktemp("hostile")
    folder, proof, *around = (place / name for name in ("run", "proof", "cwd", "home", "tmp"))
    for one in (folder, proof, *around):
        one.mkdir()
    subprocess.run([sys.executable, TOOL, folder / "logs", proof], check=True, capture_output=True)
    os.mkfifo(folder / "logs" / "pipe.jsonl")
    base = write_tiny_gguf(place / "tiny.gguf", context=2048)
    roles = "".join(f'[roles.{role}]\nchecks = ["{check}"]\n' for role, check in CHECKS.items())
    (folder / "journeyman.toml").write_text(TOML.format(base=base) + roles)
    run = partial(journeyman, cwd=around[0], env=environment(around), timeout=300)
    said = {}
    for command in ENDS:
        reason = ["--override", "a test"] if command == "export" else []
        said[command] = run(command, "--dir", str(folder), *reason)
    for look in LOOKS:
        said[" ".join(look)] = run(*look, "--dir", str(folder))
    said["verify"] = run("verify", str(folder))
    return Taken(folder, proof, around, said)


def test_every_command_ends_as_documented(taken: Taken) -> None:
    for command, done in taken.said.items():
        printed = done.stderr.decode()
        assert done.returncode == ENDS.get(command, 0), f"{command}: {printed[-2000:]}"
        assert "Traceback" not in printed, f"{command}: {printed[-2000:]}"


# --- nothing executed -----------------------------------------------------------------------------


def assert_no_proof(taken: Taken) -> None:
    assert not list(taken.proof.iterdir())
    for place in (*taken.around, taken.folder):
        found = [path for path in place.rglob("*") if path.name.startswith("PROOF") or path.name == "RAW"]
        assert not found, found


def test_no_row_ran_a_command(taken: Taken) -> None:
    assert_no_proof(taken)
    assert not list(taken.around[0].iterdir()), "something was written where the user stood"
    left = [path.name for path in taken.around[2].iterdir() if not path.name.startswith("torchinductor_")]
    assert not left, "something was left in the folder for temporary files, beside torch's own cache"


def test_the_traps_are_live(tmp_path: Path) -> None:
    """If git runs on a row's files, the proof appears, so its absence above means something."""
    tool = runpy.run_path(str(TOOL))
    row = next(tool["patch_rows"](tool["Writer"](tmp_path)))
    for name, content in row["check"]["files"].items():
        path = tmp_path / "loose" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    given = row["execution"]["output"].encode()
    subprocess.run(["git", "apply", "--check", "-"], input=given, cwd=tmp_path / "loose", capture_output=True)
    assert list(tmp_path.glob("PROOF-*"))


def test_the_exported_script_starts_the_server_and_nothing_else(taken: Taken, tmp_path: Path) -> None:
    script = taken.folder / "07-bundle" / "llama-server.sh"
    subprocess.run(["sh", "-n", script], check=True)
    fake = tmp_path / "llama-server"
    fake.write_text(f"#!{sys.executable}\nimport json, os, sys\nprint(json.dumps([os.getcwd(), *sys.argv[1:]]))\n")
    fake.chmod(0o755)
    done = subprocess.run(
        ["sh", script], capture_output=True, cwd=taken.around[0], env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    )
    assert done.returncode == 0 and not done.stderr
    stood, *arguments = json.loads(done.stdout)
    assert Path(stood) == script.parent
    adapters = [value for flag, value in pairwise(arguments) if flag == "--lora"]
    assert adapters == list(taken.result("bundle")["adapter_files"].values())
    assert all((script.parent / name).is_file() and "/" not in name for name in adapters)
    assert_no_proof(taken)


def settings_of(modelfile: str) -> list[tuple[str, str]]:
    """The commands of a Modelfile, read as Ollama reads them: a value in triple quotes ends at the next triple."""
    pattern = r'(\w+) +("""(?:.*?)"""|[^\n]*)\n'
    found = re.findall(pattern, modelfile, re.DOTALL)
    assert "".join(re.sub(pattern, "", modelfile, flags=re.DOTALL)).strip() == ""
    return found


def test_a_modelfile_holds_its_own_settings_and_the_prompt(taken: Taken) -> None:
    bundle = taken.result("bundle")
    files = list((taken.folder / "07-bundle").glob("Modelfile.*"))
    assert files
    prompts = []
    for file in files:
        commands = settings_of(file.read_text())
        said = [name for name, _ in commands if name not in ("SYSTEM", "ADAPTER")]
        assert said == ["FROM", "PARAMETER", "PARAMETER", "PARAMETER"], file.name
        values = [value for name, value in commands if name == "PARAMETER"]
        assert [value.split()[0] for value in values] == ["temperature", "num_ctx", "num_predict"]
        assert [value for name, value in commands if name == "FROM"] == ["./base.gguf"]
        adapters = [value for name, value in commands if name == "ADAPTER"]
        assert all(value.removeprefix("./") in bundle["adapter_files"].values() for value in adapters)
        prompts += [value for name, value in commands if name == "SYSTEM"]
    assert any("You follow the notes" in prompt for prompt in prompts)


def test_names_of_rows_lead_nowhere(taken: Taken) -> None:
    for path in taken.folder.rglob("*"):
        name = path.relative_to(taken.folder).as_posix()
        if not name.startswith("logs/"):
            assert re.fullmatch(r"[\w./-]+", name, re.ASCII), name
            assert not path.is_symlink(), name
    bundled = taken.result("bundle")["adapter_files"].values()
    assert all(Path(name).name == name for name in bundled)
    assert len({name.casefold() for name in bundled}) == len(bundled)


# --- nothing lost ---------------------------------------------------------------------------------


def packed_lines(data: bytes) -> int:
    """The lines of a gzip stream that ends too early, plus one rejection that reports it."""
    lines = zlib.decompressobj(wbits=31).decompress(data).split(b"\n")
    return sum(bool(line.strip()) for line in lines) + 1


def rows_by_file(logs: Path) -> dict[str, int]:
    """Name of each log → its number of rows, counted without the project's code."""
    counted = {}
    for path in logs.rglob("*"):
        if not stat.S_ISREG(path.stat().st_mode) or ".RAW\x1b" in path.name:
            continue
        data = path.read_bytes()
        if path.suffix == ".gz":
            count = packed_lines(data)
        elif path.suffix == ".csv":
            count = sum(1 for _ in csv.reader(io.StringIO(data.decode(), newline=""))) - 1
        else:
            count = sum(bool(line.strip()) for line in data.split(b"\n"))
        name = os.fsencode(path.relative_to(logs)).decode("utf-8", "backslashreplace")
        counted[name] = count
    return counted


def test_every_row_of_every_file_is_kept_or_rejected_with_a_reason(taken: Taken) -> None:
    place, result = taken.folder / "01-interactions", taken.result("interactions")
    expected = rows_by_file(taken.folder / "logs")
    kept = list(read_rows(place / "interactions.jsonl.zst", Interaction))
    rejected = list(read_rows(place / "rejected.jsonl", Rejected))
    assert result["read"] == sum(expected.values())
    assert (result["kept"], result["rejected"]) == (len(kept), len(rejected))
    rows: dict[str, set[int]] = {}
    for file, line in [one.source.rsplit(":", 1) for one in kept] + [(one.source, one.line) for one in rejected]:
        rows.setdefault(file, set()).add(int(line))
    assert {file: len(lines) for file, lines in rows.items()} == expected
    assert all(one.reason.sentence() for one in rejected)
    assert sum(result["skipped"].values()) == 1, "the file that is no log by its name is named"
    assert sum(group["rows"] for group in result["by_role"].values()) == len(kept)


def test_every_kept_row_is_trained_sealed_or_dropped_under_a_rule(taken: Taken) -> None:
    place, result = taken.folder / "02-dataset", taken.result("dataset")
    ids = Counter(one.id for one in read_rows(taken.folder / "01-interactions" / "interactions.jsonl.zst", Interaction))
    dropped = [one for one in read_rows(place / "dropped.jsonl", Finding) if one.action == "dropped"]
    used = [
        one.id for name in ("train.jsonl", "val.jsonl", "sealed/test.jsonl") for one in read_rows(place / name, Example)
    ]
    assert Counter(used) + Counter(one.id for one in dropped) == ids
    assert result["rows_in"] == len(ids) and result["kept"] == len(used)
    assert Counter(one.rule for one in dropped) == result["dropped"]


def test_every_sealed_row_is_judged_for_every_arm(taken: Taken) -> None:
    sealed = [one.id for one in read_rows(taken.folder / "02-dataset" / "sealed" / "test.jsonl", Example)]
    judged: dict[str, Counter[str]] = {}
    for verdict in read_rows(taken.folder / "05-evaluation" / "scores.jsonl", Score):
        judged.setdefault(verdict.arm, Counter())[verdict.id] += 1
    assert set(judged) == {"teacher", "base", "tuned"}
    assert all(counted == Counter(sealed) for counted in judged.values())
    roles = taken.result("evaluation")["roles"]
    assert roles.pop("all")["rows"] == len(sealed) == sum(one["rows"] for one in roles.values())


def test_check_data_of_rows_decide_or_are_named(taken: Taken) -> None:
    verdicts = list(read_rows(taken.folder / "05-evaluation" / "scores.jsonl", Score))
    noted = read_rows(taken.folder / "02-dataset" / "noted.jsonl", Finding)
    assert {"matcher", "shaper", "patcher"} <= {one.role for one in noted if one.rule == "bad_check"}
    for role, check in CHECKS.items():
        mine = [one for one in verdicts if one.role == role]
        assert mine and {one.check for one in mine} == {check}, role
        assert all(one.reason for one in mine if one.outcome != "pass"), f"{role}: no reason is given"


def test_no_control_token_of_a_row_is_trained_or_asked(taken: Taken) -> None:
    for name in ("train.jsonl", "val.jsonl", "sealed/test.jsonl"):
        rows = list(read_rows(taken.folder / "02-dataset" / name, Example))
        assert rows, name
        for one in rows:
            texts = [one.answer, *(turn.content for turn in one.messages)]
            assert not re.search(r"<\|(im_start|im_end|endoftext)\|>", "\n".join(texts)), one.id


def test_every_role_of_the_dataset_is_decided_and_exported(taken: Taken) -> None:
    roles = set(taken.result("dataset")["splits"])
    assert len(roles) > 40
    assert set(taken.result("decision")["roles"]) == {*roles, "all"}
    assert set(taken.result("bundle")["roles"]) == roles


# --- nothing printed raw --------------------------------------------------------------------------

JOINERS = "\u200c\u200d"
"""They shape words and emoji and move nothing: pages keep them in running text."""
ACTING = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
TEXTS = ("journeyman.log", "03-plan/plan.md", "06-decision/*.md", "07-bundle/README.md", "07-bundle/llama-server.sh")
SECRET = b"PLANTEDaB3dE5f"


def acting(text: str, allowed: str = "\n") -> set[str]:
    return {sign for sign in text if sign not in allowed and unicodedata.category(sign) in ACTING}


def files_like(taken: Taken, *patterns: str) -> Iterator[Path]:
    for pattern in patterns:
        found = list(taken.folder.glob(pattern))
        assert found, pattern
        yield from found


def test_no_sign_that_a_terminal_acts_on_is_printed(taken: Taken) -> None:
    for command, done in taken.said.items():
        for printed in (done.stdout.decode(), done.stderr.decode()):
            assert not acting(printed), command
    assert "[/foo]" in taken.said["show ingest"].stdout.decode(), "names are shown, not read as markup"


def test_a_coloured_terminal_gets_no_sequence_but_colours(taken: Taken) -> None:
    colours = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    for command in ENDS:
        done = journeyman(
            "show", command, "--dir", str(taken.folder), cwd=taken.around[0], env=environment(taken.around) | colours
        )
        printed = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout.decode() + done.stderr.decode())
        assert done.returncode == 0 and not acting(printed), command


def test_no_text_file_holds_a_sign_that_acts(taken: Taken) -> None:
    # Modelfiles contain the prompts as the model needs them; another test covers how they are quoted.
    for file in files_like(taken, *TEXTS, "06-decision/*.xml"):
        assert not acting(file.read_text()), file
    for file in files_like(taken, "0?-*/*.html"):
        assert not acting(file.read_text(), "\n\t" + JOINERS), file


class Page(HTMLParser):
    """A page as a browser sees it: its elements, and the text that would run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.code: list[str] = []
        self.headings: list[str] = []
        self._within = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        self._within = tag

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within in ("script", "style"):
            self.code.append(data)
        if re.fullmatch("h[1-6]", self._within):
            self.headings.append(data)


def assert_nothing_acts(page: Page, file: Path) -> None:
    assert not {"img", "iframe", "object", "embed", "link", "base"} & set(page.names), file
    assert not [name for name, _ in page.attributes if name.startswith("on")], file
    links = [value for name, value in page.attributes if name in ("href", "src", "xlink:href", "action")]
    assert not [link for link in links if "RAW" in link or link.lower().startswith(("javascript:", "http"))], file
    assert not any("RAW" in heading and heading.startswith("RAW") for heading in page.headings), file
    assert "RAW" not in "".join(page.code), file


def test_no_row_acts_in_a_page(taken: Taken) -> None:
    for file in files_like(taken, "02-dataset/lint.html", "06-decision/report.html"):
        page = Page(file.read_text())
        assert page.names["script"] <= 1 and page.names["form"] <= 1, f"{file}: more than the page's own"
        assert_nothing_acts(page, file)


def test_no_row_acts_in_markdown(taken: Taken) -> None:
    for file in files_like(taken, "03-plan/plan.md", "06-decision/*.md", "07-bundle/README.md"):
        page = Page(MarkdownIt("commonmark", {"html": True}).enable("table").render(file.read_text()))
        assert_nothing_acts(page, file)
        assert not {"script", "svg"} & set(page.names), file
        cells = [len(re.findall(r"(?<!\\)\|", line)) for line in file.read_text().splitlines() if line[:1] == "|"]
        assert not cells or len(set(cells)) <= 2, f"{file}: a row of a table has other columns than the rest"


def test_the_results_for_a_ci_are_xml_that_names_every_role(taken: Taken) -> None:
    (file,) = files_like(taken, "06-decision/junit.xml")
    cases = ElementTree.parse(file).getroot().iter("testcase")
    assert len({case.get("name") for case in cases}) >= len(taken.result("dataset")["splits"])


def test_no_planted_secret_is_anywhere(taken: Taken) -> None:
    for path in taken.folder.rglob("*"):
        if path.is_file() and "logs" not in path.relative_to(taken.folder).parts:
            assert SECRET not in path.read_bytes(), path
    assert taken.result("interactions")["redacted"]["api_key"] >= 7
    assert all(SECRET not in done.stdout + done.stderr for done in taken.said.values())


# --- serve ----------------------------------------------------------------------------------------


def asked(address: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def started(child: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and child.poll() is None:
        if found := re.search(rb"on (http://127\.0\.0\.1:\d+)/v1 ", log.read_bytes()):
            return found[1].decode()
        time.sleep(0.1)
    raise AssertionError(log.read_text()[-2000:])


@pytest.fixture
def until_stopped() -> Iterator[Callable[[subprocess.Popen[bytes]], None]]:
    started_here: list[subprocess.Popen[bytes]] = []
    yield started_here.append
    for child in started_here:
        if child.poll() is None:
            child.kill()
            child.wait()


def test_every_role_is_served_under_its_own_name(
    taken: Taken, tmp_path: Path, until_stopped: Callable[[subprocess.Popen[bytes]], None]
) -> None:
    log = tmp_path / "said"
    with log.open("wb") as file:
        child = subprocess.Popen(
            [sys.executable, "-m", "journeyman", "serve", "--dir", str(taken.folder), "--port", "0"],
            stdout=file, stderr=file, cwd=taken.around[0], env=environment(taken.around),
        )  # fmt: skip
    until_stopped(child)
    address = started(child, log)
    bundle = taken.result("bundle")
    assert {one["id"] for one in asked(address, "/v1/models")["data"]} == set(bundle["roles"])
    for role in bundle["roles"]:
        turns = [{"role": "user", "content": 'Note 1: $(touch PROOF-served) <|im_end|""" \x1b[31m \u202e'}]
        prompt = bundle["prompts"].get(role, {})
        if prompt.get("kind") == "templated":
            turns.insert(0, {"role": "system", "content": prompt["begins"] + prompt["ends"]})
        answer = asked(address, "/v1/chat/completions", {"model": role, "messages": turns, "max_tokens": 2})
        assert answer["model"] == role and len(answer["choices"]) == 1
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) == 0
    assert not acting(log.read_text())
    assert_no_proof(taken)
