"""Rows damaged at random places, to test that every format reads or rejects them."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.just("{}") | st.just('[{"role":1}]'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def damage(value: Any, random_: random.Random, new: Any) -> Any:
    """The value with one element, at any depth, replaced, dropped or duplicated."""
    if isinstance(value, dict) and value and random_.random() < 0.85:
        key = random_.choice(list(value))
        if random_.random() < 0.15:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: damage(value[key], random_, new)}
    if isinstance(value, list) and value and random_.random() < 0.85:
        place = random_.randrange(len(value))
        return [*value[:place], damage(value[place], random_, new), *value[place + random_.randint(0, 1) :]]
    return new
