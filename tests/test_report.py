"""The report in a real browser: headless Chromium, where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from journeyman.artifacts import read_rows
from journeyman.records import Verdict

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--virtual-time-budget=2000",
)  # fmt: skip
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A finished run on the tiny model, with all arms."""
    from conftest import log_row, write_run

    folder = tmp_path_factory.mktemp("report") / "run"
    rows = [log_row(i, role="coder" if i % 3 else "tester") for i in range(60)]
    write_run(folder, request.getfixturevalue("tiny_gguf"), rows)
    command = [sys.executable, "-m", "journeyman", "run", "--until", "decide", "--dir", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode in (0, 3), done.stderr
    return folder


def browse(run: Path, tmp_path: Path, *flags: str, fragment: str = "") -> str:
    page = (run / "06-decision" / "report.html").resolve().as_uri()
    command = [CHROMIUM or "", *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *flags, page + fragment]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def shown(page: str) -> tuple[int, int]:
    """Answers that are shown, and all of them, as the page's own count says; held against the page itself."""
    count, whole = re.search(r'<output id="count">(\d+) of (\d+)</output>', page).groups()  # type: ignore[union-attr]
    answers = re.findall(r'<details class="answer"[^>]*>', page)
    assert len(answers) == int(whole)
    assert sum(" hidden=" not in answer for answer in answers) == int(count)
    return int(count), int(whole)


def test_answers_can_be_searched_and_filtered(run: Path, tmp_path: Path) -> None:
    verdicts = list(read_rows(run / "05-evaluation" / "verdicts.jsonl", Verdict))
    tuned = [verdict for verdict in verdicts if verdict.arm == "tuned"]
    assert {verdict.arm for verdict in verdicts} == {"teacher", "base", "few-shot", "tuned"}
    assert shown(browse(run, tmp_path, "--dump-dom")) == (len(tuned), len(tuned))
    coders = sum(verdict.role == "coder" for verdict in tuned)
    assert 0 < coders < len(tuned)
    assert shown(browse(run, tmp_path, "--dump-dom", fragment="#role=coder"))[0] == coders
    failed = sum(verdict.outcome == "fail" for verdict in tuned)
    assert shown(browse(run, tmp_path, "--dump-dom", fragment="#outcome=fail"))[0] == failed
    one = browse(run, tmp_path, "--dump-dom", fragment=f"#words={tuned[0].id}%20{tuned[0].role}")
    assert 1 <= shown(one)[0] < len(tuned)
    assert shown(browse(run, tmp_path, "--dump-dom", fragment="#words=nowhere-to-be-found"))[0] == 0


@pytest.mark.parametrize("width", [390, 1200])
def test_it_is_drawn_and_no_wider_than_the_window(run: Path, tmp_path: Path, width: int) -> None:
    browse(run, tmp_path, f"--window-size={width},1600", f"--screenshot={tmp_path / 'page.png'}")
    with Image.open(tmp_path / "page.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24) or ()}
    assert len(colours) > 100, "text and charts are drawn"
    assert {(0x1A, 0x7F, 0x5A), (0x42, 0x69, 0xD0)} <= colours, "the arms' colours are in the chart"


def test_it_needs_no_network(run: Path) -> None:
    page = (run / "06-decision" / "report.html").read_text()
    assert not re.search(r"""(src|href)\s*=|@import|url\(|fetch\(|https?://""", page)


def test_model_written_text_stays_text(run: Path, make_run: Callable[..., Path], tmp_path: Path) -> None:
    """The teacher's answers are hostile here; none of them runs or breaks out of its place."""
    from conftest import log_row

    evil = "</pre><img src=x onerror=document.title=1>{{7*7}}"  # short: near max_tokens it would count as cut
    folder = make_run(rows=[log_row(i, output=f"{evil}{i * 7} {i * 11}") for i in range(40)])
    command = [sys.executable, "-m", "journeyman", "run", "--until", "decide", "--dir", str(folder)]
    assert subprocess.run(command, capture_output=True).returncode in (0, 3)
    page = browse(folder, tmp_path, "--dump-dom")
    assert "onerror=document.title=1" in page and "{{7*7}}" in page, "the hostile answers are shown"
    assert "<img" not in page and "<title>journeyman" in page
