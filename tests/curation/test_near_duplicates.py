"""Near-duplicates and the leak check equal those of one pair after the other, with every executor and batch size."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from journeyman.curation import columns, comparing, duplicates, near_duplicates, near_neighbours
from journeyman.curation.clusters import Clusters
from journeyman.curation.columns import U8, Indices
from journeyman.curation.duplicates import Words, bands_of, jaccard, trigrams, trigrams_of_many, words_of
from journeyman.curation.leak_check import _merge
from journeyman.curation.near_duplicates import join_near
from journeyman.curation.similar_pairs import jaccard_of_pairs, pairs_with_words
from journeyman.errors import Interrupted
from journeyman.parallel import HERE, Executor, LocalProcesses
from journeyman.protocols import SilentReporter

THRESHOLD = 0.7


class OneByOne:
    """Union-find of single items."""

    def __init__(self, count: int) -> None:
        self.parent = list(range(count))

    def find(self, item: int) -> int:
        while self.parent[item] != item:
            item = self.parent[item]
        return item

    def join(self, left: int, right: int) -> None:
        a, b = self.find(left), self.find(right)
        self.parent[max(a, b)] = min(a, b)

    def roots(self) -> list[int]:
        return [self.find(item) for item in range(len(self.parent))]


def joined_one_by_one(
    clusters: OneByOne, rows: Indices, bands: list[Path], words: Words, own: U8, look_back: int = 3
) -> None:
    """Band by band, one pair after the other, without those that are in one cluster already."""
    for path in bands:
        keys = np.fromfile(path, dtype=np.uint32)[rows]
        order = np.argsort(keys, kind="stable")
        for back in range(1, look_back + 1):
            same = np.flatnonzero(keys[order[back:]] == keys[order[:-back]])
            for left, right in zip(rows[order[same]].tolist(), rows[order[same + back]].tolist(), strict=True):
                if own[left] != own[right] or clusters.find(left) == clusters.find(right):
                    continue
                if jaccard(trigrams(words[left]), trigrams(words[right])) >= THRESHOLD:
                    clusters.join(left, right)


class Rows:
    """Random texts: families of versions of one text, runs of a template, short and empty ones, and long ones."""

    def __init__(self, folder: Path, seed: int, count: int = 700) -> None:
        random_ = random.Random(seed)
        vocabulary = [f"word{n}" for n in range(200)]
        texts: list[str] = ["", "one", "one two", "two one", "one two three"]
        while len(texts) < count:
            text = random_.choices(vocabulary, k=random_.choice([4, 15, 40, 40, 80, 300]))
            texts.append(" ".join(text))
            for _ in range(random_.choice([0, 0, 1, 2, 30])):
                text = list(text) if random_.random() < 0.5 else text  # a new branch, or drifting away
                for _ in range(random_.randint(1, 3)):
                    text[random_.randrange(len(text))] = random_.choice(vocabulary)
                texts.append(" ".join(text))
        random_.shuffle(texts)
        del texts[count:]
        found = [words_of(text) for text in texts]
        (folder / "words").write_bytes(np.concatenate(found).tobytes())
        self.words = Words(folder / "words", np.array([len(one) for one in found], dtype=np.uint32))
        bands = bands_of(found)
        self.bands = [folder / f"band{number}" for number in range(bands.shape[1])]
        for number, path in enumerate(self.bands):
            path.write_bytes(bands[:, number].tobytes())
        self.own = np.array([random_.choice([0, 0, 0, 5]) for _ in texts], dtype=np.uint64)
        self.distinct = np.array([random_.random() < 0.9 for _ in texts])

    def expected(self) -> list[int]:
        clusters = OneByOne(len(self.distinct))
        joined_one_by_one(clusters, np.flatnonzero(self.distinct), self.bands, self.words, self.own)
        return clusters.roots()

    def found(self, executor: Executor) -> list[int]:
        clusters = Clusters(len(self.distinct))
        join_near(clusters, self.distinct, self.bands, self.words, THRESHOLD, self.own, executor)
        made: list[int] = clusters.roots().tolist()
        return made


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many parts and batches, all for the executor."""
    monkeypatch.setattr(comparing, "_WORTH_WORKERS", 0)
    monkeypatch.setattr(columns, "_LEAST_PART", 100)
    monkeypatch.setattr(near_duplicates, "_STEP", 64)
    monkeypatch.setattr(near_duplicates, "_LOOK", 40)
    monkeypatch.setattr(near_duplicates, "_MOST_PAIRS", 30)
    monkeypatch.setattr(near_duplicates, "_MOST_WORDS", 2000)
    monkeypatch.setattr(duplicates, "_CHUNK", 500)


@pytest.mark.parametrize("seed", range(4))
def test_clusters_equal_those_of_one_pair_after_the_other(tmp_path: Path, seed: int) -> None:
    rows = Rows(tmp_path, seed)
    expected = rows.expected()
    assert len(set(expected)) < 0.8 * len(expected)
    assert rows.found(HERE) == expected


@pytest.mark.parametrize("seed", range(4))
def test_parts_and_batches_change_nothing(tmp_path: Path, seed: int, small: None) -> None:
    rows = Rows(tmp_path, seed)
    assert rows.found(HERE) == rows.expected()


class Late:
    """An Executor that reads all batches before it gives the first result, like one with very many workers."""

    def map_batches(self, function, setup, batches, **more) -> Iterator:  # type: ignore[no-untyped-def,type-arg]
        state = setup()
        for batch in list(batches):
            yield function(state, batch)


