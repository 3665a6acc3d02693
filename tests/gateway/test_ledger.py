"""The ledger: numbers without gaps over restarts, rotation, full disks, damage that --check names."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults import fill, small_disk, wait_until
from journeyman.config import RecordConfig, RedactConfig
from journeyman.errors import UsageError
from journeyman.gateway import journal
from journeyman.gateway.checking import count
from journeyman.gateway.journal import ExchangeJournal, frames
from journeyman.gateway.learning import groups, proposed
from journeyman.gateway.ledger import Ledger, MakerHere
from journeyman.gateway.row_files import compress, lines_of, row_files
from journeyman.gateway.rows import RowSettings
from journeyman.sources.files import log_files, read_file

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
HEAD = {"time": "2026-11-30T12:00:00+00:00", "method": "POST", "path": "/v1/chat/completions",
        "headers": {"content-type": "application/json"}, "coding": "", "key": "", "key_hash": ""}  # fmt: skip


def ledger(folder: Path, said: list[str] | None = None, **settings: object) -> Ledger:
    folder.mkdir(exist_ok=True)
    made = RowSettings(RecordConfig.model_validate(settings), RedactConfig())
    return Ledger(folder, made, MakerHere(made), (said if said is not None else []).append, lambda row: None)


def exchange(
    one: Ledger, text: str = "Hello.", *, ended: bool = True, system: str = "You are a clerk."
) -> ExchangeJournal:
    """An exchange with this answer."""
    made = one.begin()
    made.note("head", HEAD)
    turns = [{"role": "system", "content": system}, {"role": "user", "content": f"Question {made.number}"}]
    made.add("body", json.dumps({"model": "m", "messages": turns}).encode())
    made.note("status", {"status": 200, "upstream": "api.example.com", "headers": {"content-type": "application/json"}})
    answer = {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}
    made.add("piece", json.dumps(answer).encode())
    if ended:
        one.end(made, "complete")
    return made


def rows(folder: Path) -> Iterator[dict[str, object]]:
    for path in row_files(folder):
        yield from map(json.loads, lines_of(path))


def test_numbers_go_on_after_a_restart_and_what_was_open_becomes_a_row(tmp_path: Path) -> None:
    folder = tmp_path / "recorded"
    first = ledger(folder)
    exchange(first)
    left = exchange(first, ended=False)
    first.close()
    assert count(folder).open == [2]
    assert count(folder).difference == 0
    left.close()
    second = ledger(folder)
    assert second.recovered == 1
    assert exchange(second).number == 3
    second.close()
    assert [(row["seq"], row["outcome"], row.get("why")) for row in rows(folder)] == [
        (1, "complete", None), (2, "cut", "recorder_ended"), (3, "complete", None),
    ]  # fmt: skip
    assert count(folder).as_json()["difference"] == 0
    assert not journal.numbers(second.journal)


def test_an_incomplete_frame_and_an_incomplete_row_are_no_part_of_anything(tmp_path: Path) -> None:
    """Both are what a kill in the middle of a write leaves."""
    folder = tmp_path / "recorded"
    first = ledger(folder)
    exchange(first)
    left = exchange(first, ended=False)
    first.close()
    whole = list(frames(left.path))
    with left.path.open("r+b") as file:
        file.truncate(left.path.stat().st_size - 1)
    assert list(frames(left.path)) == whole[:-1]
    (path,) = row_files(folder)
    with path.open("ab") as file:
        file.write(b'{"recorded": 1, "seq": 2, "assi')
    ledger(folder).close()
    assert [row["seq"] for row in rows(folder)] == [1, 2]
    assert count(folder).difference == 0


def test_a_row_that_was_written_before_the_kill_is_not_written_twice(tmp_path: Path) -> None:
    folder = tmp_path / "recorded"
    first = ledger(folder)
    made = exchange(first, ended=False)
    kept = made.path.read_bytes()
    first.end(made, "complete")
    first.close()
    made.path.parent.mkdir(mode=0o700)
    made.path.write_bytes(kept)
    ledger(folder).close()
    assert [row["seq"] for row in rows(folder)] == [1]
    assert count(folder).difference == 0


def test_files_are_rotated_compressed_and_read_by_ingest(tmp_path: Path) -> None:
    folder = tmp_path / "recorded"
    one = ledger(folder, rows_mib=1)
    for _ in range(5):
        exchange(one, "word " * 100_000)
    one.close()
    files = row_files(folder)
    assert [path.suffix for path in files] == [".zst", ".zst", ".jsonl"]
    assert sorted(log_files(folder, str(folder))) == files
    assert sum(1 for path in files for _ in read_file(path)) == 5
    assert count(folder).as_json()["rows"] == 5
    plain = files[0].with_suffix("")  # a kill between the two leaves both
    plain.write_bytes(b"".join(lines_of(files[0])))
    assert count(folder).difference == 0
    ledger(folder).close()
    assert not plain.exists()
    assert all(path.suffix == ".zst" for path in row_files(folder)), "the last file of an ended recorder is closed"


def test_what_is_missing_changed_or_double_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "recorded"
    one = ledger(folder)
    for _ in range(4):
        exchange(one)
    wait_until(lambda: one.counts.rows == 4)
    one.close()
    (path,) = row_files(folder)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2] + lines[2] + lines[3].replace(b"Hello", b"Hallo"))
    found = count(folder)
    assert (found.missing, found.double) == ([2, 4], [3])
    assert found.damaged == [f"{path.name}:4"]
    assert found.difference == 4


def test_a_request_that_began_after_the_journal_was_listed_is_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    folder = tmp_path / "recorded"
    one = ledger(folder)
    slow = exchange(one, ended=False)
    exchange(one)
    wait_until(lambda: one.counts.rows == 1)
    numbers, lists = journal.numbers, [list[int]()]
    monkeypatch.setattr(journal, "numbers", lambda place: lists.pop() if lists else numbers(place))
    found = count(folder)
    assert (found.missing, found.open, found.difference) == ([], [1], 0)
    one.end(slow, "complete")
    one.close()


def test_a_row_without_its_checksum_is_damaged(tmp_path: Path) -> None:
    folder = tmp_path / "recorded"
    one = ledger(folder)
    exchange(one)
    one.close()
    (path,) = row_files(folder)
    row = json.loads(path.read_bytes())
    del row["sum"]
    path.write_bytes(json.dumps(row).encode() + b"\n")
    assert count(folder).damaged == [f"{path.name}:1"]


def test_a_compressed_file_that_is_cut_is_named_and_stops_no_recorder(tmp_path: Path) -> None:
    folder = tmp_path / "recorded"
    one = ledger(folder)
    exchange(one)
    one.close()
    ledger(folder).close()
    (path,) = row_files(folder)
    path.write_bytes(path.read_bytes()[:-20])
    again = ledger(folder)
    again.close()
    assert [one.partition(":")[0] for one in count(folder).damaged] == [path.name]


def test_a_file_that_is_compressed_while_rows_are_counted_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    folder = tmp_path / "recorded"
    one = ledger(folder)
    exchange(one)
    one.close()
    listed = row_files(folder)
    compress(listed[0])
    monkeypatch.setattr("journeyman.gateway.checking.row_files", lambda folder: listed)
    found = count(folder)
    assert (found.requests, found.rows["complete"], found.difference) == (1, 1, 0)


@root_only
def test_on_a_full_disk_answers_go_on_and_rows_follow(tmp_path: Path) -> None:
    said: list[str] = []
    with small_disk(tmp_path / "disk", "2m") as disk:
        folder = disk / "recorded"
        one = ledger(folder, said)
        exchange(one)
        wait_until(lambda: one.counts.rows == 1)
        ballast = fill(disk)
        for _ in range(5):
            exchange(one, "word " * 2_000)
        wait_until(lambda: one.counts.trouble == "disk_full")
        assert "NOT written" in said[0] and len(said) == 1
        (path,) = row_files(folder)
        assert path.read_bytes().endswith(b"\n"), "nothing is half written"
        found = count(folder)
        assert found.difference == 0
        assert len(found.open) + found.rows["complete"] == 6
        ballast.unlink()
        wait_until(lambda: one.counts.rows == 6)
        assert said[1:] == ["rows are written again"]
        one.close()
        assert count(folder).as_json()["outcomes"] == {"complete": 6}


@root_only
def test_a_full_journal_loses_contents_but_no_number(tmp_path: Path) -> None:
    with small_disk(tmp_path / "memory", "64k") as memory:
        folder = tmp_path / "recorded"
        one = ledger(folder, journal=str(memory))
        made = exchange(one, "x" * 100_000)
        assert not made.intact
        wait_until(lambda: one.counts.rows == 1)
        exchange(one)
        one.close()
        assert one.counts.lost == 1
        cut, whole = rows(folder)
        assert (cut["outcome"], cut["why"], cut["lost"]) == ("cut", "journal_full", True)
        assert whole["outcome"] == "complete"
        found = count(folder, str(memory))
        assert (found.difference, found.lost) == (0, 1)


def test_an_exchange_of_which_no_row_can_be_made_is_counted_and_kept(tmp_path: Path) -> None:
    folder, said = tmp_path / "recorded", list[str]()
    one = ledger(folder, said)
    made = one.begin()
    made.note("head", {"no": "path"})
    data = made.path.read_bytes()
    one.end(made, "complete")
    exchange(one)
    one.close()
    kept = made.path.with_name(made.path.name + ".unread")
    try:
        assert one.counts.lost == 1
        assert len(said) == 1 and str(kept) in said[0]
        assert kept.read_bytes().startswith(data)
        found = count(folder)
        assert (found.difference, found.lost, found.open) == (0, 1, [])
    finally:
        kept.unlink()
        kept.parent.rmdir()


def test_the_journal_is_bounded_while_rows_cannot_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "recorded"
    one = ledger(folder, journal_mib=1)
    held = exchange(one, "x" * ((1 << 20) - 1000), ended=False)
    other = exchange(one)
    assert held.intact and not other.intact
    assert held.size + other.size <= 1 << 20
    one.end(held, "complete")
    one.close()
    assert sorted((row["seq"], row["outcome"], row.get("lost")) for row in rows(folder)) == [
        (1, "complete", None), (2, "cut", True),
    ]  # fmt: skip
    assert count(folder).difference == 0


def test_a_journal_beside_the_rows_is_for_this_user_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_in_memory", lambda folder: False)
    one = ledger(tmp_path / "recorded")
    made = exchange(one, ended=False)
    assert not one.in_memory
    assert made.path.parent == tmp_path / "recorded" / ".journal"
    assert made.path.stat().st_mode & 0o777 == 0o600
    assert made.path.parent.stat().st_mode & 0o777 == 0o700
    one.end(made, "complete")
    one.close()


def test_a_journal_that_somebody_else_made_is_refused(tmp_path: Path) -> None:
    place = journal.place_of(tmp_path / "recorded", str(tmp_path))
    place.folder.symlink_to(tmp_path)
    with pytest.raises(UsageError, match="belongs to somebody else"):
        ledger(tmp_path / "recorded", journal=str(tmp_path))


def test_rules_are_learned_from_system_prompts(tmp_path: Path) -> None:
    folder = tmp_path / "recorded"
    one = ledger(folder)
    for number in range(3):
        exchange(one, system=f"You are a planner for team {number}. Be brief (always).")
        exchange(one, system="You are the code reviewer. Look at it.")
    one.close()
    made = proposed(groups(folder, []))
    assert sorted((rule.role, group.rows) for rule, group in made) == [("code-reviewer", 3), ("planner", 3)]
    again = groups(folder, [rule for rule, _ in made])
    assert [dict(group.now) for group in again] == [{"planner": 3}, {"code-reviewer": 3}]
