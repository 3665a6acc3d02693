"""Fields that say whether to train on a turn or a row, in every format.

`train`, `training`, `trainable`, `learn` and `loss` say yes or no; `weight` and `loss_weight` are 0 or 1; `loss_mask`
is 1 where the loss is computed (TRL, verl); `masked` and `ignore_loss` say no. Sources: OpenAI's fine-tuning guide,
Axolotl's and LLaMA-Factory's data documentation, TRL's dataset formats.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from journeyman.foreign import plain
from journeyman.reasons import sources as why
from journeyman.sources.fields import NotAnInteraction, kind

_YES = ("train", "training", "trainable", "learn", "loss", "weight", "loss_weight", "loss_mask", "train_on_turn")
_NO = ("masked", "ignore_loss", "skip_training", "exclude_from_training")
LEARN_FIELDS = frozenset((*_YES, *_NO))
_NESTED = ("metadata", "meta", "execution", "annotations")
ANSWER_FIELDS = ("output", "answer", "completion", "response", "reply", "target", "generation")
"""Fields for an answer that is separate from the conversation."""


def learned(fields: Mapping[str, Any], place: str) -> bool:
    """Whether to train on a turn or a row; True if it does not say.

    Raises:
        NotAnInteraction: the value of such a field means neither yes nor no; there is no guessing.
    """
    said: list[bool] = []
    if not LEARN_FIELDS.isdisjoint(fields):
        marks = [name for name in fields if name in LEARN_FIELDS and fields[name] not in (None, "")]
        said = [_truth(fields[name], f"{place}.{name}") == (name in _YES) for name in marks]
    for nested in _NESTED:
        inner = fields.get(nested)
        if isinstance(inner, Mapping) and not LEARN_FIELDS.isdisjoint(
            inner
        ):  # in these the name may mean something else: only a clear no counts
            said += [not _denies(name, inner[name]) for name in inner if name in LEARN_FIELDS]
    return all(said)


def _denies(name: str, value: Any) -> bool:
    try:
        return value not in (None, "") and _truth(value, name) != (name in _YES)
    except NotAnInteraction:
        return False


def refuse_marked(row: Mapping[str, Any]) -> None:
    """Raises NotAnInteraction if the row as a whole is marked not to be trained on."""
    if not learned(row, "the row"):
        marks = sorted(name for name in row if name in LEARN_FIELDS and row[name] not in (None, ""))
        raise NotAnInteraction(why.MarkedNotToTrain(", ".join(marks)))


def _truth(value: Any, place: str) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower() if isinstance(value, int | float | str) else ""
    if text in ("1", "1.0", "true", "yes"):
        return True
    if text in ("0", "0.0", "false", "no"):
        return False
    shown = plain(str(value), 40) if text else kind(value)
    raise NotAnInteraction(why.UnclearMark(place, shown))
