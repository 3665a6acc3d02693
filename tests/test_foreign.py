"""Foreign text in every medium: the output of each function, read back by the rules of the medium."""

from __future__ import annotations

import ast
import html
import json
import re
import shlex
import string
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hostile import ROLES, acting, injected
from journeyman import foreign
from journeyman.bundling.modelfiles import modelfile
from journeyman.bundling.scripts import llama_script
from journeyman.foreign import file_part, json_text, markdown, named, ollama_text, plain, plain_lines, shell_word
from journeyman.manifests import BundleManifest, DecisionManifest, RoleDecision, RuleResult
from journeyman.records import Score
from journeyman.reporting.charts import latency_chart, memory_chart, pairs_chart, success_chart
from journeyman.reporting.html import environment
from journeyman.reporting.junit import write_junit
from test_decide import evaluation, speed, summary

SIGNS = st.characters(codec=None) | st.sampled_from("\x1b\x9b\u202e\u2066\u200d\ud800\ufffe\n\r\t\"'`|<>[]*_#$\\ ")
TEXTS = st.text(SIGNS, max_size=40) | st.sampled_from(ROLES)
PAGE = MarkdownIt("commonmark").enable("table")


# --- one line, a name, JSON -----------------------------------------------------------------------


@given(TEXTS)
def test_nothing_acts_in_what_any_function_gives(text: str) -> None:
    for made in (plain(text), named(text), markdown(text), json_text(text), file_part(text), plain(text, 7)):
        assert not acting(made, "")
        assert "\ufffe" not in made and "\uffff" not in made
    assert not acting(plain_lines(text), "\n\t\u200c\u200d")
    assert plain_lines(text).count("\n") == text.count("\n")


@given(TEXTS, TEXTS)
def test_two_names_never_look_alike_nor_share_a_file(one: str, other: str) -> None:
    if one != other:
        assert named(one) != named(other)
        assert file_part(one).casefold() != file_part(other).casefold()
    assert len(named(one)) <= 60


def test_the_hostile_names_stay_distinct_everywhere() -> None:
    assert len({named(name) for name in ROLES}) == len(ROLES)
    assert len({markdown(named(name)) for name in ROLES}) == len(ROLES)
    assert len({file_part(name).casefold() for name in ROLES}) == len(ROLES)


def test_plain_names_stay_as_they_are() -> None:
    for name in ("coder", "web tester", "Prüfer", "my_role-2", "审查员", "provider/model:7b"):
        assert named(name) == markdown(named(name)) == name
    assert [file_part(name) for name in ("coder", "my_role-2")] == ["coder", "my_role-2"]


@given(TEXTS)
def test_a_part_of_a_files_name_is_harmless_on_every_system(name: str) -> None:
    part = file_part(name)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,60}", part)
    assert part.lower() not in {"con", "nul", "aux", "prn", "com1", "lpt1"}


def test_a_name_that_is_made_is_not_another_roles_own() -> None:
    assert file_part(file_part("a/b")) != file_part("a/b")


@given(TEXTS)
def test_json_holds_the_true_string_in_ascii(text: str) -> None:
    assert json_text([text]).isascii() and json.loads(json_text([text])) == [text]


# --- Markdown and HTML ----------------------------------------------------------------------------


def shown(text: str) -> str:
    return html.escape(plain(text).strip()).replace("&#x27;", "'")


@given(TEXTS)
def test_markdown_shows_the_text_and_nothing_else(text: str) -> None:
    text = text if plain(text).strip() else "x"
    safe = markdown(text)
    places = {
        f"- {safe}": "<ul>\n<li>{}</li>\n</ul>\n",
        f"## {safe}": "<h2>{}</h2>\n",
        f"With {safe}.": "<p>With {}.</p>\n",
    }
    for source, page in places.items():
        assert PAGE.render(source) == page.format(shown(text))
    table = PAGE.render(f"| a | b |\n| --- | --- |\n| {safe} | 1 |\n")
    assert f"<tr>\n<td>{shown(text)}</td>\n<td>1</td>\n</tr>" in table and table.count("<td>") == 2


def test_addresses_in_markdown_are_no_links_in_any_flavour() -> None:
    for text in ("see http://e.example", "WWW.e.example", "ftp://e.example/x"):
        assert "://" not in markdown(text) and not re.search(r"www\.", markdown(text), re.IGNORECASE)


@given(TEXTS)
def test_html_shows_the_text_and_marks_what_would_act(text: str) -> None:
    page = environment().from_string('<p title="{{ x }}">{{ x }}</p>').render(x=text)
    assert not acting(page, "\n\t\u200c\u200d")
    title, body = re.fullmatch(r'<p title="([^"<>]*)">([^<>]*)</p>', page).groups()  # type: ignore[union-attr]
    assert html.unescape(title) == html.unescape(body) == plain_lines(text)


