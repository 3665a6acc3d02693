"""Sorting by parts, and work by chunks of words: their sizes change no result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from journeyman.curation import columns, duplicates, routing
from journeyman.curation.columns import count_distinct, equal_runs, numbered
from journeyman.curation.duplicates import Words


@pytest.mark.parametrize("least", [1, 7, 40, 1000])
def test_keys_are_counted_and_numbered_by_parts(monkeypatch: pytest.MonkeyPatch, least: int) -> None:
    monkeypatch.setattr(columns, "_LEAST_PART", least)
    monkeypatch.setattr(columns, "_STEP", 13)
    random_ = np.random.default_rng(least)
    for count in (0, 1, 150):
        keys = random_.integers(0, 40, count).astype(np.uint64)
        values = set(keys.tolist())
        assert count_distinct(keys) == len(values)
        numbers = numbered(keys)
        assert set(numbers.tolist()) == set(range(len(values)))
        assert len(set(zip(keys.tolist(), numbers.tolist(), strict=True))) == len(values)
        runs = {int(keys[run[0]]): run.tolist() for run in equal_runs(keys)}
        assert runs == {v: m for v in values if len(m := np.flatnonzero(keys == v).tolist()) > 1}


def _words(folder: Path, counts: list[int], seed: int) -> Words:
    flat = np.random.default_rng(seed).integers(0, 300, sum(counts)).astype(np.uint32)
    (folder / "words").write_bytes(flat.tobytes())
    return Words(folder / "words", np.array(counts, dtype=np.uint32))


def test_words_are_found_in_every_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_BLOCK", 4)
    monkeypatch.setattr(duplicates, "_CHUNK", 10)
    counts = [3, 0, 5, 1, 2, 30, 0, 0, 4]
    words, ends = _words(tmp_path, counts, 0), np.cumsum(counts)
    flat = np.fromfile(tmp_path / "words", dtype=np.uint32)
    expected = [flat[end - count : end].tolist() for count, end in zip(counts, ends, strict=True)]
    assert [words[row].tolist() for row in range(9)] == expected
    rows = np.array([8, 5, 0, 5])
    together, owner = words.many(rows)
    assert together.tolist() == [word for row in rows for word in expected[row]]
    assert owner.tolist() == [0] * 4 + [1] * 30 + [2] * 3 + [3] * 30
    chunks = list(words.chunks(np.arange(9)))
    assert [row for chunk in chunks for row in range(9)[chunk]] == list(range(9)) and len(chunks) > 2
    assert not list(words.chunks(np.arange(0)))


@pytest.mark.parametrize("prompts", [["", "", ""], ["say aaaa", "say bbbb", "say cccc"]])
def test_routing_is_the_same_in_small_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompts: list[str]
) -> None:
    random_ = np.random.default_rng(4)
    counts = random_.integers(1, 60, 200).tolist()
    logged = random_.integers(0, 3, 200).astype(np.uint16)
    flat = random_.integers(0, 300, sum(counts)).astype(np.uint32)
    owner = np.repeat(logged, counts)
    usual = random_.random(len(flat)) < 0.2
    own = np.concatenate(routing._own_words(prompts)) if prompts[0] else np.array([301, 302, 303], dtype=np.uint32)
    flat[usual] = own[owner[usual]]
    (tmp_path / "words").write_bytes(flat.tobytes())
    words, rows = Words(tmp_path / "words", np.array(counts, dtype=np.uint32)), np.arange(200)
    whole = routing.check_routing(logged, rows, words, prompts)
    monkeypatch.setattr(duplicates, "_CHUNK", 50)
    parts = routing.check_routing(logged, rows, words, prompts)
    assert whole.note is None and whole.found
    for name in ("method", "agreement", "guessing", "found", "note"):
        assert getattr(whole, name) == getattr(parts, name)
    assert (whole.flagged == parts.flagged).all() and (whole.looks_like == parts.looks_like).all()


def test_repeats_are_those_of_unique() -> None:
    keys = np.random.default_rng(5).integers(0, 50, 1000)
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    assert routing._repeats(keys).tolist() == counts[inverse].tolist()
