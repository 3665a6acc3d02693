"""Who may ask the page's server: exact names, pages of its own, the token; and nothing but what is looked up."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from hostile import acting
from journeyman.ui.app import make_app
from journeyman.ui.context import Context
from journeyman.ui.guard import HEADERS
from page_runs import write_run

HOST, TOKEN = "127.0.0.1:8013", "a-token-of-the-test"
OPEN = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "one", text="\x1b[31m\u202e<script>")
    guard, _ = make_app(Context.below(folder), [HOST, "localhost:8013"], TOKEN)
    with TestClient(guard, base_url=f"http://{HOST}", follow_redirects=False) as client:
        yield client


def run_id(page: TestClient) -> str:
    found: str = page.get("/api/runs", headers=OPEN).json()["runs"][0]["id"]
    return found


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8013", "127.0.0.1", "127.0.0.1:80", "localhost", "0.0.0.0:8013", "[::1]:8013", ""],
)
def test_other_names_of_the_host_are_refused_everywhere(page: TestClient, host: str) -> None:
    for path in ("/", "/app.js", "/api/runs"):
        assert page.get(path, headers={**OPEN, "host": host}).status_code == 403


def test_its_own_names_are_answered(page: TestClient) -> None:
    for host in (HOST, "localhost:8013", "LOCALHOST:8013"):
        assert page.get("/api/runs", headers={**OPEN, "host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://localhost:8013"}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"},
    ],
)  # fmt: skip
def test_pages_of_other_origins_get_nothing(page: TestClient, headers: dict[str, str]) -> None:
    assert page.get("/api/runs", headers={**OPEN, **headers}).status_code == 403
    assert page.post(f"/api/runs/{run_id(page)}/stop", json={"pid": 1}, headers={**OPEN, **headers}).status_code == 403


@pytest.mark.parametrize("key", [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Bearer {TOKEN}x", f"Basic {TOKEN}"])
def test_every_resource_needs_the_token(page: TestClient, key: str | None) -> None:
    run = run_id(page)
    paths = re.findall(r'Route\(\s*"(/api/[^"]+)"', "".join(_sources()))
    assert len(paths) > 12
    headers = {} if key is None else {"authorization": key}
    for path in (*paths, "/api/events", "/api/nothing"):
        path = path.replace("{run}", run).replace("{number:int}", "0").replace("{folder}", "0")
        assert page.get(path, headers=headers).status_code == 401, path
        assert page.post(path, headers=headers, json={}).status_code == 401, path
        assert page.get(f"{path}?token={TOKEN}", headers=headers).status_code == 401, path


def _sources() -> Iterator[str]:
    for one in (resources.files("journeyman.ui") / "resources").iterdir():
        if one.name.endswith(".py"):
            yield one.read_text()


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_form_can_send_changes_nothing(page: TestClient, kind: str) -> None:
    answer = page.post(f"/api/runs/{run_id(page)}/stop", content=b'{"pid": 1}', headers={**OPEN, "content-type": kind})
    assert answer.status_code == 415


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(page: TestClient, method: str) -> None:
    for path in ("/", "/api/runs"):
        assert page.request(method, path, headers=OPEN).status_code == 405


def test_reading_never_changes_and_changing_never_reads(page: TestClient) -> None:
    run = run_id(page)
    for path in (f"/api/runs/{run}/stop", f"/api/runs/{run}/promote", "/api/releases/0/rollback"):
        assert page.get(path, headers=OPEN).status_code in (404, 405)
    assert page.post("/api/runs", headers=OPEN, json={}).status_code in (404, 405)


def test_all_answers_have_the_headers_and_none_allows_other_origins(page: TestClient) -> None:
    for answer in (
        page.get("/"), page.get("/app.js"), page.get("/none"), page.get("/api/runs"),
        page.get("/api/runs", headers=OPEN), page.get("/api/runs/0000", headers=OPEN),
        page.get("/", headers={"host": "evil.example"}),
    ):  # fmt: skip
        assert HEADERS.items() <= dict(answer.headers).items()
        assert not [name for name in answer.headers if name.startswith("access-control")]
    policy = HEADERS["content-security-policy"]
    assert "unsafe" not in policy and "http" not in policy and "frame-ancestors 'none'" in policy


@pytest.mark.parametrize(
    "path",
    [
        "/../app.py", "/%2e%2e/app.py", "/..%2fapp.py", "/static/../../app.py", "/lib/..%5c..%5capp.py", "//etc/passwd",
        "/views/%00", "/app.js/", "/lib", "/vendor/", "/api/runs/..", "/api/runs/../../etc",
        "/api/runs/%2e%2e%2f%2e%2e/log", "/api/runs/one", "/api/runs/one/log", "/api/runs/%2ftmp/log",
        "/api/releases/..%2f..", "/api/runs/\u202e",
    ],
)  # fmt: skip
def test_no_path_leads_out(page: TestClient, path: str) -> None:
    answer = page.get(path, headers=OPEN)
    assert answer.status_code in (404, 405), answer.text


def test_the_static_files_are_those_of_the_package_with_types_that_browsers_take(page: TestClient) -> None:
    index = page.get("/")
    assert index.headers["content-type"].startswith("text/html") and index.text == page.get("/index.html").text
    for name in re.findall(r'(?:src|href)="(/[^"]+)"', index.text):
        assert page.get(name).status_code == 200, name
    assert page.get("/app.js").headers["content-type"].startswith("text/javascript")
    assert "MIT License" in page.get("/vendor/uPlot.LICENSE").text


def test_the_page_names_no_other_host_and_makes_no_html_of_text() -> None:
    static = resources.files("journeyman.ui") / "static"
    assert isinstance(static, Path)
    for file in static.rglob("*"):
        if file.is_file() and "vendor" not in file.parts:
            text = file.read_text()
            assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), file
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text
            ), file
            assert not re.search(r"\sstyle=|\son\w+=\"|javascript:", text), file
        elif file.suffix == ".js":
            assert not re.search(
                r"innerHTML|insertAdjacentHTML|\beval\(|new Function|fetch\(|XMLHttpRequest", file.read_text()
            )


def test_no_character_of_a_row_acts_in_an_answer(page: TestClient) -> None:
    run = run_id(page)
    for path in ("log", "plan", "findings", "findings/1", "findings/summary", "rows", "rows/1", "verdict"):
        text = page.get(f"/api/runs/{run}/{path}", headers=OPEN).text
        assert not acting(text, "\n\t\u200c\u200d"), path
        assert "\\u001b" not in text and ("\\\\x1b" in text or path == "findings/summary"), path
