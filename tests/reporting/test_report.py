"""The report in a real browser: headless Chromium, if it is installed."""

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
from journeyman.records import Score
from journeyman.reporting.charts import latency_chart, loss_chart, memory_chart
from journeyman.reporting.differences import marked_pair

pytestmark = pytest.mark.slow  # a browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--virtual-time-budget=2000",
)  # fmt: skip
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


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


def browse(run: Path, tmp_path: Path, *flags: str, fragment: str = "", page: str = "report.html") -> str:
    address = (run / "06-decision" / page).resolve().as_uri()
    command = [CHROMIUM or "", *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *flags, address + fragment]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def shown(page: str) -> tuple[int, int]:
    """Shown answers and all answers according to the page's counter, which is compared with the page itself."""
    count, whole = re.search(r'<output id="count">(\d+) of (\d+)</output>', page).groups()  # type: ignore[union-attr]
    answers = re.findall(r'<details class="answer"[^>]*>', page)
    assert len(answers) == int(whole)
    assert sum(" hidden=" not in answer for answer in answers) == int(count)
    return int(count), int(whole)


@in_a_browser
def test_answers_can_be_searched_and_filtered(run: Path, tmp_path: Path) -> None:
    verdicts = list(read_rows(run / "05-evaluation" / "scores.jsonl", Score))
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


def colours_of(picture_of: Path) -> set[tuple[int, ...]]:
    with Image.open(picture_of) as picture:
        return {colour for _, colour in picture.convert("RGB").getcolors(1 << 24) or ()}  # type: ignore[misc]


@in_a_browser
@pytest.mark.parametrize("width", [500, 1200])
def test_it_is_drawn_and_no_wider_than_the_window(run: Path, tmp_path: Path, width: int) -> None:
    """A browser window cannot be narrower than 500 pixels; wider content would be cut off on a phone."""
    browse(run, tmp_path, f"--window-size={width},1600", f"--screenshot={tmp_path / 'page.png'}")
    colours = colours_of(tmp_path / "page.png")
    assert len(colours) > 100, "text and charts are drawn"
    assert {(0x1A, 0x7F, 0x5A), (0x42, 0x69, 0xD0)} <= colours, "the arms' colours are in the chart"
    page = run / "06-decision" / "measured.html"
    script = "document.body.dataset.wide = document.documentElement.scrollWidth - innerWidth;"
    page.write_text(page.with_name("report.html").read_text().replace("</body>", f"<script>{script}</script></body>"))
    dom = browse(run, tmp_path, "--dump-dom", f"--window-size={width},1600", page="measured.html")
    page.unlink()
    assert int(re.search(r'data-wide="(-?\d+)"', dom)[1]) <= 0  # type: ignore[index]


@in_a_browser
def test_it_follows_the_dark_and_prints_light(run: Path, tmp_path: Path) -> None:
    """In dark mode, by the page's own style sheet, no color of light mode remains."""
    page = run / "06-decision" / "dark.html"
    light = page.with_name("report.html").read_text()
    page.write_text(light.replace("@media (prefers-color-scheme: dark)", "@media all"))
    browse(run, tmp_path, "--window-size=1200,1600", f"--screenshot={tmp_path / 'dark.png'}", page="dark.html")
    page.unlink()
    dark = colours_of(tmp_path / "dark.png")
    assert {(0x16, 0x18, 0x1B), (0x4C, 0xC3, 0x8A), (0x8A, 0xA8, 0xFF)} <= dark
    assert not {(0x1A, 0x7F, 0x5A), (0x42, 0x69, 0xD0), (0x1C, 0x20, 0x24)} & dark
    browse(run, tmp_path, f"--print-to-pdf={tmp_path / 'page.pdf'}")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_it_needs_no_network(run: Path) -> None:
    page = (run / "06-decision" / "report.html").read_text()
    assert not re.search(r"""(src|href)\s*=\s*"(?!#)|@import|url\((?!#)|fetch\(|https?://""", page)


def test_everything_that_was_asked_for_is_in_it(run: Path) -> None:
    page = (run / "06-decision" / "report.html").read_text()
    assert page.index('class="verdict') < page.index("Success by role") < page.index("Reasons"), "the verdict first"
    charts = re.findall(r'<svg class="chart" role="img" aria-label="([^"]*)"', page)
    assert [chart.split()[0] for chart in charts] == ["Success", "Rows", "Share", "Peak", "Loss"]
    for words in ("one at a time", "4 at a time", "as logged", "load time", "first request", "What tuning cost"):
        assert words in page
    for stage in ("logs", "ingest", "curate", "plan", "train", "evaluate"):
        assert f"<tr><td>{stage}</td>" in page, "the lineage goes from the logs to the evaluation"
    assert len(re.findall(r"<code>[0-9a-f]{64}</code>", page)) >= 10
    assert "<ins>" in page and "<del>" in page


def test_differences_are_marked_and_stay_text() -> None:
    one, other = marked_pair("def f(x): return x + 1", "def f(y): return y + 1 <b>")
    assert one == "def f(<del>x</del>): return <del>x</del> + 1"
    assert other == "def f(<ins>y</ins>): return <ins>y</ins> + 1<ins> &lt;b&gt;</ins>"
    assert marked_pair("same", "same") == ("same", "same")
    long = "word " * 5000
    assert marked_pair(long, "<") == (long, "&lt;"), "too long to compare: shown as it is"


def test_nothing_to_draw_is_no_chart() -> None:
    assert latency_chart({"base": (None, None)}, 12) == loss_chart([], []) == memory_chart({}, None, 10) == ""


@in_a_browser
def test_model_written_text_stays_text(run: Path, make_run: Callable[..., Path], tmp_path: Path) -> None:
    """The teacher's answers are hostile here; none of them is executed or breaks the page."""
    from conftest import log_row

    evil = "</pre><img src=x onerror=document.title=1>{{7*7}}"  # short: near max_tokens it would count as cut
    folder = make_run(rows=[log_row(i, output=f"{evil}{i * 7} {i * 11}") for i in range(40)])
    command = [sys.executable, "-m", "journeyman", "run", "--until", "decide", "--dir", str(folder)]
    assert subprocess.run(command, capture_output=True).returncode in (0, 3)
    page = browse(folder, tmp_path, "--dump-dom")
    assert "onerror=document.title=1" in page and "{{7*7}}" in page, "the hostile answers are shown"
    assert "<img" not in page and "<title>journeyman" in page
