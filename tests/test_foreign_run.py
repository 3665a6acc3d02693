"""A log in which every name is hostile, from ingest to export: all output and all files are searched."""

from __future__ import annotations

import ast
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from markdown_it import MarkdownIt
from rich.progress import Progress

from conftest import log_row
from hostile import ROLES, acting, injected
from journeyman import records
from journeyman.api.hosting import address_of
from journeyman.artifacts import hash_of_file, read_json, read_rows
from journeyman.bundling.results import Results
from journeyman.cli import app as cli
from journeyman.cli.grid import Column, print_grid
from journeyman.cli.progress import Display
from journeyman.cli.say import PlainConsole, prepare_streams, say
from journeyman.cli.tables import print_verdict_table
from journeyman.config import EvaluateConfig, RedactConfig, TrainConfig, load_config, parse_config
from journeyman.errors import InputError, UsageError
from journeyman.events import Warned
from journeyman.foreign import file_part, named
from journeyman.manifests import (
    AdapterManifest,
    DatasetManifest,
    DecisionManifest,
    DiskPlan,
    EvaluationManifest,
    PlanManifest,
    RulePower,
    SplitCounts,
    TermsOfTeacher,
)
from journeyman.models.gguf_file import GgufFile
from journeyman.reasons.base import Text
from journeyman.reasons.planning import TooFewTestRows
from journeyman.records import EVERY_ROLE, Rejected
from journeyman.rendering.renderer import Renderer
from journeyman.stages.decide import decide
from journeyman.stages.export import export
from journeyman.stages.plan_page import plan_text
from journeyman.supervision.log import LOG
from journeyman.supervision.session import SupervisedEvents
from test_decide import FALLING, RULES, evaluation, summary
from test_foreign import ollama_reads
from test_pipeline import call

MakeRun = Callable[..., Path]
Captured = pytest.CaptureFixture[str]
COMMAND = [sys.executable, "-m", "journeyman"]


def hostile_row(number: int, role: str) -> dict[str, Any]:
    row = log_row(number, role)
    row["execution"]["input_messages"][0]["content"] = "You are an agent."
    row["llm"] = {"provider": role or "nobody", "model": role or "none", "config": {"max_tokens": 100}}
    row["id"] = f"{number} {role}"
    return row


def log_roles() -> list[str]:
    return [role for role in ROLES if role]


@pytest.fixture
def hostile_run(make_run: MakeRun) -> Path:
    roles = log_roles()
    rows = [hostile_row(number, roles[number % len(roles)]) for number in range(3 * len(roles))]
    folder = make_run([*rows, hostile_row(9999, "all")], name="a run <b>")
    (folder / "logs.jsonl").rename(folder / "l\x1b[31m\nrm -rf [x].jsonl")
    toml = (folder / "journeyman.toml").read_text().replace("logs.jsonl", "*.jsonl")
    (folder / "journeyman.toml").write_text(toml)
    return folder


