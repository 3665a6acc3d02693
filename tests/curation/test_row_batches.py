"""The batches of the interactions hold each row once, however the file was written, and wherever a pass resumes."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
import zstandard

from journeyman.append_log import compressed
from journeyman.curation import row_batches
from journeyman.curation.row_batches import RowBatches
from journeyman.errors import InputError
from journeyman.zst import read_frame

ROWS = [b'{"number": %d, "text": "%s"}' % (n, b"word " * (n * n % 37)) for n in range(200)]


def lines(rows: list[bytes]) -> bytes:
    return b"".join(row + b"\n" for row in rows)


def of_batches(rows: list[bytes], size: int) -> bytes:
    """As ingest writes it: a frame for each batch."""
    return b"".join(compressed(lines(rows[start : start + size])) for start in range(0, len(rows), size))


def of_commits(rows: list[bytes], size: int) -> bytes:
    """As older versions wrote it: a frame for each commit, which does not say its size."""
    raw = io.BytesIO()
    writer = zstandard.ZstdCompressor(level=1, write_checksum=True).stream_writer(raw, closefd=False)
    for start in range(0, len(rows), size):
        writer.write(lines(rows[start : start + size]))
        writer.flush(zstandard.FLUSH_FRAME)
    return raw.getvalue()


EMPTY = zstandard.ZstdCompressor(level=1, write_checksum=True).compress(b"")
"""What older versions wrote at a commit without rows."""
FILES = {
    "batches": of_batches(ROWS, 7),
    "small batches": of_batches(ROWS, 1),
    "one batch": of_batches(ROWS, 200),
    "commits": of_commits(ROWS, 60),
    "commits, then batches": of_commits(ROWS[:90], 60) + of_batches(ROWS[90:], 7),
    "batches, then commits": of_batches(ROWS[:91], 7) + of_commits(ROWS[91:], 60),
    "a commit without rows, twice": EMPTY + of_batches(ROWS[:91], 7) + EMPTY + of_batches(ROWS[91:], 7),
    "a large batch among others": of_batches(ROWS[:28], 7) + of_batches(ROWS[28:150], 122) + of_batches(ROWS[150:], 7),
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_batches, "BATCH_BYTES", 1000)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("most", [300, 8 << 20])
def test_from_every_row_on_the_rest_comes_once(
    name: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_batches, "_MOST_BYTES", most)
    (path := tmp_path / "rows.jsonl.zst").write_bytes(FILES[name])
    for skip in range(len(ROWS) + 1):
        batches = RowBatches(path, skip)
        found = list(batches)
        assert [line for batch in found for line in batch.lines()] == ROWS[skip:]
        assert [batch.count() for batch in found] == [len(batch.lines()) for batch in found]
        assert skip == len(ROWS) or batches.read == len(FILES[name])


def test_frames_are_sent_as_they_are_in_batches_of_a_bounded_size(tmp_path: Path) -> None:
    (path := tmp_path / "rows.jsonl.zst").write_bytes(FILES["batches"])
    found = list(RowBatches(path, 0))
    assert b"".join(part for batch in found for part in batch.parts) == FILES["batches"]
    assert 5 < len(found) < 200 / 7


@pytest.mark.parametrize("name", ["batches", "commits, then batches"])
def test_what_is_damaged_is_an_error(name: str, tmp_path: Path) -> None:
    path, content = tmp_path / "rows.jsonl.zst", bytearray(FILES[name])
    content[-20] ^= 1
    for damaged in (bytes(content), FILES[name][:50] + b"x" + FILES[name][50:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged"):
            [batch.lines() for batch in RowBatches(path, 0)]


def test_a_file_that_ends_within_a_frame_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.zst"
    for size in range(1, len(frame := compressed(lines(ROWS[:5])))):
        path.write_bytes(frame[:size])
        with pytest.raises(InputError, match="damaged"):
            list(RowBatches(path, 0))


def test_after_a_large_frame_frames_are_sent_as_they_are_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_batches, "_MOST_BYTES", 3000)
    (path := tmp_path / "rows.jsonl.zst").write_bytes(FILES["a large batch among others"])
    kinds = [batch.compressed for batch in RowBatches(path, 0)]
    assert kinds[0] and kinds[-1] and not all(kinds)


def test_a_stream_that_ends_within_a_frame_is_an_error(tmp_path: Path) -> None:
    path, whole = tmp_path / "rows.jsonl.zst", of_commits(ROWS, 200)
    for size in (len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match="damaged"):
            list(RowBatches(path, 0))


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("kind", ["text", "noise", "zeros", "several blocks", "one byte"])
def test_a_frame_ends_where_it_ends(checksum: bool, kind: str) -> None:
    """Compressed, raw and repeated blocks; zstandard itself unpacks what was cut out."""
    content = {
        "text": b"the same again " * 100, "noise": random.Random(0).randbytes(300_000), "zeros": bytes(400_000),
        "several blocks": lines(ROWS) * 40, "one byte": b"a",
    }[kind]  # fmt: skip
    frame = zstandard.ZstdCompressor(write_checksum=checksum).compress(content)
    file = io.BytesIO(frame * 3 + b"junk")
    for number in range(3):
        found = read_frame(file, len(content))
        assert found == frame and zstandard.ZstdDecompressor().decompress(found) == content
        assert file.tell() == (number + 1) * len(frame)
    file.seek(0)
    assert read_frame(file, len(content) - 1) is None and file.tell() == 0