def test_results_that_come_late_change_nothing(tmp_path: Path, small: None) -> None:
    rows = Rows(tmp_path, 5)
    assert rows.found(Late()) == rows.expected()


def test_a_pair_that_was_forgotten_is_compared_again(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_duplicates, "_REMEMBERED_BITS", 3)
    rows = Rows(tmp_path, 6)
    assert rows.found(HERE) == rows.expected()


@pytest.mark.slow
def test_workers_change_nothing(tmp_path: Path, small: None) -> None:
    rows = Rows(tmp_path, 7)
    assert rows.found(LocalProcesses(2)) == rows.expected()
    tested, others = np.arange(0, 700, 9), np.flatnonzero(np.arange(700) % 9)
    here = near_neighbours.near_neighbours(tested, others, rows.words, THRESHOLD, HERE)
    assert here and here == near_neighbours.near_neighbours(tested, others, rows.words, THRESHOLD, LocalProcesses(2))


def test_similarities_of_a_batch_are_those_of_each_pair(tmp_path: Path) -> None:
    rows, random_ = Rows(tmp_path, 8), np.random.default_rng(8)
    left, right = random_.integers(0, 700, (2, 3000))
    made = jaccard_of_pairs(pairs_with_words(left, right, rows.words))
    expected = [
        jaccard(trigrams(rows.words[a]), trigrams(rows.words[b]))
        for a, b in zip(left.tolist(), right.tolist(), strict=True)
    ]
    assert made.tolist() == expected


def test_trigrams_of_many_texts_are_those_of_each(tmp_path: Path) -> None:
    rows = Rows(tmp_path, 9)
    for chosen in ([0], [3, 1, 3], list(range(700)), np.flatnonzero(rows.words.counts(np.arange(700)) < 4).tolist()):
        flat, counts = rows.words.of(np.array(chosen))
        grams, made = trigrams_of_many(flat, counts)
        assert grams.tolist() == np.concatenate([trigrams(rows.words[row]) for row in chosen]).tolist()
        assert made.tolist() == [len(trigrams(rows.words[row])) for row in chosen]


@pytest.mark.parametrize("chunk", [50, 20_000])
def test_neighbours_equal_brute_force_in_the_order_of_chunks(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(near_neighbours, "_CHUNK", chunk)
    rows = Rows(tmp_path, 10)
    tested, others = np.arange(0, 700, 5), np.flatnonzero(np.arange(700) % 5)
    sets = {row: trigrams(rows.words[row]) for row in range(700)}
    expected = [
        (row, other)
        for start in range(0, len(others), chunk)
        for row in tested.tolist()
        for other in others[start : start + chunk].tolist()
        if rows.words.counts(np.array([other]))[0] > 2 and jaccard(sets[row], sets[other]) >= THRESHOLD
    ]
    assert len(expected) > 20
    assert near_neighbours.near_neighbours(tested, others, rows.words, THRESHOLD) == expected


def test_clusters_of_random_pairs() -> None:
    random_ = np.random.default_rng(0)
    for links in (0, 1, 20, 60, 300):
        pairs = random_.integers(0, 100, (2, links))
        expected, made = OneByOne(100), Clusters(100)
        for left, right in pairs.T.tolist():
            expected.join(left, right)
        for some in np.array_split(pairs, 3, axis=1):
            made.join(*some)
        assert made.of(np.arange(100)).tolist() == made.roots().tolist() == expected.roots()


def test_clusters_of_equal_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "_LEAST_PART", 16)
    monkeypatch.setattr(columns, "_STEP", 10)
    random_ = np.random.default_rng(1)
    keys, rows = random_.integers(0, 30, 200).astype(np.uint64), random_.permutation(300)[:200]
    expected, made = OneByOne(300), Clusters(300)
    for key in range(1, 30):
        mine = rows[keys == key].tolist()
        for one in mine[1:]:
            expected.join(mine[0], one)
    made.join_equal(keys, rows)
    assert made.roots().tolist() == expected.roots()


def test_long_chains_are_followed() -> None:
    for order in (np.arange(5000), np.arange(5000)[::-1], np.random.default_rng(2).permutation(5000)):
        clusters = Clusters(5001)
        for some in np.array_split(order, 7):
            clusters.join(some, some + 1)
        assert not clusters.roots().any()


def test_merged_groups_are_named_pair_after_pair() -> None:
    random_ = np.random.default_rng(3)
    for _ in range(50):
        groups = random_.integers(0, 12, 40).astype(np.int32) * 3
        pairs = random_.integers(0, 40, (random_.integers(1, 12), 2))
        expected = groups.copy()
        for first, second in pairs.tolist():
            expected[expected == expected[second]] = expected[first]
        _merge(groups, pairs)
        assert groups.tolist() == expected.tolist()


class Stops(SilentReporter):
    """Asks to stop at the first report of progress."""

    stop_requested = False

    def advance(self, done: float, note: str = "") -> None:
        self.stop_requested = True


def test_a_request_to_stop_is_heard(tmp_path: Path, small: None) -> None:
    rows, clusters = Rows(tmp_path, 11), Clusters(700)
    with pytest.raises(Interrupted):
        join_near(clusters, rows.distinct, rows.bands, rows.words, THRESHOLD, None, HERE, Stops())
    with pytest.raises(Interrupted):
        near_neighbours.near_neighbours(np.arange(9), np.arange(9, 700), rows.words, THRESHOLD, HERE, Stops())
