"""What a training run computes, known before it begins: the groups of packs of its steps, and its validations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from journeyman.config import TrainConfig
from journeyman.rendering.rendered_rows import RenderedRows
from journeyman.sizing.step_time import Work
from journeyman.training.batches import Pack, group_size, pack, rows_of_step, steps_per_epoch
from journeyman.training.captured import size_class
from journeyman.training.loop import validations_of_epoch

_MOST_ROWS, _LEAST_STEPS = 2000, 16
"""Rows that are packed to know the packs of all steps; of longer runs, evenly spaced steps stand for all."""


@dataclass(frozen=True)
class Epoch:
    """The groups of an epoch's steps.

    Attributes:
        steps: optimizer steps.
        groups: of all steps, or of some that stand for all.
        share: of the epoch's row tokens that are in these groups.
        validations: that are made in this epoch.
    """

    steps: int
    groups: Sequence[Sequence[Pack]]
    share: float
    validations: int


@dataclass(frozen=True)
class Schedule:
    """A training run of one adapter.

    Attributes:
        validation: the packs of each validation.
        validation_share: of the validation rows' tokens that are in these packs.
        largest: the groups of steps that may need most memory, if no epoch above has them.
    """

    epochs: Sequence[Epoch]
    validation: Sequence[Pack]
    validation_share: float = 1.0
    classes: frozenset[tuple[int, int, int]] = field(default=frozenset())
    largest: Sequence[Sequence[Pack]] = ()


def schedule_of(
    train: RenderedRows, val: RenderedRows, config: TrainConfig, pack_tokens: int, group_tokens: int,
    *, classes: bool = False,
) -> Schedule:  # fmt: skip
    """The schedule that loop.Trainer follows with the same arguments.

    Args:
        classes: also find captured.size_class of all packs.
    """
    per_epoch = steps_per_epoch(len(train), config.rows_per_step)
    total = per_epoch * config.epochs
    count = min(total, max(_LEAST_STEPS, _MOST_ROWS // config.rows_per_step))
    chosen: dict[int, list[int]] = defaultdict(list)
    for step in sorted({place * total // count for place in range(count)}):
        chosen[step // per_epoch].append(step)
    lengths = train.lengths
    tokens = sum(lengths)
    found: set[tuple[int, int, int]] = set()
    epochs = []
    for epoch in range(config.epochs):
        groups, taken = [], 0
        for step in chosen.get(epoch, ()):
            numbers = rows_of_step(step, len(train), config.rows_per_step, config.seed)
            packs = pack([train[number] for number in numbers], pack_tokens)
            taken += sum(lengths[number] for number in numbers)
            found |= {size_class(one) for one in packs} if classes else set()
            groups += in_groups(packs, group_tokens)
        validations = validations_of_epoch(epoch, config.epochs, per_epoch)
        epochs.append(Epoch(per_epoch, groups, taken / tokens, validations))
    every = slice(None, None, max(1, len(val) // _MOST_ROWS))
    share = sum(val.lengths[every]) / sum(val.lengths) if len(val) else 1.0
    largest: list[list[Pack]] = []
    for step in sorted(_largest_steps(lengths, config) - set(chosen.get(0, ()))):
        numbers = rows_of_step(step, len(train), config.rows_per_step, config.seed)
        largest += in_groups(pack([train[number] for number in numbers], pack_tokens), group_tokens)
    return Schedule(epochs, pack(val[every], pack_tokens), share, frozenset(found), largest)


def groups_of(schedules: Sequence[Schedule]) -> list[Sequence[Pack]]:
    """The packs of training that are passed to the engine at once."""
    every = [group for one in schedules for epoch in one.epochs for group in epoch.groups]
    return [*every, *(group for one in schedules for group in one.largest)]


def packs_of(schedules: Sequence[Schedule]) -> int:
    """How many packs all steps of all adapters have, about."""
    epochs = [epoch for one in schedules for epoch in one.epochs if epoch.share]
    return round(sum(sum(map(len, epoch.groups)) / epoch.share for epoch in epochs))


def _largest_steps(lengths: Sequence[int], config: TrainConfig) -> set[int]:
    """Of the first epoch: the step with the longest row, and the one whose rows have most tokens."""
    rows, size = len(lengths), config.rows_per_step
    order = rows_of_step(0, rows, rows, config.seed)  # one step of all rows: their order in the epoch
    steps = [[lengths[number] for number in order[place : place + size]] for place in range(0, rows, size)]
    longest, most = [max(one) for one in steps], [sum(one) for one in steps]
    return {longest.index(max(longest)), most.index(max(most))}


def in_groups(packs: Sequence[Pack], group_tokens: int) -> list[list[Pack]]:
    """The packs of a step as the loop passes them to the engine."""
    groups, left = [], list(packs)
    while left:
        size = group_size(left, group_tokens)
        groups.append(left[:size])
        left = left[size:]
    return groups


def work_of(packs: Sequence[Pack]) -> Work:
    """What the engine computes for packs."""
    return Work(
        packs=len(packs),
        tokens=sum(len(one.ids_T) for one in packs),
        pairs=sum(_pairs(one) for one in packs),
        labels=sum(len(one.labels_L) for one in packs),
    )


def _pairs(one: Pack) -> int:
    begins = [one.lengths[prefix] if prefix >= 0 else 0 for prefix in one.prefixes]
    return sum(length * (length + 1) // 2 + length * begin for length, begin in zip(one.lengths, begins, strict=True))
