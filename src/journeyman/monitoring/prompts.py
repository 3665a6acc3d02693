"""What drift looks at in a prompt, and samples of prompts, one of each conversation.

System prompts are left out: a role's are one text, whose changes count as other prompts and not as other inputs.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from journeyman.curation.duplicates import signatures, words_of
from journeyman.records import tool_name
from journeyman.serving.messages import SYSTEM

_T = TypeVar("_T")


@dataclass(frozen=True)
class Prompt:
    """What is kept of a prompt.

    Attributes:
        length: in words.
        words: [n], the distinct words as hashes; see words_of for what a long prompt is cut to.
        signature: [hashes], MinHash of its word trigrams.
        tools: names of the offered tools.
    """

    length: int
    words: NDArray[np.uint32]
    signature: NDArray[np.uint32]
    tools: tuple[str, ...]


def prompt_of(turns: Iterable[Mapping[str, Any]], tools: Iterable[Mapping[str, Any]]) -> Prompt:
    """A prompt's features.

    Args:
        turns: with `role` and `content`, as text.
        tools: their definitions.
    """
    rest: list[str] = []
    for turn in turns:
        if rest or turn.get("role") not in SYSTEM:
            rest.append(str(turn.get("content") or ""))
    text = "\n".join(rest)
    words = words_of(text)
    # Half of each hash is enough: two of 128 places that agree by chance would be a rare event.
    signature = signatures([words])[0].astype(np.uint32)
    return Prompt(len(text.split()), np.unique(words), signature, tuple(sorted({tool_name(tool) for tool in tools})))


class Sample(Generic[_T]):
    """At most so many groups, drawn with equal chances, and one member of each, whatever their order and number.

    Kept are those with the smallest hashes, so the same data always gives the same sample.
    """

    def __init__(self, most: int, seed: int = 0) -> None:
        self._most, self._key = most, seed.to_bytes(8, "little", signed=True)
        self._kept: dict[int, tuple[int, _T]] = {}
        self._largest: list[int] = []
        self.groups = 0

    def wants(self, group: str, member: str) -> bool:
        """Whether `add` would keep it; to be asked before work is done for it."""
        place = self._hash(group)
        kept = self._kept.get(place)
        if kept is not None:
            return self._hash(member) < kept[0]
        return len(self._kept) < self._most or place < -self._largest[0]

    def add(self, group: str, member: str, value: _T) -> None:
        if not self.wants(group, member):
            return
        place = self._hash(group)
        if place not in self._kept:
            heapq.heappush(self._largest, -place)
        self._kept[place] = (self._hash(member), value)
        if len(self._kept) > self._most:
            del self._kept[-heapq.heappop(self._largest)]

    def values(self) -> list[_T]:
        """Those that are kept, in an order that does not depend on the data's."""
        return [self._kept[place][1] for place in sorted(self._kept)]

    def __len__(self) -> int:
        return len(self._kept)

    def _hash(self, text: str) -> int:
        data = text.encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(data, digest_size=8, key=self._key).digest(), "little")


def distinct(prompts: Sequence[Prompt], alike: float) -> list[Prompt]:
    """The first of each group of prompts that are alike, directly or through others of the group.

    `curate` keeps one of near-duplicates in the training. If a recorded template counted with every request, traffic
    would look different from a training that was made of it.

    Args:
        alike: the estimated Jaccard similarity of trigrams from which two prompts are.
    """
    if not prompts:
        return []
    kept: list[Prompt] = []
    rest, table = np.arange(len(prompts)), np.stack([one.signature for one in prompts])
    while len(rest):
        kept.append(prompts[rest[0]])
        group = [table[0]]
        rest, table = rest[1:], table[1:]
        while group:
            near = np.count_nonzero(table == group.pop(), axis=1) >= alike * table.shape[1]
            if near.any():
                group += list(table[near])
                rest, table = rest[~near], table[~near]
    return kept


def tool_sets(*samples: Sequence[Prompt]) -> list[list[int]]:
    """For each sample, how many prompts offer each set of tools."""
    places: dict[tuple[str, ...], int] = {}
    counted = [[places.setdefault(one.tools, len(places)) for one in sample] for sample in samples]
    return [np.bincount(one, minlength=len(places)).tolist() for one in counted]


def unseen(prompts: Sequence[Prompt], vocabulary: NDArray[np.uint32]) -> NDArray[np.float64]:
    """For each prompt, the share of its distinct words that are not in a vocabulary (sorted); without words, 0."""
    if not len(vocabulary):
        return np.array([float(len(one.words) > 0) for one in prompts])
    shares = []
    for one in prompts:
        places = np.searchsorted(vocabulary, one.words)
        inside = vocabulary[np.minimum(places, len(vocabulary) - 1)] == one.words
        shares.append(1.0 - float(inside.mean()) if len(one.words) else 0.0)
    return np.array(shares, dtype=np.float64)


def distances(prompts: Sequence[Prompt], others: Sequence[Prompt]) -> NDArray[np.float64]:
    """For each prompt, the estimated Jaccard distance of its trigrams to the nearest of the others."""
    table = np.stack([one.signature for one in others])
    equal = [int((table == one.signature).sum(axis=1).max()) for one in prompts]
    return np.asarray(1.0 - np.array(equal, dtype=np.float64) / table.shape[1])
