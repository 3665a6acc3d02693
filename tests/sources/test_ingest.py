"""Reading logs: figures of the real file, bad lines, and no row lost."""

from __future__ import annotations

import gzip
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import REAL_LOG, StopsAfter, log_row
from file_hashes import file_hashes
from journeyman.artifacts import hash_of, read_rows, row_bytes, write_rows
from journeyman.config import DataConfig, RedactConfig
from journeyman.errors import InputError, Interrupted, UsageError
from journeyman.manifests import IngestManifest
from journeyman.protocols import SilentReporter
from journeyman.reasons import ReasonRecord
from journeyman.reasons.files import FileDamaged, NotJson
from journeyman.reasons.notes import UnknownStatus
from journeyman.reasons.sources import FieldMissing
from journeyman.records import Interaction, Rejected
from journeyman.sources.files import log_files, read_file, sources_of
from journeyman.sources.reader import Reader
from journeyman.stages.ingest import ingest
from journeyman.stages.ingest_tally import Seen, restored


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
    ("line", "code"),
    [
        (b"{cut here", "not_json"),
        (b'"\xff\xfe"', "not_utf8"),
        (b"[1, 2]", "not_an_object"),
        (b"{}", "field_missing"),
        (b"[" * 100_000, "nested_too_deeply"),
        (b'{"a": NaN}', "not_json"),
        (b'{"a": "\\ud800"}', "half_surrogate"),
        (json.dumps({**log_row(1), "agent": {}}).encode(), "field_missing"),
        (json.dumps(log_row(1, input_messages=[])).encode(), "no_user_message"),
        (json.dumps(log_row(1, input_messages=[{"role": "user"}])).encode(), "field_missing"),
        (json.dumps(log_row(1, output=7)).encode(), "wrong_type"),
    ],
)
def test_a_bad_line_is_rejected_with_its_number_and_reason(tmp_path: Path, line: bytes, code: str) -> None:
    good = json.dumps(log_row(1)).encode()
    rows = _read(tmp_path, good, line, good)
    assert [type(row) for row in rows] == [Interaction, Rejected, Interaction]
    rejected = rows[1]
    assert isinstance(rejected, Rejected) and rejected.line == 2
    assert rejected.reason.code == code, rejected.reason.sentence()


