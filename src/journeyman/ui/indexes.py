"""Keeps the indexes of the files that were looked at last, each as long as its files stay the same."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """A few values by key, each with the state of what it was made from. Two requests never make the same one."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[Hashable, tuple[Hashable, T]] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, state: Hashable, make: Callable[[], T]) -> T:
        """The value of this key and state, made if it is not there."""
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                kept = self._values.get(key)
                if kept is not None and kept[0] == state:
                    self._values.move_to_end(key)
                    return kept[1]
            made = make()
            with self._lock:
                self._values[key] = (state, made)
                self._values.move_to_end(key)
                while len(self._values) > self._most:
                    self._making.pop(self._values.popitem(last=False)[0], None)
            return made
