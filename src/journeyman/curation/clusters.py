"""Sets of rows that are linked directly or through others (union-find), in four bytes a row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from journeyman.curation.columns import U8, Flags, Indices, sorted_parts, values_at

_MOST_INT32 = 1 << 31


class Clusters:
    """Sets of items, each represented by its smallest item."""

    def __init__(self, count: int) -> None:
        self._parent: Indices = np.arange(count, dtype=np.int32 if count < _MOST_INT32 else np.int64)

    def join(self, left: NDArray[Any], right: NDArray[Any]) -> None:
        """Links the item `left[i]` with `right[i]`, for each i."""
        while len(left):
            a, b = self.of(left), self.of(right)
            apart = a != b
            left, right = np.minimum(a[apart], b[apart]), np.maximum(a[apart], b[apart])
            # Parents are smaller than their items, so there are no cycles. An item with several candidates takes the
            # smallest; the others are linked to that one in the next round.
            np.minimum.at(self._parent, right, left)

    def of(self, items: NDArray[Any]) -> Indices:
        """The smallest item of the cluster of each of `items`."""
        parent = self._parent
        while True:
            above = parent[items]
            top: Indices = parent[above]
            if np.array_equal(top, above):
                return top
            parent[items] = top  # shortens the paths, for this search and later ones

    def join_equal(self, keys: U8, rows: Indices) -> None:
        """Links the rows whose keys are equal.

        Args:
            keys: the key of each of `rows`; 0 means none.
        """
        for order, new in sorted_parts(keys):
            ordered = rows[order]
            again = np.flatnonzero(~new & (keys[order] != 0))
            first = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
            self.join(ordered[first[again]], ordered[again])

    def smallest(self) -> Flags:
        """Which items are the smallest of their cluster."""
        return np.asarray(self._parent == np.arange(len(self._parent), dtype=self._parent.dtype))

    def roots(self) -> Indices:
        """The smallest item of each item's cluster."""
        while True:
            above = values_at(self._parent, self._parent)
            if np.array_equal(above, self._parent):
                return above
            self._parent = above
