"""Traffic in headless Chromium: widths and color schemes, one exchange side by side, changes of routes, and live."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import Tab, chromium, tab
from journeyman.routing.modes import changed, record_of
from page_served import HOSTILE, TOO_WIDE, serving
from traffic_runs import write_traffic

pytestmark = [pytest.mark.slow, pytest.mark.skipif(chromium() is None, reason="no Chromium")]

DRAWN = "document.querySelectorAll('.plot.bars canvas').length >= 5 && document.querySelectorAll('.dot').length >= 4"
LISTED = "document.querySelectorAll('.virtual-row strong').length > 3"


@pytest.fixture(scope="module")
def browser() -> Iterator[Tab]:
    with tab() as opened:
        yield opened


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_traffic(tmp_path / "run", 300, text=HOSTILE)


@pytest.fixture
def opened(browser: Tab, run: Path) -> Iterator[Tab]:
    with serving(run.parent) as hosting:
        browser.open("about:blank")
        browser.complaints.clear()
        browser.size(1280, 800)
        browser.scheme("light")
        browser.open(hosting.address)
        browser.wait("document.querySelector('tbody tr') && document.querySelector('#connection.on')")
        browser.value("window.run = document.querySelector('tbody tr').dataset.id; 0")
        yield browser
        browser.open("about:blank")


def go(opened: Tab, path: str, ready: str) -> None:
    opened.value(f"location.hash = `/run/${{window.run}}{path}`; 0")
    opened.wait(ready)


def click(opened: Tab, words: str, place: str = "") -> None:
    found = f"[...document.querySelectorAll('{place} button')].find((one) => one.textContent === {words!r})"
    opened.wait(found)
    opened.value(f"{found}.click()")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (640, "light"), (360, "dark")])
def test_traffic_fits_without_complaints_and_no_text_of_a_row_acts(opened: Tab, width: int, scheme: str) -> None:
    opened.size(width, 800)
    opened.scheme(scheme)
    go(opened, "/traffic", DRAWN)
    assert not opened.value(TOO_WIDE)
    click(opened, "Look now")
    opened.wait("document.querySelector('[aria-label=\"Monitor by role\"], .stack .empty')")
    assert not opened.value(TOO_WIDE)
    go(opened, "/exchanges", LISTED)
    opened.value("[...document.querySelectorAll('.virtual-row')].find((one) => /shadow/.test(one.textContent)).click()")
    opened.wait("document.querySelectorAll('.detail .arm').length === 2")
    assert opened.value("document.querySelector('.detail mark').textContent") == "student"
    assert not opened.value(TOO_WIDE)
    assert opened.value("document.title").endswith("journeyman")
    assert opened.value("document.querySelectorAll('main img, main script').length") == 0
    assert opened.complaints == []


def test_everything_has_a_name_for_a_screen_reader(opened: Tab) -> None:
    kinds = "button, a, input, select, progress, [role=img], [role=region], nav, section, article"
    nameless = f"""[...document.querySelectorAll('{kinds}')]
      .filter((one) => one.getClientRects().length && !one.getAttribute('aria-label')
        && !one.getAttribute('aria-labelledby') && !(one.labels && one.labels.length) && !one.textContent.trim())
      .map((one) => one.outerHTML.slice(0, 200))"""
    for path, ready in (("/traffic", DRAWN), ("/exchanges", LISTED)):
        go(opened, path, ready)
        assert opened.value(nameless) == [], path
        assert opened.value("document.querySelectorAll('h1').length") == 1


def test_a_bar_shows_as_many_requests_as_the_files_have(opened: Tab, run: Path) -> None:
    lines = [json.loads(line) for line in (run / "routing" / "exchanges.jsonl").read_text().splitlines()]
    coder = [one for one in lines if one["role"] == "coder" and "of" not in one]
    student = sum(one.get("arm") == "student" and "fallback" not in one for one in coder)
    go(opened, "/traffic", DRAWN)
    assert f"student {student}," in opened.value("document.querySelector('.plot.bars').getAttribute('aria-label')")


def test_a_canary_is_promoted_and_rolled_back_after_a_question(opened: Tab, run: Path) -> None:
    def coder() -> str:
        return str(record_of(run / "routing").roles["coder"].mode)

    go(opened, "/traffic", DRAWN)
    click(opened, "Promote")
    opened.wait("document.querySelector('dialog[open]')")
    click(opened, "Promote", "dialog")
    assert opened.value("document.querySelector('dialog[open]') !== null")  # a reason is asked for
    opened.press("Escape")
    opened.wait("!document.querySelector('dialog')")
    assert coder() == "canary"
    for words, mode in (("Promote", "fallback"), ("To teacher", "teacher")):
        click(opened, words)
        opened.wait("document.querySelector('dialog[open]')")
        opened.value("document.querySelector('dialog input').value = 'by hand'; 0")
        click(opened, words, "dialog")
        opened.wait(f"document.querySelector('.good')?.textContent === 'coder: {mode}.'")
        assert coder() == mode
    click(opened, "Begin a canary")
    opened.wait("document.querySelector('dialog[open]')")
    opened.value("document.querySelector('#f-share').value = '150'; 0")
    click(opened, "Begin a canary", "dialog")
    assert opened.value("document.querySelector('dialog[open]') !== null") and coder() == "teacher"
    opened.value("document.querySelector('#f-share').value = '2.5'; 0")
    click(opened, "Begin a canary", "dialog")
    opened.wait("document.querySelector('.good')?.textContent === 'coder: canary.'")
    assert record_of(run / "routing").roles["coder"].share == 0.025
    assert record_of(run / "routing").events[-2].why == "by hand" and opened.complaints == []


def test_what_another_has_changed_is_not_changed_again(opened: Tab, run: Path) -> None:
    go(opened, "/traffic", DRAWN)
    click(opened, "Roll back")
    opened.wait("document.querySelector('dialog[open]')")
    changed(run / "routing", "coder", "fallback", why="the canary was faster", action="promote")
    opened.value("document.querySelector('dialog input').value = 'too slow'; 0")
    click(opened, "Roll back", "dialog")
    opened.wait("/another one now/.test(document.querySelector('.problem')?.textContent)")
    assert record_of(run / "routing").roles["coder"].mode == "fallback"


def test_new_exchanges_appear_by_themselves(opened: Tab, run: Path) -> None:
    file = run / "routing" / "exchanges.jsonl"
    count = file.read_bytes().count(b"\n")
    go(opened, "/traffic", DRAWN)
    links = "[...document.querySelectorAll('a')].map((one) => one.textContent)"
    assert f"{count} exchanges, one by one" in opened.value(links)
    one = json.loads(file.read_text().splitlines()[0])
    with file.open("a") as out:
        out.write(json.dumps({**one, "seq": 5000, "role": "coder"}) + "\n")
    opened.wait(f"{links}.includes('{count + 1} exchanges, one by one')")
    go(opened, "/exchanges", LISTED)
    with file.open("a") as out:
        out.write(json.dumps({**one, "seq": 5001, "role": "newcomer"}) + "\n")
    click(opened, "Show 1 new exchange")
    opened.wait("/newcomer/.test(document.querySelector('.virtual-row').textContent)")


def test_recorded_rows_alone_are_shown(opened: Tab, run: Path) -> None:
    shutil.move(run / "routing", run.parent / "away")
    go(
        opened,
        "/traffic",
        "document.querySelectorAll('[aria-label=\"Recorded requests by role\"] tbody tr').length === 3",
    )
    assert "300 recorded rows" in opened.value("document.querySelector('main').textContent")


def test_after_an_error_the_figures_come_back(opened: Tab, run: Path) -> None:
    file = run / "routing" / "exchanges.jsonl"
    go(opened, "/traffic", DRAWN)
    file.rename(run / "away")
    file.symlink_to(run / "away")
    opened.wait("/a link, which the page does not follow/.test(document.querySelector('.problem')?.textContent)")
    file.unlink()
    (run / "away").rename(file)
    opened.wait(DRAWN)
    assert opened.value("document.querySelector('.problem')") is None
