"""Promote and roll back through the page, as the commands do; each only for what the user saw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from journeyman import promotion
from journeyman.locking import locked
from journeyman.promotion import promote
from journeyman.releases import record_of
from journeyman.ui.app import make_app
from journeyman.ui.context import Context
from promoting import write_bundle


class Page:
    def __init__(self, folder: Path) -> None:
        guard, _ = make_app(Context.below(folder), ["127.0.0.1:1"], "t")
        self.client = TestClient(guard, base_url="http://127.0.0.1:1", headers={"authorization": "Bearer t"})

    def folder(self) -> dict[str, Any]:
        (found,) = self.client.get("/api/releases").json()["folders"]
        return dict(found)

    def bundle(self, name: str) -> dict[str, Any]:
        return next(one for one in self.folder()["bundles"] if one["name"] == name)

    def promote(self, name: str, status: int = 200, **changes: Any) -> Any:
        bundle = self.bundle(name)
        body = {
            "sha256": bundle["sha256"],
            "current": self.folder()["current"] or 0,
            "why": "",
            "override": "",
            **changes,
        }
        answer = self.client.post(f"/api/runs/{bundle['run']}/promote", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def roll_back(self, status: int = 200, **changes: Any) -> Any:
        folder = self.folder()
        body = {"to": 1, "current": folder["current"], "why": "", **changes}
        answer = self.client.post(f"/api/releases/{folder['id']}/rollback", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()


@pytest.fixture
def page(tmp_path: Path) -> Page:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "journeyman.toml").write_text("")
        write_bundle(tmp_path / name / "07-bundle", name)
    return Page(tmp_path)


def test_promote_and_roll_back_are_recorded(page: Page, tmp_path: Path) -> None:
    assert page.folder()["current"] is None
    assert page.promote("one", why="  first ")["number"] == 1
    assert page.promote("two")["number"] == 2
    assert page.roll_back(to=1, why="slow")["number"] == 1
    record = record_of(tmp_path / "releases")
    assert record.current == 1
    assert [(one.action, one.number, one.why) for one in record.events] == [
        ("promote", 1, "first"), ("promote", 2, ""), ("rollback", 1, "slow"),
    ]  # fmt: skip
    shown = page.folder()
    assert shown["current"] == 1 and shown["kept"] == [1, 2] and len(shown["events"]) == 3
    assert shown["events"][-1]["sha256"] == page.bundle("one")["sha256"]


def test_another_bundle_than_the_one_that_was_seen_is_not_promoted(page: Page, tmp_path: Path) -> None:
    assert page.promote("one", 409, sha256="0" * 64)["error"]["code"] == "changed_meanwhile"
    assert not (tmp_path / "releases").exists()
    page.promote("one")
    for current in (0, 2):
        assert page.promote("two", 409, current=current)["error"]["code"] == "changed_meanwhile"
    assert page.folder()["current"] == 1


def test_a_changed_file_is_not_promoted(page: Page, tmp_path: Path) -> None:
    (tmp_path / "one" / "07-bundle" / "adapter.gguf").write_text("other")
    assert page.promote("one", 422)["error"]["code"] == "changed_artifact"
    assert page.folder()["current"] is None


def test_without_a_deploy_verdict_a_reason_is_needed(page: Page, tmp_path: Path) -> None:
    (tmp_path / "weak").mkdir()
    (tmp_path / "weak" / "journeyman.toml").write_text("")
    write_bundle(tmp_path / "weak" / "07-bundle", "weak", verdicts={"coder": "iterate"})
    page = Page(tmp_path)
    assert "iterate" in page.bundle("weak")["refused"]
    assert page.promote("weak", 422, override="   ")["error"]["code"] == "not_deployable"
    assert page.promote("weak", override="a pilot")["number"] == 1
    assert record_of(tmp_path / "releases").events[0].override == "a pilot"


def test_a_rollback_of_what_is_no_longer_current_is_refused(page: Page, tmp_path: Path) -> None:
    page.promote("one")
    page.promote("two")
    assert page.roll_back(409, current=1)["error"]["code"] == "changed_meanwhile"
    for to in (0, -1):
        page.roll_back(400, to=to)
    for to in (2, 3, 10**6):
        page.roll_back(422, to=to)
    assert record_of(tmp_path / "releases").current == 2
    assert page.client.post("/api/releases/0/rollback", json={"to": 1, "current": 2, "why": ""}).status_code == 404


def test_a_damaged_record_is_named_and_other_folders_are_shown(page: Page, tmp_path: Path) -> None:
    page.promote("one")
    (tmp_path / "releases" / "releases.json").write_text("{")
    (tmp_path / "x" / "three").mkdir(parents=True)
    (tmp_path / "x" / "three" / "journeyman.toml").write_text("")
    write_bundle(tmp_path / "x" / "three" / "07-bundle", "three")
    found = Page(tmp_path).client.get("/api/releases").json()
    assert len(found["problems"]) == 1 and "releases.json" in found["problems"][0]
    assert [one["path"] for one in found["folders"]] == [str(tmp_path / "x" / "releases")]


@pytest.mark.parametrize("act", ["promote", "roll back"])
def test_a_release_that_becomes_current_while_files_are_compared_keeps_its_place(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    page.promote("one")
    page.promote("two")
    third = write_bundle(tmp_path.with_name(f"{tmp_path.name}-third"), "third")
    others = iter([lambda: promote(third, tmp_path / "releases", "in the meantime")])
    verify = promotion.verify

    def slow(place: Path) -> Any:
        for other in others:
            other()
        return verify(place)

    @contextmanager
    def late(root: Path) -> Iterator[None]:
        for other in others:
            other()
        with locked(root):
            yield

    monkeypatch.setattr(promotion, *(("verify", slow) if act == "promote" else ("locked", late)))
    refused = page.promote("one", 409) if act == "promote" else page.roll_back(409, to=1)
    assert refused["error"]["code"] == "changed_meanwhile" and "release 3 is current now" in refused["error"]["what"]
    record = record_of(tmp_path / "releases")
    assert record.current == 3 and [one.number for one in record.events] == [1, 2, 3]


@pytest.mark.parametrize("name", ["", "releases.json", "0001"])
def test_releases_behind_a_link_are_neither_shown_nor_changed(page: Page, tmp_path: Path, name: str) -> None:
    page.promote("one")
    page.promote("two")
    bundle, folder = page.bundle("two"), page.folder()
    place = tmp_path / "releases" / name
    elsewhere = tmp_path.with_name(f"{tmp_path.name}-elsewhere")
    place.rename(elsewhere)
    place.symlink_to(elsewhere)
    found = Page(tmp_path).client.get("/api/releases").json()
    assert found["folders"] == [] and len(found["problems"]) == 1
    assert "a link, which the page does not follow" in found["problems"][0]
    body = {"sha256": bundle["sha256"], "current": 2, "why": "", "override": ""}
    assert page.client.post(f"/api/runs/{bundle['run']}/promote", json=body).status_code == 422
    back = page.client.post(f"/api/releases/{folder['id']}/rollback", json={"to": 1, "current": 2, "why": ""})
    assert back.status_code == 404
    assert record_of(tmp_path / "releases").current == 2