def test_from_a_hostile_log_to_the_plan_nothing_is_printed_or_written_raw(
    hostile_run: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = []
    for columns in ("", "40"):
        monkeypatch.setenv("COLUMNS", columns) if columns else monkeypatch.delenv("COLUMNS", raising=False)
        for arguments in (["ingest"], ["curate"], ["plan"], ["show", "ingest"], ["show", "dataset"], ["show", "plan"],
                          ["show", "dataset", "--row", "1"], ["show", "ingest", "--json"], ["status"]):  # fmt: skip
            assert call(*arguments, "--dir", hostile_run) == 0, capsys.readouterr().err
            seen = capsys.readouterr()
            assert not acting(seen.out, "\n\t") and not acting(seen.err, "\n\t"), arguments
            assert not injected(seen.out + seen.err), arguments
            printed.append(seen.out + seen.err)
    everything = "".join(printed)
    assert "[/foo]" in everything and "[bold red]x[/]" in everything and "<script>alert(1)</script>" in everything
    assert named("x\x1b[31m\x1b]0;title\x07") in everything
    for name in (LOG, "03-plan/plan.md", "02-dataset/lint.html"):
        written = (hostile_run / name).read_text()
        assert not acting(written, "\n\t\u200c\u200d"), name
        assert name.endswith(".html") or not injected(written), "in a page a line break is a space"
    page = (hostile_run / "02-dataset" / "lint.html").read_text()
    assert "&lt;script&gt;alert(1)" in page and "<script>alert" not in page and "<img" not in page
    harmless_markdown((hostile_run / "03-plan" / "plan.md").read_text())


def harmless_markdown(text: str) -> str:
    page = MarkdownIt("commonmark").enable("table").render(text)
    assert not re.search(r"<(script|img|a|pre|blockquote|code[^>]+)\b", page)
    assert not injected(text) and not acting(text)
    assert "://" not in text, "nor a link in a flavour that makes them of bare addresses"
    return page


def test_a_role_called_all_is_refused_with_the_reason_and_the_way_out(hostile_run: Path) -> None:
    assert call("ingest", "--dir", hostile_run) == 0
    result = read_json(hostile_run / "01-interactions" / "manifest.json")["result"]
    assert "all" not in result["by_role"] and result["by_role"].keys() == set(log_roles())
    (refused,) = read_rows(hostile_run / "01-interactions" / "rejected.jsonl", Rejected)
    assert refused.reason.code == "role_called_all" and "data.role_field" in refused.reason.sentence()
    endpoint = {"url": "http://127.0.0.1:1/v1", "model": "m", "roles": ["all"]}
    needs = [{"role": "tester", "matches": "x"}]
    for toml in (
        {"roles": {"all": {}}}, {"data": {"default_role": "all"}}, {"evaluate": {"endpoints": {"far": endpoint}}},
        {"curate": {"credit": [{"role": "all", "otherwise": 0.5, "needs": needs}]}},
        {"curate": {"credit": [{"role": "coder", "otherwise": 0.5, "needs": [needs[0] | {"role": "all"}]}]}},
    ):  # fmt: skip
        with pytest.raises(UsageError, match="means every role"):
            parse_config(toml, "journeyman.toml")


def test_what_stands_for_every_role_is_written_in_one_place() -> None:
    """A module that spells out the name itself would keep the old one if it changed."""
    source = Path(records.__file__).parent
    modules = [one for one in source.rglob("*.py") if "jail" not in one.parts and one.name != "records.py"]
    spelled = [
        f"{path.relative_to(source)}:{node.lineno}"
        for path in modules
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value == EVERY_ROLE
    ]
    assert len(modules) > 100 and spelled == []
    assert not [one for one in source.rglob("*.j2") if re.search(r"""["']all["']""", one.read_text())]


# --- decide and export ----------------------------------------------------------------------------


@pytest.fixture
def judged() -> EvaluationManifest:
    roles = {role: summary(400, 400) for role in ("all", *ROLES)}
    return evaluation(roles, {"tuned": 2.0}, adapter_sha256=dict.fromkeys(ROLES, "0"))


def decision_of(judged: EvaluationManifest, out: Path) -> DecisionManifest:
    plan = PlanManifest.model_construct(rules=RULES)
    data = DatasetManifest.model_construct(splits={})
    adapter = SimpleNamespace(of=lambda role: FALLING)
    return decide(plan, data, adapter, judged, TrainConfig(), {}, out)  # type: ignore[arg-type]


def test_the_decision_of_hostile_roles(judged: EvaluationManifest, tmp_path: Path, capsys: Captured) -> None:
    made = decision_of(judged, tmp_path)
    page = harmless_markdown((tmp_path / "decision.md").read_text())
    assert page.count("<h2>") == len(ROLES) + 1 and page.count("<h1>") == 1
    for width in (120, 40, 20):
        print_verdict_table(PlainConsole(width=width), judged, made)
        printed = capsys.readouterr().out
        assert not acting(printed) and not injected(printed)
        assert "[/foo]" in printed and printed.count("deploy") >= len(ROLES)


def test_the_bundle_of_hostile_roles(judged: EvaluationManifest, tiny_gguf: Path, tmp_path: Path) -> None:
    made = decision_of(judged, tmp_path)
    trained = {role: FALLING.model_copy(update={"folder": file_part(role)}) for role in ROLES}
    adapter = AdapterManifest(
        base_sha256="0", trainable_parameters=1, adapters=trained, precision="float32", peak_memory_gb=None
    )
    for one in trained.values():
        (tmp_path / "trained" / one.folder).mkdir(parents=True)
        (tmp_path / "trained" / one.folder / "adapter.gguf").write_bytes(b"x")
    file = judged.files["tuned"].model_copy(update={"path": str(tiny_gguf), "sha256": hash_of_file(tiny_gguf)})
    judged = judged.model_copy(update={"files": {"tuned": file}})
    teacher = TermsOfTeacher(terms="allow", rows=2)
    dataset = DatasetManifest.model_construct(
        prompts={}, system_prompts={role: f"You are {role}" for role in ROLES}, rows_in=9, kept=8, train_tokens=1,
        splits=dict.fromkeys(ROLES, SplitCounts(train=4, val=2, test=2, effective_test=2.0)),
        teacher_terms=dict.fromkeys(ROLES, teacher), dropped={"teacher_terms": 1},
    )  # fmt: skip
    plan = PlanManifest.model_construct(base_path="/b/<b>`x|.gguf", base_sha256="1")
    out = tmp_path / "bundle"
    out.mkdir()
    template = Renderer(GgufFile(tiny_gguf)).served_template
    bundle = export(
        Results(plan, dataset, adapter, judged, made), tiny_gguf, template, tmp_path / "trained", EvaluateConfig(),
        RedactConfig(), "because\n# of | <b>\x1b[31m", out,
    )  # fmt: skip
    assert bundle.roles == ROLES
    names = {path.name for path in out.iterdir()}
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", name) and not name.startswith((".", "-")) for name in names)
    assert len(names) == len({name.casefold() for name in names})
    assert sum(name.startswith("adapter-") for name in names) == len(ROLES)
    card = (out / "README.md").read_text()
    page = harmless_markdown(card)
    assert page.count("<tr>") == len(ROLES) + 2, "a line of the table for each role, for all and its head"
    for role in ROLES:
        path, prompt = out / f"Modelfile.{file_part(role)}", f"You are {role}"
        if path.exists():
            assert ollama_reads(path.read_bytes().decode())[-1] == ("SYSTEM", prompt)
    without = [role for role in ROLES if not (out / f"Modelfile.{file_part(role)}").exists()]
    assert 'a"""\nPARAMETER temperature 9\nSYSTEM """b' in without and "coder" not in without
    assert card.count("has no Modelfile") == len(without) > 3
    assert read_json(out / "prompts.json") == dataset.system_prompts
    assert not injected((out / "llama-server.sh").read_text())


def test_the_plan_of_hostile_roles() -> None:
    rules = RULES.model_copy(update={"files": ["<b>.gguf", "|`x`.gguf"]})
    plan = PlanManifest.model_construct(
        base_path="/x/<b>\n# y", base_sha256="0", base_parameters=1, trainable_parameters=1, steps_per_epoch=1,
        total_steps=1, total_tokens=1, precision="float32", matrix_gflops=1.0, memory="keep", estimated_train_s=1.0,
        estimated_train_memory_gb=1.0, estimated_serve_memory_gb=1.0, rules=rules, power_rate=0.99, pack_tokens=1,
        power=dict.fromkeys(ROLES, 0.5), warnings=[TooFewTestRows(role, 4, 4.0, 0.98, 189).record() for role in ROLES],
        rows=dict.fromkeys(ROLES, SplitCounts(train=4, val=2, test=2, effective_test=2.0)),
        teachers=dict.fromkeys(ROLES, 3), license="<b>", serving="the server http://x/<b>",
        disk=DiskPlan(needs={"bundle": 1}, there={"<b>": 1}, free=1),
        rule_power=[RulePower(rule="success", of=role, rows=2.5, shown=None) for role in ROLES],
    )  # fmt: skip
    page = harmless_markdown(plan_text(plan, parse_config({}, "x")))
    assert page.count("<h2>") == 7 and page.count("<li>") >= 2 * len(ROLES)


# --- the terminal ---------------------------------------------------------------------------------


class Terminal:
    """A stream that claims to be a terminal and records its input."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.sent = ""

    def write(self, text: str) -> int:
        self.sent += text
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return True


def test_a_progress_bar_reads_no_markup_and_lets_no_sign_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    display, reporter = Display(), SupervisedEvents(tmp_path, "again")
    reporter.subscribe(display)
    assert display.live and isinstance(display._progress, Progress)
    with reporter.until_the_end(), display.shown():
        for role in ROLES:
            reporter.begin(role, 2, role)
            reporter.advance(1, role)
            display._progress.refresh()
            reporter.say(role)
            reporter.tell(Warned(Text(role)))
    assert "[/foo]" in terminal.sent
    left = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.sent)  # rich's own colours and cursor movements
    assert not acting(left, "\n\r") and not injected(left) and "title\x07" not in terminal.sent
    assert "\x1b[31m\x1b]0" not in terminal.sent
    log = (tmp_path / LOG).read_text()
    assert not acting(log) and not injected(log) and log.count("\n") == 2 * len(ROLES)


@pytest.mark.parametrize("width", [10, 20, 40, 60, 80, 120])
def test_tables_are_readable_at_any_width(width: int, capsys: Captured) -> None:
    columns = [Column("role", wraps=True), Column("rows"), Column("verdict"), Column("because", wraps=True)]
    rows = [
        ["coder", "1,234", "insufficient", "success 20 of 27 (55%–87%), required ≥ 50%"],
        ["[/foo]", "1", "deploy", "x"],
    ]
    print_grid(PlainConsole(width=width), "what the logs say", columns, rows)
    printed = capsys.readouterr().out
    assert printed.startswith("what the logs say")
    words = " ".join(re.sub("[┏┳┓┃┡╇┩│└┴┘━─]", " ", printed).split())
    for word in ("coder", "1,234", "[/foo]", "20 of 27", "because"):
        assert word in words or width == 10
    body = printed.split("\n")[1:]
    assert all(len(line) <= width for line in body)
    assert "…" not in printed, "nothing is cut"
    assert ("┃" in printed) == (width >= 60)


def test_the_blocks_of_a_narrow_terminal(capsys: Captured) -> None:
    columns = [Column("role", wraps=True), Column("rows"), Column("because", wraps=True)]
    print_grid(PlainConsole(width=30), "title", columns, [["coder", "12", "it is a long story told at length"]])
    assert capsys.readouterr().out == "title\ncoder\n  rows: 12\n  because: it is a long story\n  told at length\n"


def test_say_prints_one_line_and_reads_nothing_into_it(capsys: Captured) -> None:
    for role in ROLES:
        say(role)
        assert capsys.readouterr().out.count("\n") == 1
    say("[bold]:smile:[/] [/foo]")
    assert capsys.readouterr().out == "[bold]:smile:[/] [/foo]\n"


def test_an_error_and_a_fault_of_ours_print_plain(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(error: Exception) -> None:
        def app() -> None:
            raise error

        monkeypatch.setattr(cli, "app", app)
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert left.value.code == 1

    fails(InputError("row\x1b[31m\nrm -rf /tmp/x \u202e", "Look\x9b"))
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and not acting(printed) and not injected(printed)
    fails(ValueError("\x1b]0;title\x07 [/foo]"))
    printed = capsys.readouterr().err
    assert "Traceback" in printed and "ValueError: \\x1b]0;title\\x07 [/foo]" in printed and not acting(printed)


def test_what_libraries_log_and_threads_that_fail_print_plain(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    prepare_streams()
    try:
        raise ValueError("\x1b[31m\u202e")
    except ValueError:
        logging.getLogger("uvicorn.error").exception("GET /\x9b31m [/foo]")
    thread = threading.Thread(target=lambda: [][ROLES.index("coder")])
    thread.start()
    thread.join()
    printed = capsys.readouterr().err
    assert "ERROR: GET /\\x9b31m [/foo]" in printed and "ValueError: \\x1b[31m\\u202e" in printed
    assert "IndexError" in printed and not acting(printed)


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert address_of("::1", 80) == "http://[::1]:80/v1" and address_of("127.0.0.1", 80) == "http://127.0.0.1:80/v1"


# --- separate processes: encodings and readers that go away -------------------------------------


@pytest.fixture
def ingested(make_run: MakeRun) -> Path:
    folder = make_run([hostile_row(n, ROLES[n % 3] if n % 2 else "Prüfer") for n in range(30)])
    assert call("ingest", "--dir", folder) == 0
    return folder


@pytest.mark.parametrize(
    "settings",
    [{"PYTHONIOENCODING": "ascii"}, {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
)
def test_a_terminal_without_unicode_gets_ascii(ingested: Path, settings: dict[str, str]) -> None:
    environment = {**os.environ, **settings}
    for arguments in (["show", "ingest"], ["show", "ingest", "--json"], ["status"], ["curate"]):
        done = subprocess.run([*COMMAND, *arguments, "--dir", ingested], capture_output=True, env=environment)
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout.isascii() and done.stderr.isascii()
        assert "Pr\\xfcfer" in done.stdout.decode() or arguments in (["status"], ["show", "ingest", "--json"])
    assert b"rows are kept" in done.stdout


@pytest.mark.parametrize("arguments", [["show", "ingest"], ["show", "ingest", "--json"], ["status"]])
def test_a_reader_that_goes_away_ends_it_quietly(ingested: Path, arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [*COMMAND, *arguments, "--dir", str(ingested)]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_work_goes_on_where_nobody_reads_its_progress(make_run: MakeRun) -> None:
    folder = make_run()
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*COMMAND, "curate", "--dir", folder], stdout=subprocess.PIPE, stderr=write)
    os.close(write)
    assert done.returncode == 0 and b"rows are kept" in done.stdout
    assert "02 curate" in (folder / LOG).read_text()
    assert load_config(folder / "journeyman.toml")
