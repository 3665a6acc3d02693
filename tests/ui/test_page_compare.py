"""Plan, verdict and comparison: the figures of the manifests, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from journeyman.manifests import EvaluationManifest
from journeyman.ui.app import make_app
from journeyman.ui.context import Context
from page_runs import write_run


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "a", 40)
    write_run(folder / "b", 60)
    write_run(folder / "c", until="plan")
    guard, _ = make_app(Context.below(folder), ["127.0.0.1:1"], "t")
    return TestClient(guard, base_url="http://127.0.0.1:1", headers={"authorization": "Bearer t"})


def ids(page: TestClient) -> list[str]:
    return [one["id"] for one in page.get("/api/runs").json()["runs"]]


def compared(page: TestClient, *runs: str, status: int = 200) -> Any:
    answer = page.get("/api/compare", params={"run": [*runs]})
    assert answer.status_code == status, answer.text
    return answer.json()


def test_runs_side_by_side(page: TestClient) -> None:
    a, b, c = ids(page)
    found = compared(page, a, b, c)
    assert [one["name"] for one in found["runs"]] == ["a", "b", "c"]
    settings = {one["name"]: one for one in found["settings"]}
    assert settings["train.setting"]["values"] == ["a", "b", None] and settings["train.setting"]["stages"] == ["train"]
    assert not any(name.startswith("0") for name in settings)  # results of earlier stages are no settings
    tester = next(one for one in found["roles"] if one["role"] == "tester")
    assert tester["verdicts"] == ["deploy", "deploy", None]
    tuned = next(one for one in tester["arms"] if one["arm"] == "tuned")["runs"]
    assert [one and one["success"]["n"] for one in tuned] == [20, 30, None]
    assert found["figures"][0]["serving_gb"] == 0.3 and found["figures"][2]["training_s"] is None


def test_the_number_of_runs_is_limited(page: TestClient) -> None:
    a, *_ = ids(page)
    compared(page, status=400)
    compared(page, a, a, status=400)
    compared(page, *map(str, range(7)), status=400)
    compared(page, a, "0" * 16, status=404)


def test_the_plan_beside_what_was_measured(page: TestClient) -> None:
    a, _, c = ids(page)
    figures = {one["name"]: one for one in page.get(f"/api/runs/{a}/plan").json()["figures"]}
    assert (figures["training time"]["planned"], figures["training time"]["measured"]) == (100, 120)
    assert (figures["serving memory"]["planned"], figures["serving memory"]["measured"]) == (None, 0.3)
    assert all(one["measured"] is None for one in page.get(f"/api/runs/{c}/plan").json()["figures"])


def test_the_verdict_has_the_manifests_figures(page: TestClient) -> None:
    a, _, c = ids(page)
    found = page.get(f"/api/runs/{a}/verdict").json()
    assert found["verdict"] == "deploy" and found["threshold"] == 0.7 and found["ships"] == "tuned"
    coder = next(one for one in found["roles"] if one["role"] == "coder")
    success = next(one for one in coder["arms"] if one["arm"] == "tuned")["success"]
    assert success["low"] < success["passed"] / success["n"] < success["high"]
    assert coder["reasons"][0]["sentence"].startswith("1 of 2") and coder["next_steps"]
    missing = page.get(f"/api/runs/{c}/verdict")
    assert missing.status_code == 404 and missing.json()["error"]["code"] == "not_made"


def test_intervals_are_shown_with_the_confidence_they_were_made_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the second look on, it is greater than the plan's."""
    second = {"look": 2, "confidence": 0.97, "role_confidence": 0.99}
    monkeypatch.setattr(
        "page_runs.EvaluationManifest", lambda **values: EvaluationManifest.model_validate(values | second)
    )
    write_run(tmp_path / "run")
    guard, _ = make_app(Context.below(tmp_path), ["127.0.0.1:1"], "t")
    page = TestClient(guard, base_url="http://127.0.0.1:1", headers={"authorization": "Bearer t"})
    found = page.get(f"/api/runs/{ids(page)[0]}/verdict").json()
    assert found["look"] == 2 and found["rules"]["confidence by role"] == 0.975
    assert (found["confidence"], found["role_confidence"]) == (0.97, 0.99)
