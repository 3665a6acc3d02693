"""The page in headless Chromium: every view without a complaint, by keyboard, on a phone, in the dark, and while the
server is away. Skipped where there is no Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import Tab, chromium, tab
from journeyman.releases import record_of
from page_runs import write_metrics, write_progress, write_run
from page_served import HOSTILE, TOO_WIDE, serving
from promoting import write_bundle

pytestmark = [pytest.mark.slow, pytest.mark.skipif(chromium() is None, reason="no Chromium")]

READY = {
    "": "document.querySelectorAll('.plot canvas').length >= 3 && document.querySelector('pre.log')",
    "/lint": "document.querySelectorAll('.virtual-row strong').length > 3",
    "/rows": "document.querySelectorAll('.virtual-row .sign').length > 3",
    "/verdict": "document.querySelectorAll('.dot').length > 3",
}
"""The parts of a run → when they are shown."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("runs")
    for name in ("one", "two"):
        write_run(made / name, 300, 400, findings=300, text=HOSTILE)
        write_bundle(made / name / "07-bundle", name)
    return made


@pytest.fixture(scope="module")
def browser(folder: Path) -> Iterator[tuple[Tab, str]]:
    with serving(folder) as hosting, tab() as opened:
        opened.size(1280, 800)
        yield opened, hosting.address


@pytest.fixture
def opened(browser: tuple[Tab, str]) -> Tab:
    """The list of runs, loaded anew."""
    one, address = browser
    one.open("about:blank")
    one.complaints.clear()
    one.size(1280, 800)
    one.scheme("light")
    one.open(address)
    one.wait("document.querySelectorAll('table.cards tbody tr').length === 2")
    one.wait("document.querySelector('#connection.on')")
    return one


def run_of(opened: Tab) -> str:
    found: str = opened.value("document.querySelector('tbody tr').dataset.id")
    return found


def go(opened: Tab, path: str, ready: str) -> None:
    opened.value(f"location.hash = {path!r}; 0")
    opened.wait(ready)


def each_view(opened: Tab) -> Iterator[str]:
    runs = opened.value("[...document.querySelectorAll('tbody tr')].map((one) => one.dataset.id)")
    yield "/"
    for part, ready in READY.items():
        go(opened, f"/run/{runs[0]}{part}", ready)
        if part in ("/lint", "/rows"):
            opened.value("document.querySelectorAll('.virtual-row')[1].click()")
            opened.wait("document.querySelector('.detail .text')")
        yield part
    go(opened, f"/compare?run={runs[0]}&run={runs[1]}", "document.querySelectorAll('.dot').length > 5")
    yield "/compare"
    go(opened, "/releases", "document.querySelectorAll('.releases table tbody tr').length >= 2")
    yield "/releases"


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (640, "light"), (360, "dark")])
def test_every_view_fits_without_complaints_and_no_text_of_a_row_acts(opened: Tab, width: int, scheme: str) -> None:
    """640 pixels are a window of 1280 at 200 %."""
    opened.size(width, 800)
    opened.scheme(scheme)
    for view in each_view(opened):
        assert not opened.value(TOO_WIDE), view
        assert opened.value("document.title").endswith("journeyman"), view
        assert opened.value("document.querySelectorAll('main img, main script').length") == 0
    assert opened.complaints == []


def test_the_token_leaves_the_address_and_nothing_is_shown_without_it(opened: Tab, browser: tuple[Tab, str]) -> None:
    assert "token" not in opened.value("location.href")
    opened.value("sessionStorage.clear()")
    opened.open("about:blank")
    opened.open(browser[1].partition("#")[0])
    opened.wait("document.querySelector('h1')?.textContent.includes('needs its token')")
    opened.value(f"document.getElementById('token').value = {browser[1]!r}; 0")
    opened.value("document.querySelector('button.primary').click()")
    opened.wait("document.querySelectorAll('table.cards tbody tr').length === 2")


def test_everything_has_a_name_for_a_screen_reader(opened: Tab) -> None:
    kinds = "button, a, input, select, [role=img], [role=region], nav, section"
    nameless = f"""[...document.querySelectorAll('{kinds}')]
      .filter((one) => one.getClientRects().length && !one.getAttribute('aria-label')
        && !one.getAttribute('aria-labelledby') && !(one.labels && one.labels.length) && !one.textContent.trim())
      .map((one) => one.outerHTML.slice(0, 200))"""
    for view in each_view(opened):
        assert opened.value(nameless) == [], view
        assert opened.value("document.querySelectorAll('h1').length") == 1, view
        assert opened.value("document.querySelectorAll('main, body > header, #nav').length") == 3


