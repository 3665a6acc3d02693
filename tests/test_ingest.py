"""Reading logs: figures of the real file, bad lines, and no row lost."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import REAL_LOG, StopsAfter, log_row
from journeyman.artifacts import read_rows
from journeyman.config import DataConfig, RedactConfig
from journeyman.errors import InputError, Interrupted, UsageError
from journeyman.manifests import IngestManifest
from journeyman.ports import SilentReporter
from journeyman.records import Interaction, Rejected
from journeyman.sources.files import read_file, sources_of
from journeyman.sources.reader import Reader
from journeyman.stages.ingest import ingest


def _ingest(sources: list[Path], out: Path) -> IngestManifest:
    return ingest(sources_of(sources), DataConfig(), RedactConfig(), out, SilentReporter())


@pytest.mark.skipif(not REAL_LOG.is_file(), reason="the real log is not here")
def test_figures_of_the_real_log(tmp_path: Path) -> None:
    found = _ingest([REAL_LOG], tmp_path)
    assert (found.read, found.total.successes) == (302, 298)
    assert round(found.total.successes / found.total.rows, 3) == 0.987
    durations = found.total.durations
    assert durations.mean_s is not None and durations.median_s is not None
    assert (round(durations.mean_s, 2), round(durations.median_s, 2)) == (20.07, 10.91)
    teachers = {name: group.rows for name, group in found.by_teacher.items()}
    assert teachers == {"replicate": 215, "tongyi": 86, "mock": 1}
    means = {name: group.durations.mean_s for name, group in found.by_teacher.items()}
    assert round(means["replicate"] or 0, 1) == 9.7 and round(means["tongyi"] or 0, 1) == 45.8
    assert {role: group.rows for role, group in found.by_role.items()} == {
        "coder": 178, "tester": 76, "researcher": 26, "coordinator": 20, "reviewer": 2,
    }  # fmt: skip


def _read(tmp_path: Path, *lines: bytes) -> list[Interaction | Rejected]:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    reader = Reader(DataConfig(format="interactions"))
    return [record for row, _ in read_file(path) for record in reader.records(row, path.name)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{cut here", "not JSON"),
        (b'"\xff\xfe"', "not UTF-8: convert"),
        (b"[1, 2]", "a JSON list, not an object"),
        (b"{}", "no agent object"),
        (b"[" * 100_000, "not usable JSON"),
        (b'{"a": NaN}', "NaN or Infinity"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (json.dumps({**log_row(1), "agent": {}}).encode(), "no agent.role"),
        (json.dumps(log_row(1, input_messages=[])).encode(), "no user message"),
        (json.dumps(log_row(1, input_messages=[{"role": "user"}])).encode(), r"input_messages\[0\]"),
        (json.dumps(log_row(1, output=7)).encode(), "execution.output is number"),
    ],
)
def test_a_bad_line_is_rejected_with_its_number_and_reason(tmp_path: Path, line: bytes, reason: str) -> None:
    good = json.dumps(log_row(1)).encode()
    rows = _read(tmp_path, good, line, good)
    assert [type(row) for row in rows] == [Interaction, Rejected, Interaction]
    rejected = rows[1]
    assert isinstance(rejected, Rejected) and rejected.line == 2
    assert re.search(reason, rejected.reason), rejected.reason


def test_a_row_without_an_output_field_is_rejected(tmp_path: Path) -> None:
    row = log_row(1)
    del row["execution"]["output"]
    (rejected,) = _read(tmp_path, json.dumps(row).encode())
    assert isinstance(rejected, Rejected) and rejected.reason == "no execution.output"


def test_a_file_whose_name_is_no_utf_8_is_read_under_a_name_that_is(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"odd \xff.jsonl")
    path.write_text(json.dumps(log_row(1)) + "\n")
    (source,) = sources_of([path])
    assert source.name == r"odd \xff.jsonl"
    (tmp_path / "out").mkdir()
    assert ingest([source], DataConfig(), RedactConfig(), tmp_path / "out", SilentReporter()).kept == 1


def test_unknown_fields_are_kept(tmp_path: Path) -> None:
    row = {**log_row(1), "trace": {"depth": 3}}
    row["execution"]["retries"] = 2
    (read,) = _read(tmp_path, json.dumps(row).encode())
    assert isinstance(read, Interaction)
    assert read.extra["trace"] == {"depth": 3} and read.extra["execution"] == {"retries": 2}


def test_missing_and_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(UsageError, match="no such file"):
        _ingest([tmp_path / "none.jsonl"], tmp_path)
    with pytest.raises(InputError, match="no usable interaction in 0 rows"):
        _ingest([tmp_path / "empty.jsonl"], tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def damaged_rows(draw: st.DrawFn) -> bytes:
    """A good row with one field anywhere replaced by anything, or cut anywhere."""
    row: dict[str, Any] = log_row(draw(st.integers(0, 9)))
    section = draw(st.sampled_from([row, row["agent"], row["llm"], row["execution"], row["llm"]["config"]]))
    section[draw(st.sampled_from([*section, "new"]))] = draw(JSON)
    line = json.dumps(row).encode()
    return line[: draw(st.integers(1, len(line)))] if draw(st.booleans()) else line


@given(st.lists(damaged_rows() | st.binary(min_size=1).map(lambda b: b"x" + b.replace(b"\n", b" ")), max_size=6))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_row_is_lost_and_nothing_crashes(tmp_path: Path, lines: list[bytes]) -> None:
    rows = _read(tmp_path, *lines)
    assert len(rows) == sum(bool(line.strip()) for line in (b"\n".join(lines) + b"\n").split(b"\n"))
    if any(isinstance(row, Interaction) for row in rows):
        found = _ingest([tmp_path / "log.jsonl"], tmp_path)
        assert found.read == found.kept + found.rejected == len(rows)
        assert len(list(read_rows(tmp_path / "interactions.jsonl.zst", Interaction))) == found.kept


def test_an_interrupted_ingest_goes_on_and_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("journeyman.stages.ingest._BATCH_BYTES", 3_000)
    sources = []
    for number in range(3):
        rows = [json.dumps(log_row(100 * number + n)) if n % 5 else "{broken" for n in range(40)]
        sources.append(tmp_path / f"{number}.jsonl")
        sources[-1].write_text("\n".join(rows) + "\n")
    (whole := tmp_path / "whole").mkdir()
    (parts := tmp_path / "parts").mkdir()
    expected = _ingest(sources, whole)
    stops = 0
    while True:
        try:
            found = ingest(sources_of(sources), DataConfig(), RedactConfig(), parts, StopsAfter(3))
            break
        except Interrupted:
            stops += 1
            with (parts / "rejected.jsonl").open("a") as file:
                file.write("torn by a kill")
    assert stops >= 3 and found == expected
    for name, kind in (("interactions.jsonl.zst", Interaction), ("rejected.jsonl", Rejected)):
        assert list(read_rows(parts / name, kind)) == list(read_rows(whole / name, kind))
    assert sorted(p.name for p in parts.iterdir()) == sorted(p.name for p in whole.iterdir())


def test_parallel_reading_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "log.jsonl"
    source.write_text("".join(json.dumps(log_row(n)) + "\n" for n in range(200)))
    (one := tmp_path / "one").mkdir()
    (many := tmp_path / "many").mkdir()
    expected = _ingest([source], one)
    monkeypatch.setattr("journeyman.stages.ingest._WORTH_WORKERS", 0)
    monkeypatch.setattr("journeyman.stages.ingest._BATCH_BYTES", 20_000)
    assert _ingest([source], many) == expected
    rows = list(read_rows(many / "interactions.jsonl.zst", Interaction))
    assert rows == list(read_rows(one / "interactions.jsonl.zst", Interaction))
