"""The settings that are searched, and the candidates: the default, its neighbours, and points of a Sobol sequence.

A dozen candidates are what most budgets allow. A method that learns from earlier ones, such as a tree of Parzen
estimators, begins with about as many random ones, so low discrepancy is what counts: torch's scrambled Sobol sequence
(Owen, 1998) covers every setting evenly from the first points on, and a larger budget continues the same sequence.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from journeyman.config import Section, TrainConfig
from journeyman.records import Example

Value = float | int | str | list[str]
Changes = Mapping[str, Value]
"""Key below [train] → value: what distinguishes a candidate from the run's own settings."""

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
EVERY_LAYER = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]
_FASTEST = 4.0
"""Learning rates lie between the default's divided by this, and multiplied by it."""
_ROLE_ROWS = 16
"""Training rows that every role needs for adapters by role to be tried."""


@dataclass(frozen=True)
class Dimension:
    """One setting.

    Attributes:
        key: below [train].
        value: a number from 0 to 1 → the setting.
    """

    key: str
    value: Callable[[float], Value]


def dimensions(default: TrainConfig, rows: Sequence[Example], *, one_adapter: bool = False) -> list[Dimension]:
    """The settings that exist for these training rows.

    Args:
        one_adapter: adapters by role are not possible.
    """

    def rate(place: float) -> float:
        return _rounded(default.learning_rate * _FASTEST ** (2 * place - 1))

    epochs, batch, rank = default.epochs, default.batch_size, default.lora.rank
    targets: list[Value] = [list(default.lora.targets)]
    targets += [one for one in (ATTENTION, EVERY_LAYER) if set(one) != set(default.lora.targets)]
    batches = [one for one in (max(1, batch // 2), batch, 2 * batch) if one * default.gradient_accumulation < len(rows)]
    found = [
        Dimension("learning_rate", rate),
        _choice("lora.rank", sorted({max(1, rank // 2), rank, min(512, 2 * rank), min(512, 4 * rank)})),
        _choice("lora.targets", targets),
        _choice("epochs", sorted({max(1, epochs // 2), epochs, 2 * epochs, 3 * epochs})),
        _choice("batch_size", sorted(set(batches) or {batch})),
    ]  # fmt: skip
    roles = Counter(row.role for row in rows)
    if len(roles) > 1 and min(roles.values()) >= _ROLE_ROWS and not one_adapter:
        found.append(_choice("adapters", ["shared", "per-role"]))
    whole = Counter(row.role for row in rows if row.ends)
    if any(not row.ends for row in rows) and whole.keys() == roles.keys():
        found.append(_choice("rows.cut_answers", ["keep", "drop"]))
    if len({row.weight for row in rows}) > 1:
        found.append(_choice("rows.weights", ["curated", "equal"]))
    return found


def not_searched(found: Sequence[Dimension]) -> list[str]:
    """What a search could try with other rows, and why it does not, for the user."""
    why = {
        "adapters": "there is one role, one has fewer than "
        f"{_ROLE_ROWS} training rows, or evaluate.merged needs one adapter",
        "rows.cut_answers": "no answer of the training rows is cut off, or a role would have none left",
        "rows.weights": "all training rows have the same weight",
    }
    keys = {one.key for one in found}
    lines = [f"{key}: {reason}" for key, reason in why.items() if key not in keys]
    return [*lines, "teachers: rows of a dataset do not say who answered; curate.teachers chooses, and splits anew"]


def candidates(default: TrainConfig, found: Sequence[Dimension], seed: int) -> Iterator[dict[str, Value]]:
    """Candidates in the order in which they are tried, without end: the default (no changes), neighbours, then points.

    Those that equal an earlier one are left out.
    """
    seen: set[str] = set()
    for changes in _every(default, found, seed):
        key = applied(default, changes).model_dump_json()
        if key not in seen:
            seen.add(key)
            yield changes


def applied(default: TrainConfig, changes: Changes) -> TrainConfig:
    """The settings of a candidate. The ratio of alpha and rank, by which updates are scaled, stays.

    Raises:
        ValueError: a change is not possible.
    """
    ratio, rank = default.lora.alpha / default.lora.rank, changes.get("lora.rank")
    every = dict(changes)
    if isinstance(rank, int) and rank != default.lora.rank:
        every.setdefault("lora.alpha", ratio * rank)
    made: Section = default
    for key, value in every.items():
        made = _changed(made, key.split("."), value)
    assert isinstance(made, TrainConfig)
    TrainConfig.model_validate(made.model_dump())
    return made


def _changed(section: Section, path: Sequence[str], value: Value) -> Section:
    """A copy with another value, in which all else is as it was: also which keys the user has set."""
    first, *rest = path
    return section.model_copy(update={first: _changed(getattr(section, first), rest, value) if rest else value})


def at_share(config: TrainConfig, share: float) -> TrainConfig:
    """The same for a share of the rows: the warm-up is the same part of the schedule."""
    return config.model_copy(update={"warmup_steps": round(config.warmup_steps * share)})


def _every(default: TrainConfig, found: Sequence[Dimension], seed: int) -> Iterator[dict[str, Value]]:
    yield {}
    rate, epochs, batch = default.learning_rate, default.epochs, default.batch_size
    yield {"learning_rate": _rounded(2 * rate)}
    yield {"epochs": 2 * epochs}
    yield {"learning_rate": _rounded(rate / 2)}
    if batch > 1:
        yield {"batch_size": max(1, batch // 2)}
    for point in _sobol(len(found), seed):
        values = {one.key: one.value(place) for one, place in zip(found, point, strict=True)}
        own = default.model_dump()
        yield {key: value for key, value in values.items() if _own(own, key) != value}


def _own(data: Mapping[str, object], key: str) -> object:
    found: object = data
    for part in key.split("."):
        assert isinstance(found, Mapping)
        found = found[part]
    return found


def _sobol(size: int, seed: int, most: int = 1024) -> Iterator[list[float]]:
    from torch.quasirandom import SobolEngine

    drawn = SobolEngine(size, scramble=True, seed=seed).draw(most)  # type: ignore[no-untyped-call]
    yield from drawn.tolist()


def _choice(key: str, values: Sequence[Value]) -> Dimension:
    return Dimension(key, lambda place: values[min(len(values) - 1, int(place * len(values)))])


def _rounded(number: float) -> float:
    """To two digits: more would pretend an accuracy that a search does not have."""
    return round(number, 1 - math.floor(math.log10(number)))
