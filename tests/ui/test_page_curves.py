"""Curves: read as they grow, thinned without losing a peak."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from journeyman.ui.app import make_app
from journeyman.ui.context import Context
from journeyman.ui.curves import Curves, Series, thinned
from page_runs import write_run


def line(step: int, **values: float) -> str:
    return json.dumps({"step": step, **values}) + "\n"


def curves(folder: Path) -> Curves:
    return Curves(folder, ["metrics.jsonl"])


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400), st.integers(1, 20))
def test_thinning_keeps_every_parts_extremes_and_both_ends(values: list[float], parts: int) -> None:
    array = np.array(values)
    chosen = thinned(array, parts)
    assert list(chosen) == sorted(set(chosen)) and len(chosen) <= 2 * parts + 2
    assert {0, len(values) - 1} <= set(chosen.tolist())
    assert array[chosen].min() == array.min() and array[chosen].max() == array.max()
    if len(values) <= 2 * parts:
        assert len(chosen) == len(values)
    else:
        edges = np.linspace(0, len(values), parts + 1).astype(int)
        for begin, end in pairwise(edges):
            inside = [place for place in chosen if begin <= place < end]
            assert array[inside].min() == array[begin:end].min() and array[inside].max() == array[begin:end].max()


def test_a_peak_of_one_point_in_100_000_is_shown() -> None:
    series = Series()
    for step in range(100_000):
        series.add(step, 9.0 if step == 54_321 else 1.0)
    part = series.part(0, 1 << 53, 500)
    assert len(part["steps"]) <= 1002 and part["points"] == part["total"] == 100_000
    assert part["values"][part["steps"].index(54_321)] == 9.0
    zoomed = series.part(54_000, 54_500, 500)
    assert zoomed["steps"] == [*range(53_999, 54_502)]  # every point, and one beyond each end


def test_a_file_is_read_on_from_where_it_was(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(line(0, validation_loss=2.0) + line(1, loss=1.0, learning_rate=0.1) + '{"step": 2, "lo')
    found = curves(tmp_path)
    found.read()
    assert [*found.series["loss"].steps] == [1] and [*found.series["validation_loss"].values] == [2.0]
    with file.open("a") as out:
        out.write('ss": 0.5}\n' + line(3, loss=0.25))
    found.read()
    assert [*found.series["loss"].steps] == [1, 2, 3] and found.last_step() == 3 and found.skipped == 0


def test_a_resumed_run_replaces_what_was_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(line(step, loss=1.0) for step in range(10)))
    found = curves(tmp_path)
    found.read()
    # Cut back in place to step 4 and grown again beyond its old size, as Metrics does it.
    file.write_text("".join(line(step, loss=1.0 if step < 5 else 2.0) for step in range(20)))
    found.read()
    assert [*found.series["loss"].steps] == [*range(20)]
    assert [*found.series["loss"].values] == [1.0] * 5 + [2.0] * 15
    file.unlink()
    file.write_text(line(0, loss=7.0))
    found.read()
    assert [*found.series["loss"].values] == [7.0]


def test_values_that_are_no_numbers_are_counted(tmp_path: Path) -> None:
    text = line(1, loss=1.0) + line(2, loss=float("nan")) + line(3, loss=float("inf")) + line(4, loss=2.0)
    (tmp_path / "metrics.jsonl").write_text(text + "no json\n[]\n" + '{"step": "x"}\n' + line(2, loss=1.0))
    found = curves(tmp_path)
    found.read()
    part = found.series["loss"].part(0, 100, 10)
    assert part["values"] == [1.0, 2.0] and part["not_finite"] == 2 and part["not_finite_at"] == [2, 3]
    assert found.skipped == 4


@pytest.mark.parametrize("text", ["", "\n"])
def test_a_file_without_points(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(text)
    found = curves(tmp_path)
    found.read()
    assert found.last_step() is None and found.series["loss"].part(0, 9, 9)["steps"] == []


def test_two_pages_that_look_at_the_same_time_see_each_point_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run", until="train")
    file = run / "04-adapter" / "metrics.jsonl"
    file.write_text("".join(line(step, loss=1.0, learning_rate=0.1) for step in range(10)))
    guard, _ = make_app(Context.below(tmp_path), ["127.0.0.1:1"], "t")
    page = TestClient(guard, base_url="http://127.0.0.1:1", headers={"authorization": "Bearer t"})
    path = f"/api/runs/{page.get('/api/runs').json()['runs'][0]['id']}/curves"
    looking, go_on = threading.Event(), threading.Event()

    def slow(values: Any, parts: int) -> Any:
        if not looking.is_set():
            looking.set()
            go_on.wait(10)
        return thinned(values, parts)

    monkeypatch.setattr("journeyman.ui.curves.thinned", slow)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(page.get, path)
        assert looking.wait(10)
        with file.open("a") as out:
            out.write(line(10, loss=1.0, learning_rate=0.1))
        second = pool.submit(page.get, path)
        wait([second], 0.5)  # it may be answered before the first or after it
        go_on.set()
        answers = [first.result(), second.result(), page.get(path)]
    assert [one.status_code for one in answers] == [200] * 3
    for series in ("loss", "learning_rate"):
        assert answers[2].json()["adapters"][0]["series"][series]["steps"] == [*range(11)]