def test_the_page_works_with_the_keyboard(opened: Tab) -> None:
    go(opened, f"/run/{run_of(opened)}/rows", READY["/rows"])
    opened.value("document.querySelector('.virtual').focus()")
    for _ in range(3):
        opened.press("ArrowDown")
    opened.wait("document.querySelector('[aria-selected=true]')?.getAttribute('aria-posinset') === '3'")
    assert opened.value("document.querySelector('.virtual').getAttribute('aria-activedescendant')")
    opened.press("Enter", "\r")
    opened.wait("document.querySelector('.detail h2')?.textContent === 'log.jsonl:2'")
    opened.press("End")
    opened.wait("document.querySelector('[aria-selected=true] .line')?.textContent.includes('log.jsonl:299')")
    assert opened.value("document.querySelectorAll('.virtual-row').length") < 60  # only what is in sight
    opened.press("Tab")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert opened.value(f"document.activeElement.matches(':focus-visible') && {outline}") == "solid"


def test_filters_and_search_narrow_the_rows(opened: Tab) -> None:
    go(opened, f"/run/{run_of(opened)}/rows", READY["/rows"])
    opened.wait("document.querySelector('[role=status].muted').textContent === '300 rows of 300'")
    opened.value("""(() => { const box = document.querySelector('input[type=search]'); box.value = 'question 299 ';
      box.dispatchEvent(new Event('input')); })()""")
    opened.wait("document.querySelector('[role=status].muted').textContent === '1 row of 300'")


def test_a_chart_is_zoomed_by_its_buttons(opened: Tab) -> None:
    go(opened, f"/run/{run_of(opened)}", READY[""])
    label = "document.querySelector('.plot').getAttribute('aria-label')"
    assert "400 points" in opened.value(label)
    zoomed = "/curves\\?first=\\d+&last=\\d+/"
    asked = f"performance.getEntriesByType('resource').filter((one) => {zoomed}.test(one.name)).length"
    assert opened.value(asked) == 0
    opened.value("document.querySelector('.zoom button').click()")
    opened.wait(f"{asked} >= 1")


def test_changes_appear_without_a_reload(opened: Tab, folder: Path) -> None:
    go(opened, f"/run/{run_of(opened)}", READY[""])
    write_metrics(folder / "one" / "04-adapter" / "metrics.jsonl", 50, start=401)
    opened.wait("document.querySelector('.plot').getAttribute('aria-label').includes('450 points')")
    with (folder / "one" / "journeyman.log").open("a") as log:
        log.write("a new line of the log\n")
    opened.wait("document.querySelector('pre.log').textContent.includes('a new line of the log')")
    opened.value(
        "[...document.querySelectorAll('button')].find((one) => /^Compare with/.test(one.textContent)).focus()"
    )
    write_progress(folder / "one", state="stopped", words="on request")
    opened.wait("document.querySelector('.work').textContent.includes('stopped: on request')")
    assert opened.value("document.activeElement.textContent") == "Compare with settings and files"  # it was drawn anew
    assert opened.complaints == []


def test_promote_and_roll_back_ask_first(opened: Tab, folder: Path) -> None:
    def click(words: str) -> None:
        opened.value(
            f"[...document.querySelectorAll('button')].findLast((one) => one.textContent === {words!r}).click()"
        )

    go(opened, "/releases", "document.querySelectorAll('.releases table tbody tr').length === 2")
    click("Promote")
    opened.wait("document.querySelector('dialog[open]')")
    opened.press("Escape")
    opened.wait("!document.querySelector('dialog')")
    assert not (folder / "releases").exists()
    for number in (1, 2):
        left = "[...document.querySelectorAll('button')].filter((one) => one.textContent === 'Promote').length"
        opened.wait(f"{left} === {3 - number}")
        click("Promote")
        opened.wait("document.querySelector('dialog[open]')")
        opened.value("document.querySelector('dialog .primary').click()")
        opened.wait(f"document.querySelector('.good')?.textContent === 'Release {number} is current.'")
    opened.wait("[...document.querySelectorAll('button')].some((one) => one.textContent === 'Roll back to 1')")
    click("Roll back to 1")
    opened.wait("document.querySelector('dialog[open]')")
    opened.value("document.querySelector('dialog input').value = 'too slow'; 0")
    opened.value("document.querySelector('dialog .primary').click()")
    opened.wait("document.querySelector('.good')?.textContent === 'Release 1 is current.'")
    events = record_of(folder / "releases").events
    assert [one.action for one in events] == ["promote", "promote", "rollback"] and events[2].why == "too slow"


