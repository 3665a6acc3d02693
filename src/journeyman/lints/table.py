"""START HERE: the table of lints, and what they say about a run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from journeyman.lints import adapter, base, batch, learning_rate, lengths, machine, roles, schedule, weights
from journeyman.lints import expectations as expected
from journeyman.lints.contracts import Found, Lint
from journeyman.lints.facts import Facts

LINTS: Sequence[Lint] = (
    base.other_families, base.chat_template,
    schedule.warm_up, schedule.checkpoints, schedule.validation, schedule.early_stopping,
    learning_rate.learning_rate, batch.batch, adapter.targets,
    weights.precision, weights.quantization,
    lengths.rows_too_long, lengths.context, lengths.answers, lengths.labels,
    roles.names, roles.too_few_to_train, roles.too_few_to_judge, roles.cannot_tell,
    machine.memory, machine.disk, machine.threads, machine.busy, machine.contended,
    expected.expectations,
)  # fmt: skip
"""In the order of the page."""


def findings(facts: Facts, allowed: Collection[str] = ()) -> list[Found]:
    """What all lints find, errors first.

    Args:
        allowed: codes of errors that the user accepts; they become warnings.
    """
    found = list(_found(facts, allowed))
    return [one for one in found if one.is_error] + [one for one in found if not one.is_error]


def _found(facts: Facts, allowed: Collection[str]) -> Iterator[Found]:
    for lint in LINTS:
        for one in lint(facts):
            yield replace(one, is_error=one.is_error and one.reason.code not in allowed)
