"""Findings and evaluation rows by page: filters, search, one row in full, and files that were changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from journeyman.ui import row_files
from page_runs import ROLES, write_run
from page_served import RunPage

ROWS, FINDINGS = 130, 120


class Page(RunPage):
    def all_of(self, part: str, **parameters: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = self.get(part, start=len(found), count=50, **parameters)
            found += page["rows"]
            if len(found) >= page["total"]:
                assert len(found) == page["total"]
                return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "run", ROWS, findings=FINDINGS, text='said "ünï" \\ <b>')
    return Page(folder)


def lines(page: Page, tmp: Path, *names: str) -> list[dict[str, Any]]:
    return [json.loads(line) for name in names for line in (tmp / name).read_text().splitlines()]


def test_pages_have_every_row_once_in_order(page: Page) -> None:
    rows = page.all_of("rows")
    assert [one["id"] for one in rows] == [f"log.jsonl:{number}" for number in range(ROWS)]
    assert [one["number"] for one in rows] == [*range(ROWS)]
    assert rows[3]["task"].startswith("Task: question 3") and rows[3]["role"] == ROLES[1]
    findings = page.all_of("findings")
    assert len(findings) == FINDINGS
    assert [one["action"] for one in findings] == ["dropped"] * (FINDINGS // 2) + ["noted"] * (FINDINGS // 2)


def test_filters_agree_with_the_whole(page: Page) -> None:
    summary, rows = page.get("rows/summary"), page.all_of("rows")
    assert summary["arms"] == ["teacher", "base", "tuned"] and summary["ships"] == 2
    assert summary["roles"] == [*ROLES] and summary["without_prompt"] == 0
    for arm in range(3):
        for outcome in ("pass", "fail"):
            wanted = [one["id"] for one in rows if one["outcomes"][arm] == outcome]
            assert wanted and [one["id"] for one in page.all_of("rows", arm=arm, outcome=outcome)] == wanted
    for outcome, pair in (("won", ("fail", "pass")), ("lost", ("pass", "fail"))):
        wanted = [one["id"] for one in rows if (one["outcomes"][1], one["outcomes"][2]) == pair]
        assert wanted and [one["id"] for one in page.all_of("rows", arm=2, outcome=outcome)] == wanted
    assert {one["role"] for one in page.all_of("rows", role=1)} == {ROLES[1]}
    rules = page.get("findings/summary")["rules"]
    assert [one["name"] for one in rules] == ["failed", "misrouted"]
    assert {one["rule"] for one in page.all_of("findings", rule=1)} == {"misrouted"}
    assert len(page.all_of("findings", action="dropped", role=0)) == FINDINGS // 4


@pytest.mark.parametrize("text", ["question 77", "QUESTION 77", "tuned answers 77 ", "reason 77 "])
def test_a_search_finds_prompts_answers_and_reasons(page: Page, text: str) -> None:
    assert [one["id"] for one in page.all_of("rows", text=text)] == ["log.jsonl:77"]


@pytest.mark.parametrize("text", ['"ünï"', "ünï", "ÜNÏ", "\\ <b>", 'said "', "\nand more"])
def test_a_search_finds_what_json_escapes(page: Page, text: str) -> None:
    assert page.get("rows", text=text)["total"] == ROWS


@pytest.mark.parametrize("text", ["messages", "outcome", "finish_reason", "\\n", "prompt_tokens"])
def test_a_search_does_not_find_names_of_fields(page: Page, text: str) -> None:
    assert page.get("rows", text=text)["total"] == 0
    assert page.get("findings", text=text)["total"] == 0


def test_a_search_in_one_arm(page: Page) -> None:
    assert page.get("rows", text="base answers 7 ", arm=2)["total"] == 0
    assert page.get("rows", text="base answers 7 ", arm=1)["total"] == 1
    assert page.get("findings", text="why 7 ")["total"] == 1


def test_one_row_side_by_side(page: Page) -> None:
    row = page.get("rows/5")
    assert [one["role"] for one in row["messages"]] == ["system", "user"] and row["against"] == "teacher"
    teacher, tuned = row["arms"]["teacher"], row["arms"]["tuned"]
    assert "".join(text for _, text in tuned["pieces"]).startswith("tuned answers 5 ")
    assert [text for marked, text in tuned["pieces"] if marked] == ["tuned"]
    assert not any(marked for marked, _ in teacher["pieces"])
    assert tuned["decided_by"] == "exact" and tuned["reason"].startswith("reason 5") and tuned["checks"]
    against_base = page.get("rows/5", against=1)
    assert against_base["against"] == "base" and not any(m for m, _ in against_base["arms"]["base"]["pieces"])


def test_one_finding_with_its_logged_row(page: Page) -> None:
    found = page.get("findings/7")
    assert found["logged"]["id"] == found["id"] == "log.jsonl:7"
    assert found["logged"]["output"].startswith("logged answer 7")


def test_a_logged_row_that_was_changed_is_refused_and_a_missing_one_is_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    page = Page(tmp_path)
    file = run / "01-interactions" / "interactions.jsonl.zst"
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    assert page.get("findings/1", 422)["error"]["code"] == "changed_artifact"
    (run / "01-interactions").rename(tmp_path / "away")
    assert page.get("findings/1")["logged"] is None


def test_what_is_not_there_or_no_number(page: Page) -> None:
    page.get(f"rows/{ROWS}", 404)
    page.get(f"findings/{FINDINGS}", 404)
    for name, value in (
        ("start", "-1"),
        ("start", "x"),
        ("count", "201"),
        ("role", "9"),
        ("arm", "٣"),
        ("outcome", "no"),
    ):
        assert page.get("rows", 400, **{name: value})["error"]["code"] == "bad_request"
    assert page.get("rows", start=10_000)["rows"] == []


def test_a_page_parses_no_other_rows(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    page.get("rows")
    page.get("findings")

    def refuse(*arguments: Any) -> Any:
        raise AssertionError("the file is read again")

    monkeypatch.setattr(row_files, "lines_of", refuse)
    page.get("rows", start=50)
    page.get("findings", start=50)


def test_a_changed_file_is_refused_and_a_new_one_is_read(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 6)
    page = Page(tmp_path)
    assert page.get("rows")["total"] == 6
    file = run / "05-evaluation" / "predictions.jsonl"
    file.write_text(file.read_text().replace("tuned answers", "tuned ANSWERS"))
    error = page.get("rows", 422)["error"]
    assert error["code"] == "changed_artifact" and "predictions.jsonl" in error["what"] and error["remedy"]
    (run / "05-evaluation").rename(tmp_path / "old")
    assert page.get("rows", 404)["error"]["code"] == "not_made"


def test_rows_whose_test_set_was_made_again_are_counted(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 6)
    other = write_run(tmp_path.with_name(f"{tmp_path.name}-other") / "run", 4)
    (run / "02-dataset").rename(tmp_path.with_name(f"{tmp_path.name}-old"))
    (other / "02-dataset").rename(run / "02-dataset")
    page = Page(tmp_path)
    assert page.get("rows/summary")["without_prompt"] == 2
    assert page.get("rows/5")["messages"] is None and page.get("rows/5")["arms"]["tuned"]["pieces"]