def test_an_empty_folder_says_how_to_begin(tmp_path: Path) -> None:
    with serving(tmp_path) as hosting, tab() as opened:
        opened.open(hosting.address)
        opened.wait("document.querySelector('.empty')")
        assert (
            opened.value("document.querySelector('.empty').textContent") == "No runs here; start with: journeyman demo"
        )
        write_run(tmp_path / "first", until="ingest")
        opened.wait("document.querySelector('tbody tr th')?.textContent === 'first'")


def test_a_server_that_went_away_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run")
    monkeypatch.setattr("secrets.token_urlsafe", lambda count: "the-same-token")
    with tab() as opened:
        with serving(tmp_path) as hosting:
            opened.open(hosting.address)
            opened.wait("document.querySelector('tbody tr') && document.querySelector('#connection.on')")
            go(opened, f"/run/{run_of(opened)}", READY[""])
            port = int(hosting.address.partition("/#")[0].rpartition(":")[2])
        opened.wait("document.querySelector('#connection.away')")
        assert opened.value("document.querySelector('.plot canvas') !== null")  # what was shown stays
        (run / "journeyman.log").write_text("while it was away\n")
        with serving(tmp_path, port):
            opened.wait("document.querySelector('#connection.on')")
            opened.wait("document.querySelector('pre.log').textContent.includes('while it was away')")


def test_a_server_with_another_token_says_so(tmp_path: Path) -> None:
    write_run(tmp_path / "run", until="ingest")
    with tab() as opened:
        with serving(tmp_path) as hosting:
            opened.open(hosting.address)
            opened.wait("document.querySelector('#connection.on')")
            port = int(hosting.address.partition("/#")[0].rpartition(":")[2])
        with serving(tmp_path, port):
            opened.wait("document.querySelector('h1')?.textContent.includes('needs its token')")


def test_a_change_during_a_refresh_is_shown_after_it(opened: Tab, folder: Path) -> None:
    opened.value("""(async () => {
      const { show } = await import('/views/runs.js');
      const ask = window.fetch;
      window.held = [];
      window.fetch = async (...given) => {
        const answer = await ask(...given);
        await new Promise((go) => held.push(go));
        return answer;
      };
      window.place = document.createElement('div');
      window.view = show(place);
      view.refresh(null);
    })()""")
    opened.wait("held.length === 1")
    write_progress(folder / "two", state="stopped", words="during the refresh")
    opened.value("view.refresh({ runs: ['state'] }); held.forEach((go) => go()); 0")
    opened.wait("(held.forEach((go) => go()), place.textContent.includes('stopped: during the refresh'))")


def test_the_log_grows_in_place(opened: Tab, folder: Path) -> None:
    go(opened, f"/run/{run_of(opened)}", READY[""])

    def grow(word: str) -> None:
        with (folder / "one" / "journeyman.log").open("a") as log:
            log.write(f"{word}\n" * 60)
        opened.wait(f"document.querySelector('pre.log').textContent.includes('{word}')")

    at_end = "log.scrollHeight - log.scrollTop - log.clientHeight < 2"
    grow("first")
    opened.value("window.log = document.querySelector('pre.log'); log.focus(); 0")
    assert opened.value(f"log.scrollTop > 0 && {at_end}")
    grow("second")
    assert opened.value(f"document.activeElement === log && {at_end}")
    opened.value("log.scrollTop = 5; 0")
    grow("third")
    assert opened.value("document.activeElement === log && log.scrollTop === 5")


@pytest.mark.parametrize("part", ["/lint", "/rows"])
def test_an_opened_row_is_announced_and_the_next_stop_of_the_keyboard(opened: Tab, part: str) -> None:
    go(opened, f"/run/{run_of(opened)}{part}", READY[part])
    opened.value("document.querySelector('.virtual').focus()")
    opened.press("ArrowDown")
    opened.press("Enter", "\r")
    opened.wait("document.getElementById('announcer').textContent.startsWith('log.jsonl:0 is shown')")
    opened.press("Tab")
    opened.wait("document.activeElement.matches('.detail')")


def test_intervals_are_explained_with_the_evaluations_confidence(opened: Tab) -> None:
    opened.value("""(() => {
      const ask = window.fetch;
      window.fetch = async (...given) => {
        const answer = await ask(...given);
        if (!given[0].endsWith('/verdict')) return answer;
        return new Response(JSON.stringify({ ...await answer.json(), confidence: 0.983, role_confidence: 0.991 }));
      };
    })()""")
    go(opened, f"/run/{run_of(opened)}/verdict", READY["/verdict"])
    shown = opened.value("document.querySelector('main').textContent")
    assert "its interval at 99.1 % confidence" in shown
    assert "interval at 98.3 %" in shown and "interval at 99.1 %" in shown