# --- charts and JUnit -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_charts_of_hostile_names_are_drawn_and_are_sound_xml() -> None:
    names = [
        *ROLES[::5],
        "$\\frac$",
        "$x$",
        "<script>alert(1)</script>",
        "a\x00b",
        "x\x1b[31m\x1b]0;title\x07",
        "x" * 300,
    ]
    roles = {role: summary(3, 9) for role in names}
    times = {role: (speed(1.0), None) for role in names}
    files = evaluation(roles, dict.fromkeys(names, 1.0)).files
    drawn = success_chart(roles, 0.5), pairs_chart(roles, "tuned"), latency_chart(times, 9.0)
    for chart in (*drawn, memory_chart(files, 1.0, 9.0)):
        root = ElementTree.fromstring(chart)
        assert not acting(chart, "\n\t")
        assert not root.findall(".//{*}script") and not root.findall(".//{*}img") and not root.findall(".//{*}a")
    texts = "".join(ElementTree.fromstring(success_chart(roles, 0.5)).itertext())
    assert "$\\frac$" in texts and "<script>alert(1)</script>" in texts
    legend = "".join(ElementTree.fromstring(latency_chart({"_x": (speed(1.0), None)}, 9.0)).itertext())
    assert '"_x", alone' in legend, "matplotlib leaves out labels that begin with _"


def test_junit_is_sound_xml_without_anything_that_acts(tmp_path: Path) -> None:
    reason = RuleResult(rule="success", outcome="fail", reason="a\x1b[31m\nb\ufffe")
    made = RoleDecision(verdict="iterate", stretch=False, reasons=[reason], rows_needed=None, next_steps=[])
    decision = DecisionManifest(
        verdict="iterate", roles=dict.fromkeys(ROLES, made), deployed_roles=[], ships="tuned", others={}, notes=[]
    )
    verdicts = [
        Score(id=f"{n}{role}", role=role, arm="tuned", outcome="fail", check=role, detail=role)
        for n, role in enumerate(ROLES)
    ]
    (tmp_path / "scores.jsonl").write_text("".join(one.model_dump_json() + "\n" for one in verdicts))
    (tmp_path / "predictions.jsonl").write_text("")
    write_junit(decision, tmp_path, tmp_path / "junit.xml")
    suites = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert [suite.get("name") for suite in suites] == [named(role) for role in ROLES]
    assert all(len(suite) == 2 for suite in suites)
    assert not acting(html.unescape((tmp_path / "junit.xml").read_text())), "also not as a character reference"


# --- Modelfile and shell --------------------------------------------------------------------------


def ollama_reads(text: str) -> list[tuple[str, str]]:
    """The commands of a Modelfile, as parsed by the state machine of parser/parser.go in ollama/ollama."""
    commands, state, name, buffer = [], "nil", "", ""

    def value() -> str | None:
        kept = buffer.strip()
        for quotes in ('"""', '"'):
            if kept.startswith(quotes):
                closed = len(kept) >= 2 * len(quotes) and kept.endswith(quotes)
                return kept[len(quotes) : -len(quotes)] if closed else None
        return kept

    for sign in text:
        if state == "nil":
            if sign in " \t\r\n":
                continue
            state, buffer = ("comment", "") if sign == "#" else ("name", sign)
        elif state == "comment":
            state = "nil" if sign in "\r\n" else "comment"
        elif state in ("name", "parameter"):
            if sign not in " \t":
                allowed = string.ascii_letters + ("_" + string.digits if state == "parameter" else "")
                assert sign in allowed, f"Ollama refuses the file at {buffer + sign!r}"
                buffer += sign
                continue
            if state == "name":
                known = ("from", "adapter", "parameter", "system")
                assert buffer.lower() in known, f"Ollama refuses the command {buffer!r}"
            name, state = buffer, "parameter" if buffer.lower() == "parameter" else "value"
            buffer = ""
        elif sign in " \t\r\n":
            done = value()
            if done is None or sign in " \t":
                buffer += sign
                continue
            commands.append((name, done))
            state, buffer = "nil", ""
        elif sign.isprintable():
            buffer += sign
    assert state in ("nil", "comment")
    return commands


def bundle(roles: list[str], **prompts: str) -> BundleManifest:
    return BundleManifest(
        roles=roles, override=None, base_sha256="0", adapter_sha256=dict.fromkeys(roles, "0"),
        adapter_files={role: f"adapter-{file_part(role)}.gguf" for role in roles}, base_file="base.gguf",
        base_path="/b", system_prompts=prompts or {role: f"You are {role}." for role in roles}, redact={},
        settings={"context": 512, "max_new_tokens": 8, "temperature": 0.0, "threads": 2, "parallel": 2},
    )  # fmt: skip