def test_a_row_without_an_output_field_is_rejected(tmp_path: Path) -> None:
    row = log_row(1)
    del row["execution"]["output"]
    (rejected,) = _read(tmp_path, json.dumps(row).encode())
    assert isinstance(rejected, Rejected) and rejected.reason.reason() == FieldMissing("execution.output")


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
    monkeypatch.setattr("journeyman.stages.ingest._MOST_ALIKE", 3)
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
    for name in ("interactions.jsonl.zst", "rejected.jsonl"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()
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


@pytest.mark.slow
def test_rejected_rows_that_are_alike_are_counted_and_not_all_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("ingest", "ingest_tally"):
        monkeypatch.setattr(f"journeyman.stages.{module}.MOST_REASONS", 5)
    bomb = tmp_path / "bomb.jsonl.zst"
    many = b"{broken\n" * 30_000 + b"".join(b'{"a%d": 1}\n' % n for n in range(5_000)) + b"[1]\n"
    bomb.write_bytes(zstandard.ZstdCompressor(level=19).compress(many))
    (other := tmp_path / "other.jsonl").write_text("{broken\n" * 3 + json.dumps(log_row(1)) + "\n")
    found = _ingest([bomb, other], tmp_path)
    assert (found.read, found.kept, found.rejected) == (35_005, 1, 35_004)
    rows = list(read_rows(tmp_path / "rejected.jsonl", Rejected))
    assert sum(row.rows for row in rows) == 35_004 and len(rows) < 4_100
    first = next(row for row in rows if row.rows > 1)
    assert (first.rows, first.line, first.source) == (28_000, 30_000, "bomb.jsonl.zst")
    assert "28,000 more rows" in first.text and first.reason == rows[0].reason
    assert [row.rows for row in rows if row.source == "other.jsonl"] == [1, 1, 1]
    assert (tmp_path / "rejected.jsonl").stat().st_size < 1_000_000


def test_a_reason_is_one_line_of_bounded_length(tmp_path: Path) -> None:
    source = tmp_path / "log.jsonl"
    keys = {f"\x1b]0;{n}\x07" + "k" * 29: 1 for n in range(8)}
    source.write_text(json.dumps(keys) + "\n" + json.dumps(log_row(1)) + "\n")
    _ingest([source], tmp_path)
    (row,) = read_rows(tmp_path / "rejected.jsonl", Rejected)
    told = row.reason.details["fields"]
    assert isinstance(told, str) and len(told) <= 300 and row.reason.sentence().isprintable()


def test_rejected_rows_are_counted_by_code_and_shown_with_their_sentence(tmp_path: Path) -> None:
    source = tmp_path / "log.jsonl"
    spans = {"resourceSpans": [{"scopeSpans": [{"spans": [{"attributes": {"openinference.span.kind": "TOOL"}}] * 3}]}]}
    bad = [json.dumps(log_row(1, output=7)), json.dumps(log_row(1, output=[])), json.dumps(spans)]
    source.write_text("\n".join([json.dumps(log_row(1)), *bad]) + "\n")
    found = _ingest([source], tmp_path)
    assert found.rejected_by == {"not_a_model_call": 3, "wrong_type": 2} and found.rejected == 5
    told = {one.sentence(): one.rows for one in found.reasons}
    assert told["execution.output is number, not text"] == told["execution.output is list, not text"] == 1
    assert [one.rows for one in found.reasons if one.code == "not_a_model_call"] == [3]


def test_what_an_older_version_wrote_of_rejected_rows_is_read(tmp_path: Path) -> None:
    old = {"source": "log.jsonl", "line": 2, "reason": "no execution.output", "text": "{", "rows": 1}
    assert Rejected.model_validate(old).reason.sentence() == "no execution.output"
    (source := tmp_path / "log.jsonl").write_text(json.dumps(log_row(1)) + "\n{broken\n")
    written = _ingest([source], tmp_path).model_dump(exclude={"rejected_by"})
    written |= {"reasons": {"no {output}": 4, "not JSON": 1}, "notes": {"other: level WARNING": 2}}
    found = IngestManifest.model_validate(written)
    assert [(one.sentence(), one.rows) for one in found.reasons] == [("no {output}", 4), ("not JSON", 1)]
    assert found.rejected_by == {} and found.notes[0].rows == 2
    begun = restored(tmp_path / "interactions.jsonl.zst", {"rejected": 5, "reasons": {"no {output}": 4, "not JSON": 1}})
    more = Seen()
    more.add(Rejected(source="log.jsonl", line=3, reason=NotJson("x").record(), text="x"))
    begun.add(more)
    found = begun.manifest(7, {})
    assert (found.rejected, found.rejected_by) == (6, {"text": 5, "not_json": 1})
    assert {one.sentence() for one in found.reasons} == {"no {output}", "not JSON", "not JSON: x"}


def test_a_note_of_an_older_version_is_read_and_a_new_one_has_details(tmp_path: Path) -> None:
    source = tmp_path / "log.jsonl"
    row = log_row(1)
    row["execution"]["status"] = "purple"
    source.write_text(json.dumps(row) + "\n")
    found = _ingest([source], tmp_path)
    (kept,) = read_rows(tmp_path / "interactions.jsonl.zst", Interaction)
    old = {"code": "other", "detail": "level {WARNING}"}
    older = Interaction.model_validate(kept.model_dump() | {"notes": [old]})
    assert [one.sentence() for one in older.notes] == ["other: level {WARNING}"]
    assert [(one.reason(), one.rows) for one in found.notes] == [(UnknownStatus("status", "'purple'"), 1)]
    assert [one.reason() for one in kept.notes] == [UnknownStatus("status", "'purple'")]


def _zst(tmp_path: Path) -> tuple[Path, list[int]]:
    """300 rows in three frames, and where each frame ends."""
    path, ends, content = tmp_path / "log.jsonl.zst", [], b""
    for frame in range(3):
        rows = "".join(json.dumps(log_row(100 * frame + n)) + "\n" for n in range(100))
        content += zstandard.ZstdCompressor().compress(rows.encode())
        ends.append(len(content))
    path.write_bytes(content)
    return path, ends


def test_a_compressed_log_that_was_cut_is_named_wherever_it_was_cut(tmp_path: Path) -> None:
    path, ends = _zst(tmp_path)
    content = path.read_bytes()
    assert _ingest([path], tmp_path).kept == 300
    cuts = {5, ends[0] // 2, ends[0] + 1, ends[1] + 3, ends[1] + 40, ends[2] - 200, ends[2] - 1}
    for cut in sorted(cuts):
        path.write_bytes(content[:cut])
        *_, (last, _) = read_file(path)
        assert last.value is None and last.raw is None and isinstance(last.problem, FileDamaged), cut
    path.write_bytes(content[: ends[1]])
    assert sum(1 for _ in read_file(path)) == 200, "whole frames are a whole file"
    for damaged in (b"", content[:50] + b"\xff" * 9 + content[59:], content + b"more"):
        path.write_bytes(damaged)
        if damaged:
            *_, (last, _) = read_file(path)
            assert isinstance(last.parsed().problem, FileDamaged | NotJson)
    path = tmp_path / "log.jsonl.gz"
    whole = gzip.compress(b"".join(json.dumps(log_row(n)).encode() + b"\n" for n in range(300)))
    for damaged in (whole[:-1], whole[: len(whole) // 2], whole[:5], whole[:99] + b"\xff" * 40 + whole[139:]):
        path.write_bytes(damaged)
        *_, (last, _) = read_file(path)
        assert isinstance(last.parsed().problem, FileDamaged | NotJson)


def test_rows_of_a_run_that_were_cut_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.zst"
    write_rows(path, [Rejected(source="a", line=n, reason=ReasonRecord(code="r"), text="t" * 9) for n in range(5_000)])
    content = path.read_bytes()
    assert sum(1 for _ in read_rows(path, Rejected)) == 5_000
    for damaged in (content[:-1], content[: len(content) // 2], content[:3], b"no zst", b"\0" * 20):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"rows\.jsonl\.zst: damaged after row"):
            list(read_rows(path, Rejected))
    plain = tmp_path / "rows.jsonl"
    for text in (b'{"source": "a"}\n', b"\xff\n", b"[]\n", b"\0\n", b'{"sou'):
        plain.write_bytes(text)
        with pytest.raises(InputError, match=r"rows\.jsonl:1: "):
            list(read_rows(plain, Rejected))


def test_what_is_no_file_is_refused_by_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "s.jsonl"))
        for name, what in (("pipe.jsonl", "a pipe"), ("zero.jsonl", "a device"), ("s.jsonl", "a socket")):
            with pytest.raises(UsageError, match=rf"{name}: {what}, not a file"):
                log_files(tmp_path, name)
            with pytest.raises(UsageError, match=rf"{name}: {what}, not a file"):
                list(read_file(tmp_path / name))
    with pytest.raises(UsageError, match="/dev/zero: a device"):
        log_files(tmp_path, "/dev/zero")


def test_an_ingest_that_an_older_version_began_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which wrote one long frame for each commit, without its size."""
    monkeypatch.setattr("journeyman.stages.ingest._BATCH_BYTES", 3_000)
    source = tmp_path / "log.jsonl"
    source.write_text("".join(json.dumps(log_row(n)) + "\n" for n in range(40)))
    whole, older = tmp_path / "whole", tmp_path / "older"
    for out in (whole, older):
        out.mkdir()
    expected = ingest(sources_of([source]), DataConfig(), RedactConfig(), whole, SilentReporter())
    with pytest.raises(Interrupted):
        ingest(sources_of([source]), DataConfig(), RedactConfig(), older, StopsAfter(3))
    rows, progress = older / "interactions.jsonl.zst", older / ".progress.json"
    begun = b"".join(row_bytes(row) for row in read_rows(rows, Interaction))
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    rows.write_bytes(packer.compress(begun) + packer.flush() + b"what followed the commit")
    saved = json.loads(progress.read_text())
    sizes = saved["sizes"] | {rows.name: rows.stat().st_size - len(b"what followed the commit")}
    progress.write_text(json.dumps(saved | {"sizes": sizes, "sha256": hash_of([saved["state"], sizes])}))
    assert ingest(sources_of([source]), DataConfig(), RedactConfig(), older, SilentReporter()) == expected
    assert begun and file_hashes(older) == file_hashes(whole)


def test_a_damaged_record_of_progress_costs_the_progress_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("journeyman.stages.ingest._BATCH_BYTES", 3_000)
    source = tmp_path / "log.jsonl"
    source.write_text("".join(json.dumps(log_row(n)) + "\n" for n in range(40)))
    for number, damage in enumerate(("", "{", "[]", '{"state": {}}', "flip", "short")):
        (out := tmp_path / str(number)).mkdir()
        with pytest.raises(Interrupted):
            ingest(sources_of([source]), DataConfig(), RedactConfig(), out, StopsAfter(3))
        progress = out / ".progress.json"
        if damage == "short":
            with (out / "interactions.jsonl.zst").open("r+b") as file:
                file.truncate(10)
        else:
            progress.write_text(progress.read_text().replace('"rows": ', '"rows": 1') if damage == "flip" else damage)
        assert ingest(sources_of([source]), DataConfig(), RedactConfig(), out, SilentReporter()).kept == 40
        assert len(list(read_rows(out / "interactions.jsonl.zst", Interaction))) == 40
