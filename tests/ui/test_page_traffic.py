"""The traffic of a run through the page: counts against the files, exchanges one by one, and changes of routes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from hostile import acting
from journeyman.api.routing import assessor_of
from journeyman.locking import locked
from journeyman.routing.conversations import Conversation
from journeyman.routing.exchanges import Exchange
from journeyman.routing.modes import changed, record_of
from journeyman.ui.context import Context
from journeyman.ui.resources import signatures
from journeyman.ui.traffic import exchanges as exchange_index
from journeyman.ui.traffic import rows
from page_served import RunPage
from traffic_runs import BEGAN, CONFIG, write_rows, write_traffic

COUNT = 300
HOSTILE = 'said "ünï" \x1b[31m\u202e<script>'


class Page(RunPage):
    def role(self, name: str) -> dict[str, Any]:
        return next(one for one in self.get("traffic")["roles"] if one["role"] == name)

    def change(self, name: str, mode: str, status: int = 200, **changes: Any) -> Any:
        role = self.role(name)
        body = {"role": role["id"], "state": role["state"], "mode": mode, "share": 0.1, "why": "", **changes}
        answer = self.client.post(f"/api/runs/{self.run}/route", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_traffic(tmp_path_factory.mktemp("runs") / "run", COUNT, text=HOSTILE)


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page(folder.parent)


def lines(root: Path, name: str = "exchanges.jsonl") -> list[dict[str, Any]]:
    kind: type[BaseModel] = Exchange if name == "exchanges.jsonl" else Conversation
    return [kind.model_validate_json(line).model_dump() for line in (root / "routing" / name).read_bytes().splitlines()]


def who(line: dict[str, Any]) -> str:
    return "fallback" if line["fallback"] else str(line["arm"])


def test_counts_are_those_of_the_files(page: Page, folder: Path) -> None:
    found, made = page.get("traffic"), lines(folder)
    assert found["span"] == "24h" and found["starts"][0] <= BEGAN.timestamp() + 60 < found["starts"][1]
    assert found["read"]["complete"] and found["read"]["damaged"] == 0 and found["exchanges"] == len(made)
    for role in found["roles"]:
        mine = [one for one in made if one["role"] == role["role"]]
        delivered = [one for one in mine if one["place"] == "delivered"]
        counted = role["traffic"]
        assert counted["requests"] == {kind: sum(who(one) == kind for one in delivered) for kind in counted["requests"]}
        assert counted["failed"]["student"] == sum(who(one) == "student" and one["failed"] for one in delivered)
        assert sum(counted["undelivered"].values()) == len(mine) - len(delivered)
        reasons = Counter(one["fallback"] for one in delivered if one["fallback"])
        assert {one["code"]: one["n"] for one in counted["fallbacks"]} == reasons
        series = counted["series"]
        assert {kind: sum(values) for kind, values in series.items()} == counted["requests"]
        assert all(len(values) == len(found["starts"]) for values in series.values())
        waits = sorted(one["duration_ms"] for one in delivered if who(one) == "student")
        if waits:
            assert counted["latency"]["student"]["p50_s"] == waits[-(-len(waits) // 2) - 1] / 1000
    ended = lines(folder, "conversations.jsonl")
    coder = page.role("coder")["conversations"]["arms"]
    assert coder["student"]["n"] == sum(one["role"] == "coder" and one["arm"] == "student" for one in ended)


def test_what_the_assessor_writes_is_read(tmp_path: Path) -> None:
    root = write_traffic(tmp_path / "run", 60)
    made = lines(root)
    for name in ("exchanges.jsonl", "conversations.jsonl", "canaries.json"):
        (root / "routing" / name).unlink()
    assessor = assessor_of(root, root / "recorded", lambda text: None)
    while assessor.step():
        pass
    assessor.close()
    page = Page(tmp_path)
    found = page.get("traffic")
    assert found["read"]["damaged"] == 0 and found["exchanges"] == len(made)
    for role in found["roles"]:
        mine = [who(one) for one in made if one["role"] == role["role"] and one["place"] == "delivered"]
        assert role["traffic"]["requests"] == {kind: mine.count(kind) for kind in role["traffic"]["requests"]}
    for one in page.get("exchanges", count=200)["rows"]:
        parts = page.get(f"exchanges/{one['number']}", seq=one["seq"])["parts"]
        assert all(part["missing"] == "" and part["contents"]["answer"] for part in parts)


def test_routes_trials_and_history_are_shown(page: Page, folder: Path) -> None:
    found = page.get("traffic")
    assert [one["role"] for one in found["roles"]] == ["coder", "planner", "tester"]
    coder = page.role("coder")
    assert coder["route"]["mode"] == "canary" and coder["trial"]["trial"] == coder["route"]["trial"]
    assert coder["trial"]["why"].startswith("nothing is shown yet") and coder["trial"]["figures"]["margin"] == 0.1
    assert page.role("tester")["trial"]["pairs"]["both"] > 0
    assert [one["role"] for one in found["events"]] == ["coder", "tester", "planner", "planner"]


@pytest.mark.parametrize("span", ["3h", "24h", "7d", "60d", "1000d"])
def test_each_span_counts_what_lies_in_it(page: Page, folder: Path, span: str) -> None:
    from journeyman.ui.traffic.buckets import minute_of

    found = page.get("traffic", span=span)
    starts, width = found["starts"], found["width_s"]
    assert starts == list(range(starts[0], starts[0] + width * len(starts), width)) and len(starts) <= 250
    for role in found["roles"]:
        wanted = Counter(
            (who(one), ((minute_of(one["at"]) or 0) * 60 - starts[0]) // width)
            for one in lines(folder)
            if one["role"] == role["role"] and one["place"] == "delivered"
        )
        for kind, values in role["traffic"]["series"].items():
            assert values == [wanted[kind, place] for place in range(len(starts))]


@pytest.mark.parametrize(
    "wanted",
    [{}, {"place": "shadow"}, {"failed": "yes"}, {"kind": "fallback"}, {"kind": "student", "failed": "no"}],
)
def test_the_list_has_each_exchange_once_newest_first(page: Page, folder: Path, wanted: dict[str, str]) -> None:
    def meets(one: dict[str, Any]) -> bool:
        kind = "student" if one["place"] != "delivered" else who(one)
        failed = {True: "yes", False: "no", None: "unknown"}[one["failed"]]
        return {"place": one["place"], "failed": failed, "kind": kind}.items() >= wanted.items()

    found: list[dict[str, Any]] = []
    while True:
        some = page.get("exchanges", start=len(found), count=70, **wanted)
        found += some["rows"]
        if not some["rows"]:
            break
    made = [(one["seq"], one["of"]) for one in reversed(lines(folder)) if meets(one)]
    assert made and [(one["seq"], one["of"]) for one in found] == made and some["total"] == len(made)


def test_filters_by_role_and_reason(page: Page) -> None:
    summary = page.get("exchanges/summary")
    for number, name in summary["roles"]:
        assert {one["role"] for one in page.get("exchanges", role=number)["rows"]} == {name}
    for number, why in summary["whys"]:
        assert {one["why"] for one in page.get("exchanges", why=number)["rows"]} == {why}
    page.get("exchanges", 400, failed="perhaps")


def test_an_exchange_is_opened_with_the_answer_that_was_not_delivered(page: Page) -> None:
    for place in ("shadow", "fallback"):
        listed = page.get("exchanges", place=place, count=200)["rows"]
        for short in (listed[0], listed[-1]):
            older = page.get("exchanges", count=200, place="delivered", upto=short["number"])["rows"]
            delivered = next(one for one in older if one["seq"] == short["of"])
            for asked in (short, delivered):
                found = page.get(f"exchanges/{asked['number']}", seq=asked["seq"])
                teacher, student = found["parts"]
                assert (teacher["seq"], teacher["place"]) == (short["of"], "delivered") and student["place"] == place
                assert teacher["missing"] == student["missing"] == ""
                assert teacher["contents"]["messages"][1]["content"].startswith(f"question {short['of']} ")
                assert teacher["contents"]["answer"].startswith(f"The teacher's answer {short['of']} ")
                marked = [text for is_marked, text in student["contents"]["pieces"] if is_marked]
                assert marked == ["student"]
                assert student["checked"] in ("pass", "fail")
                if place == "fallback":
                    assert teacher["contents"]["facts"]["route"]["why"].startswith(f"it said {teacher['fallback']}")


def test_every_row_is_found_in_compressed_and_plain_files(page: Page) -> None:
    rows = page.get("exchanges", count=200, start=0)["rows"] + page.get("exchanges", count=200, start=200)["rows"]
    for one in rows[::7]:
        found = page.get(f"exchanges/{one['number']}", seq=one["seq"])
        assert all(part["missing"] == "" for part in found["parts"])
    page.get(f"exchanges/{rows[0]['number']}", 404, seq=rows[0]["seq"] + 5)
    page.get("exchanges/999999", 404, seq=1)


def test_no_character_of_a_row_acts(page: Page) -> None:
    number, seq = (page.get("exchanges", failed="yes")["rows"][0][name] for name in ("number", "seq"))
    for part in ("traffic", "exchanges", "exchanges/summary", f"exchanges/{number}?seq={seq}"):
        text = page.client.get(f"/api/runs/{page.run}/{part}").text
        assert not acting(text, "\n\t\u200c\u200d"), part


def test_what_is_appended_is_counted_and_what_was_read_is_not_read_again(tmp_path: Path) -> None:
    root = write_traffic(tmp_path / "run", 60)
    page, file = Page(tmp_path), root / "routing" / "exchanges.jsonl"
    before = page.get("traffic")
    more = {**lines(root)[0], "seq": 61, "role": "coder"}
    with file.open("ab") as out:
        out.write(json.dumps(more).encode()[:40])
    assert page.get("traffic")["exchanges"] == before["exchanges"]  # a line that is not complete does not count
    with file.open("ab") as out:
        out.write(json.dumps(more).encode()[40:] + b"\nno json\n" + b'{"role": 3}\n')
    after = page.get("traffic")
    assert after["exchanges"] == before["exchanges"] + 1 and after["read"]["damaged"] == 2
    data = file.read_bytes()
    with file.open("r+b") as out:  # the inner part: it would be seen only if it was read again
        out.seek(10)
        out.write(b"x" * 20)
    assert page.get("traffic")["exchanges"] == after["exchanges"]
    file.write_bytes(data[: data.index(b"\n") + 1])  # cut back
    assert page.get("traffic")["exchanges"] == 1


def test_numbers_that_do_not_fit_leave_the_columns_together(tmp_path: Path) -> None:
    root = write_traffic(tmp_path / "run", 12)
    good = lines(root)
    bad = [{**good[0], "seq": 1 << 70}, {**good[0], "of": "x"}, {**good[0], "duration_ms": "x", "role": "coder"}]
    with (root / "routing" / "exchanges.jsonl").open("a") as out:
        out.writelines(json.dumps(one) + "\n" for one in [*bad, {**good[0], "seq": 999}])
    page = Page(tmp_path)
    whole = sum(sum(one["traffic"]["requests"].values()) for one in page.get("traffic")["roles"])
    assert whole == sum(one["place"] == "delivered" for one in good) + 1
    assert page.get("exchanges")["rows"][0]["seq"] == 999
    assert page.get("traffic")["read"]["damaged"] == 3


def test_many_roles_and_many_exchanges_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_index, "MOST_LISTED", 100)
    monkeypatch.setattr(exchange_index, "MOST_ROLES", 5)
    root = write_traffic(tmp_path / "run", 12, rows=False)
    one = lines(root)[0]
    with (root / "routing" / "exchanges.jsonl").open("w") as out:
        out.writelines(json.dumps({**one, "seq": n + 1, "role": f"role-{n}"}) + "\n" for n in range(1000))
    page = Page(tmp_path)
    found = page.get("traffic")
    assert found["exchanges"] == 1000 and found["roles_cut"]
    others = next(role for role in found["roles"] if role["role"] == "other roles")
    assert sum(others["traffic"]["requests"].values()) == 995 and others["id"] is None
    listed = page.get("exchanges")
    assert listed["whole"] == 1000 and 100 <= listed["total"] < 1000 and listed["rows"][0]["seq"] == 1000
    last = page.get("exchanges", start=listed["total"] - 1)["rows"][0]
    assert page.get(f"exchanges/{last['number']}", seq=last["seq"])["parts"][0]["missing"] != ""


def test_times_that_are_no_times_or_cannot_be_are_counted_apart(tmp_path: Path) -> None:
    root = write_traffic(tmp_path / "run", 12)
    one = next(line for line in lines(root) if line["role"] == "coder")
    with (root / "routing" / "exchanges.jsonl").open("a") as out:
        for at in ("", "yesterday", "2999-01-01T00:00:00.000+00:00", "1970-01-01T00:00:00.000+00:00"):
            out.write(json.dumps({**one, "at": at}) + "\n")
    page = Page(tmp_path)
    assert page.role("coder")["traffic"]["without_time"] == 4
    assert page.get("traffic")["span"] == "3h"
    assert page.get("traffic", span="24h")["starts"][-1] < 1.9e9


def test_a_row_of_another_ledger_is_not_shown_for_it(tmp_path: Path) -> None:
    root = write_traffic(tmp_path / "run", 12)
    recorded = root / "recorded"
    rows = [json.loads(line) for line in next(recorded.iterdir()).read_text().splitlines()]
    for path in recorded.iterdir():
        path.unlink()
    write_rows(recorded, [{**one, "time": "2026-01-01T00:00:00.000+00:00"} for one in rows])
    page = Page(tmp_path)
    one = page.get("exchanges", place="delivered")["rows"][0]
    part = page.get(f"exchanges/{one['number']}", seq=one["seq"])["parts"][0]
    assert part["contents"] is None and "another exchange" in part["missing"]


def test_a_search_ends_and_says_so(tmp_path: Path) -> None:
    from journeyman.ui.traffic.rows import RowFinder

    root = write_traffic(tmp_path / "run", 200, per_file=20)
    finder = RowFinder(root, "recorded")
    for seq in (1, 20, 21, 137, 200):
        found = finder.find(seq)
        assert found.line is not None and json.loads(found.line)["seq"] == seq
        assert found.searched < 25_000  # of one or two files, not of all
    assert "no row has its number" in finder.find(201).why
    assert "MiB of rows that were searched" in finder.find(19, 100).why
    (root / "recorded" / "rows-000003-2026-11-29.jsonl.zst").write_bytes(b"\x28\xb5\x2f\xfdno")
    assert "damaged" in finder.find(50).why
    found = finder.find(75)
    assert found.line is not None and json.loads(found.line)["seq"] == 75


@pytest.mark.parametrize("key", ["record", "route"])
@pytest.mark.parametrize("value", ["../elsewhere", "/tmp/elsewhere", ".", "a/../../b"])
def test_folders_outside_are_not_read(tmp_path: Path, key: str, value: str) -> None:
    write_traffic(tmp_path / "elsewhere", 12)
    root = tmp_path / "runs" / "run"
    root.mkdir(parents=True)
    (root / "journeyman.toml").write_text(f'[{key}]\nfolder = "{value}"\n')
    page = Page(root.parent)
    page.get("traffic", 404)
    page.get("exchanges/summary", 404)


def test_links_are_not_followed(tmp_path: Path) -> None:
    other = write_traffic(tmp_path / "elsewhere", 12)
    root = tmp_path / "runs" / "run"
    root.mkdir(parents=True)
    (root / "journeyman.toml").write_text(CONFIG)
    (root / "routing").symlink_to(other / "routing")
    (root / "recorded").symlink_to(other / "recorded")
    page = Page(root.parent)
    assert page.get("exchanges", 422)["error"]["code"] == "changed_artifact"
    assert page.client.get(f"/api/runs/{page.run}/traffic").status_code in (404, 422)
    before = (other / "routing" / "routes.json").read_bytes()
    from journeyman.ui.traffic.routes import id_of

    body = {"role": id_of("coder"), "state": "", "mode": "teacher", "share": 0.1, "why": ""}
    assert page.client.post(f"/api/runs/{page.run}/route", json=body).status_code == 422
    assert (other / "routing" / "routes.json").read_bytes() == before


def test_rows_behind_a_link_are_not_shown(tmp_path: Path) -> None:
    other, root = write_traffic(tmp_path / "other" / "run", 12), write_traffic(tmp_path / "runs" / "run", 12)
    for path in (root / "recorded").iterdir():
        path.replace(path.with_name("away"))
        path.symlink_to(other / "recorded" / path.name)
    page = Page(root.parent)
    one = page.get("exchanges", place="delivered")["rows"][0]
    assert page.client.get(f"/api/runs/{page.run}/exchanges/{one['number']}?seq={one['seq']}").status_code == 422


def test_recorded_rows_alone_are_counted_by_role_and_outcome(tmp_path: Path) -> None:
    root = write_traffic(tmp_path / "run", 120, per_file=50)
    rows = [one for one in lines(root) if one["place"] == "delivered"]
    (root / "routing").rename(tmp_path / "away")
    page = Page(tmp_path)
    found = page.get("traffic")["recorded"]
    assert found["everything"] and found["rows"] == 120
    assert {one["role"]: one["requests"] for one in found["roles"]} == Counter(one["role"] for one in rows)
    assert sum(one["outcomes"]["complete"] for one in found["roles"]) == 120
    assert page.get("exchanges/summary", 404)["error"]["what"]


def test_a_folder_with_rows_and_no_config_is_a_run(tmp_path: Path) -> None:
    root = write_traffic(tmp_path / "run", 12)
    (root / "journeyman.toml").unlink()
    (root / "routing").rename(tmp_path / "away")
    (tmp_path / "not-a-run" / "recorded").mkdir(parents=True)
    page = Page(tmp_path)
    assert [one["name"] for one in page.client.get("/api/runs").json()["runs"]] == ["run"]
    assert page.get("traffic")["recorded"]["rows"] == 12


def test_of_many_recorded_rows_only_the_newest_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from journeyman.ui.traffic import newest

    monkeypatch.setattr(newest, "MOST_BYTES", 20_000)
    root = write_traffic(tmp_path / "run", 200, per_file=50)
    (root / "routing").rename(tmp_path / "away")
    found = Page(tmp_path).get("traffic")["recorded"]
    assert not found["everything"] and 20 < found["rows"] < 100 and found["unread"] == 0
    assert found["last"].startswith("2026-11-29T11:20")


def test_routes_are_changed_as_the_command_does(tmp_path: Path) -> None:
    root = write_traffic(tmp_path / "run", 30)
    page = Page(tmp_path)
    trial = page.role("coder")["route"]["trial"]
    assert page.change("coder", "canary", share=0.25, why=" less ") == {
        "role": "coder",
        "mode": "canary",
        "share": 0.25,
    }
    assert page.role("coder")["route"]["trial"] == trial  # a changed share goes on with the same canary
    page.change("coder", "fallback", why="good enough")
    page.change("coder", "teacher", why="it was not")
    events = record_of(root / "routing").events[-3:]
    assert [(one.mode, one.why, one.action) for one in events] == [
        ("canary", "less", "command"), ("fallback", "good enough", "command"), ("teacher", "it was not", "command"),
    ]  # fmt: skip


def test_a_route_that_is_another_one_now_is_not_changed(tmp_path: Path) -> None:
    root = write_traffic(tmp_path / "run", 30)
    page = Page(tmp_path)
    state = page.role("coder")["state"]
    changed(root / "routing", "coder", "fallback", why="by the canary", action="promote")
    assert page.change("coder", "teacher", 409, state=state)["error"]["code"] == "changed_meanwhile"
    assert record_of(root / "routing").roles["coder"].mode == "fallback"


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"role": "0" * 16}, 404), ({"mode": "nobody"}, 400), ({"share": 1.5}, 422), ({"share": "0.1"}, 400),
        ({"more": 1}, 400),
    ],
)  # fmt: skip
def test_what_is_no_change_is_refused(tmp_path: Path, changes: dict[str, Any], status: int) -> None:
    root = write_traffic(tmp_path / "run", 6)
    before = (root / "routing" / "routes.json").read_bytes()
    Page(tmp_path).change("coder", changes.pop("mode", "canary"), status, **changes)
    assert (root / "routing" / "routes.json").read_bytes() == before


def test_without_a_student_nothing_is_routed_to_one(tmp_path: Path) -> None:
    write_traffic(tmp_path / "run", 6, config="")
    page = Page(tmp_path)
    assert page.get("traffic")["student"] is False
    assert "route.student is not set" in page.change("coder", "shadow", 422)["error"]["what"]
    page.change("coder", "teacher")


def test_a_damaged_file_of_routes_is_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    root = write_traffic(tmp_path / "run", 30)
    (root / "routing" / "routes.json").write_text("{")
    found = Page(tmp_path).get("traffic")
    assert "routes.json: damaged" in found["problems"][0] and found["exchanges"] > 30


def test_a_run_without_traffic_says_how_it_begins(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "journeyman.toml").write_text("")
    assert Page(tmp_path).get("traffic", 404)["error"]["code"] == "not_made"


def test_the_monitor_looks_when_it_is_asked_and_connects_to_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from journeyman.api import monitoring

    monkeypatch.setattr(monitoring, "client", lambda *arguments: pytest.fail("it connects"))
    root = write_traffic(tmp_path / "run", 60, config=f"{CONFIG}[record]\nhost = '203.0.113.1'\n")
    page = Page(tmp_path)
    assert page.get("monitor")["look"] is None

    def look(hours: Any, status: int = 200) -> Any:
        answer = page.client.post(f"/api/runs/{page.run}/monitor/look", json={"hours": hours})
        assert answer.status_code == status, answer.text
        return answer.json()

    with locked(root / "recorded"):  # a recorder that would be asked how it is
        found = look(24 * 366)["look"]
    made = [one for one in lines(root) if one["place"] == "delivered"]
    assert {one["role"]: one["requests"] for one in found["roles"]} == Counter(one["role"] for one in made)
    assert page.get("monitor")["look"]["at"] == found["at"]
    for hours in (-1, 1 << 40, "1", 0.5):
        look(hours, 400)
    (root / "journeyman.toml").write_text("[record]\nfolder = '../elsewhere'\n")
    look(0, 422)


def test_changes_are_told_under_its_name_also_where_files_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_traffic(tmp_path / "run", 12)
    write_traffic(tmp_path / "other", 12)
    (tmp_path / "other" / "routing").rename(tmp_path / "other" / "away")
    context = Context.below(tmp_path)

    def changes(before: Any) -> set[str]:
        now = signatures(context)
        return {name for (run, name) in {*before, *now} if before.get((run, name)) != now.get((run, name))}

    for path in (
        root / "routing" / "exchanges.jsonl",
        tmp_path / "other" / "recorded" / "rows-000001-2026-11-29.jsonl",
    ):
        before = signatures(context)
        assert changes(before) == set()
        with path.open("a") as out:
            out.write("{}\n")
        assert changes(before) == {"traffic"}
    monkeypatch.setattr(rows, "_MOST_FILES", 0)
    signatures(context)
