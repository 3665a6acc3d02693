"""Rows as objects, flat dicts and data frames."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from journeyman.api.rows import Rows
from journeyman.errors import UsageError
from journeyman.reasons.base import ReasonRecord
from journeyman.records import Finding, Interaction, Message, Score

FINDINGS = [
    Finding(
        id="1",
        source="a:1",
        role="coder",
        rule="too_long",
        action="dropped",
        reason=ReasonRecord(code="text", details={"text": "it is <b>long</b>"}),
    ),
    Finding(
        id="2",
        source="a:2",
        role="tester",
        rule="other",
        action="noted",
        reason=ReasonRecord(code="unheard_of", details={"n": 3}),
    ),
]
INTERACTION = Interaction(
    id="1",
    source="a:1",
    role="coder",
    messages=[Message(role="user", content="héllo")],
    output=None,
    duration_ms=1.5,
    max_tokens=7,
    succeeded=True,
    extra={"a": [1, None]},
)
MODELS: list[tuple[Any, list[Any]]] = [
    (Finding, FINDINGS),
    (Finding, []),
    (Interaction, [INTERACTION]),
    (Interaction, []),
    (Score, [Score(id="1", role="coder", arm="base", outcome="pass", check="exact")]),
]


def rows_of(kind: Any, rows: list[Any]) -> Rows[Any]:
    return Rows(kind, lambda: iter(rows))


def test_rows_read_anew_each_time_and_know_their_places() -> None:
    rows, reads = rows_of(Finding, FINDINGS), []
    counted = Rows(Finding, lambda: reads.append(1) or iter(FINDINGS))  # type: ignore[func-returns-value]
    assert [*counted] == [*counted] == FINDINGS and len(counted) == 2
    done = len(reads)
    assert counted.records() and len(reads) == done + 1 and len(counted) == 2 and len(reads) == done + 1
    assert rows[0] is FINDINGS[0] and rows[-1] is FINDINGS[1] and len(rows) == 2 and rows
    assert not rows_of(Finding, []) and not len(rows_of(Finding, []))
    for place in (2, -3):
        with pytest.raises(IndexError, match="there are 2"):
            rows[place]
    assert [row.id for row in rows.where(lambda row: row.role == "tester")] == ["2"]
    assert "2 rows of Finding" in repr(rows)


def test_flat_rows_have_reasons_as_code_and_sentence_and_the_rest_as_json() -> None:
    first, second = rows_of(Finding, FINDINGS).records()
    assert first["reason"] == "text" and first["reason_sentence"] == "it is <b>long</b>" and first["log_id"] is None
    assert second["reason"] == "unheard_of" and second["reason_sentence"] == "unheard_of (n = 3)"
    (row,) = rows_of(Interaction, [INTERACTION]).records()
    assert json.loads(row["messages"])[0]["content"] == "héllo" and "héllo" in row["messages"]
    assert row["output"] is None and row["duration_ms"] == 1.5 and row["succeeded"] is True
    assert json.loads(row["extra"]) == {"a": [1, None]} and row["errors"] == "[]"
    (score,) = rows_of(*MODELS[-1]).records()
    assert score["reason"] is score["reason_sentence"] is None


@pytest.mark.parametrize(("kind", "rows"), MODELS)
def test_pandas_frames_have_the_rows_and_fixed_types(kind: Any, rows: list[Any]) -> None:
    pandas = pytest.importorskip("pandas")
    made = rows_of(kind, rows)
    frame = made.to_pandas()
    assert list(frame.columns) == made.columns and len(frame) == len(rows)
    read = frame.astype(object).where(pandas.notna(frame), None).to_dict("records")
    assert read == made.records()
    if kind is Interaction:
        types = {name: str(frame[name].dtype) for name in ("duration_ms", "max_tokens", "succeeded")}
        assert types == {"duration_ms": "Float64", "max_tokens": "Int64", "succeeded": "boolean"}


@pytest.mark.parametrize(("kind", "rows"), MODELS)
def test_polars_frames_have_the_rows_and_fixed_types(kind: Any, rows: list[Any]) -> None:
    polars = pytest.importorskip("polars")
    made = rows_of(kind, rows)
    frame = made.to_polars()
    assert frame.columns == made.columns and frame.to_dicts() == made.records()
    if kind is Interaction:
        assert frame.schema["duration_ms"] == polars.Float64 and frame.schema["max_tokens"] == polars.Int64


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=f"pip install {package}"):
        getattr(rows_of(Finding, FINDINGS), f"to_{package}")()


def test_nothing_in_a_row_acts_in_a_notebook() -> None:
    hostile = Finding(
        id='"><script>alert(1)</script>',
        source="a\u202eb",
        role="<img src=x onerror=alert(1)>",
        rule="x" * 500,
        action="noted",
        reason=ReasonRecord(code="text", details={"text": "</td><b>"}),
    )
    page = rows_of(Finding, [hostile] * 30)._repr_html_()
    assert "<script" not in page and "<img" not in page and "<b>" not in page and "\u202e" not in page
    assert page.count("<tr>") == 21 and "30 rows of Finding; the first 20 are shown" in page and "x" * 201 not in page