PROMPTS = st.text(st.sampled_from('""""ab \t\n\r\\#') | st.characters(codec="utf-8"), max_size=30)


@given(PROMPTS)
def test_ollama_reads_the_very_prompt_or_gets_no_modelfile(prompt: str) -> None:
    made = bundle(["coder"], coder=prompt)
    try:
        read = ollama_reads(modelfile("coder", made))
    except ValueError:
        naive = f'SYSTEM """{prompt}"""\n'
        with pytest.raises(AssertionError):
            assert ollama_reads(naive) == [("SYSTEM", prompt)], "refused without need"
        return
    assert [name for name, _ in read] == ["FROM", "ADAPTER", "temperature", "num_ctx", "num_predict", "SYSTEM"]
    assert read[-1] == ("SYSTEM", prompt)


@pytest.mark.parametrize(
    ("prompt", "held"),
    [
        ('say "hi"', True), ("two\nlines", True), ('"quoted"', True), ('"', True), ("", True), (" spaces ", True),
        ('in """ the midst of a line', True), ('at the end of all """', True), ("back\\slash \\n", True),
        ("a\r\nb", True),
        ('"""\nPARAMETER temperature 9', False), ('x"""  \nPARAMETER stop y', False), ("a\x1bb", False),
        ("no-break\u00a0space", False), ("family 👩‍👩‍👧", False),
    ],
)  # fmt: skip
def test_which_prompts_a_modelfile_can_hold(prompt: str, held: bool) -> None:
    if held:
        assert ollama_reads(f"SYSTEM {ollama_text(prompt)}\n") == [("SYSTEM", prompt)]
    else:
        with pytest.raises(ValueError, match="Modelfile"):
            ollama_text(prompt)


def test_the_servers_command_line_runs_nothing_of_a_role(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "llama-server"
    fake.write_text('#!/bin/sh\nfor one in "$@"; do echo "$one"; done\n')
    fake.chmod(0o755)
    script = tmp_path / "llama-server.sh"
    text = llama_script(bundle(ROLES))
    script.write_text(text)
    assert not acting(text) and not injected(text)
    assert subprocess.run(["sh", "-n", script]).returncode == 0
    done = subprocess.run(
        ["sh", script, "--extra"], capture_output=True, text=True, cwd=tmp_path,
        env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == ""
    loras = [part for role in ROLES for part in ("--lora", f"adapter-{file_part(role)}.gguf")]
    assert done.stdout.split("\n")[:-1] == [
        "--model", "base.gguf", *loras, "--lora-init-without-apply", "--parallel", "2", "--ctx-size", "1024", "--jinja",
        "--temp", "0.0", "--predict", "8", "--host", "127.0.0.1", "--port", "8080", "--extra",
    ]  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "llama-server.sh"], "nothing else was made"


@given(TEXTS)
def test_a_word_of_a_script_is_one_word_or_refused(text: str) -> None:
    try:
        assert shlex.split(shell_word(text)) == [text]
    except ValueError:
        assert acting(text, "") or re.search("[\ufffe\uffff]", plain(text) + text)


# --- no other way out -----------------------------------------------------------------------------

_OTHER_WAYS = {
    "cli/say.py": "the way itself",
    "inference/engine.py": "the engine's child: JSON of ours on a pipe",
    "training/worker.py": "a rank from 1 on: rank 0 reads its output, with a bound",
    "training/trial_child.py": "a child that tries steps: figures as JSON on a pipe, which its parent reads",
    "scoring/jail/walls.py": "runs in the sandbox: its output is read with a bound",
    "models/opening.py": "one sentence of ours with a path of the person's own",
}


def _prints(tree: ast.AST) -> list[int]:
    """Lines that write to the terminal without say.py."""
    found = []
    for node in ast.walk(tree):
        name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if name in ("print", "Console", "rich.print", "typer.echo", "click.echo", "typer.secho", "warnings.warn"):
            found.append(node.lineno)  # type: ignore[attr-defined]
        if re.fullmatch(r"sys\.(__)?std(out|err)(__)?(\.buffer)?\.write(lines)?", name):
            found.append(node.lineno)  # type: ignore[attr-defined]
    return found


def test_nothing_reaches_the_terminal_but_through_say() -> None:
    root = Path(foreign.__file__).parent
    found = {
        str(path.relative_to(root)): lines
        for path in root.rglob("*.py")
        if (lines := _prints(ast.parse(path.read_text())))
    }
    assert not found.keys() - _OTHER_WAYS.keys(), {name: found[name] for name in found.keys() - _OTHER_WAYS.keys()}
