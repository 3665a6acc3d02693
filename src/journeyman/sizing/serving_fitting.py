"""Finds the nearest configurations in which serving stays below its memory limit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from journeyman.models.sizes import Sizes
from journeyman.reasons import fitting as reasons
from journeyman.sizing.disk import bits_of_format
from journeyman.sizing.fitting import Change, Dimension, Option, Severity, nearest
from journeyman.sizing.memory import serving_bytes

_UNIT = 256
_COARSER = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")
_WRITTEN_HERE = "Q8_0"


@dataclass(frozen=True)
class Serving:
    """What is served.

    Attributes:
        file_bytes: of the smallest file that may ship.
        context: tokens of a request; `parallel` requests are answered at the same time.
        longest_row: tokens of the longest row, prompt and answer.
        folder: the base is a folder, of which files in other formats can be made here.
        quantizes: llama-quantize is there.
    """

    sizes: Sizes
    trainable: int
    file_bytes: int
    context: int
    parallel: int
    longest_row: int
    folder: bool = False
    quantizes: bool = False

    def bytes_with(self, options: Sequence[Option] = ()) -> int:
        """Memory of the engine."""
        changed = {key: value for one in options for key, value in one.settings.items()}
        context, parallel = (
            changed.get("evaluate.context", self.context),
            changed.get("evaluate.parallel", self.parallel),
        )
        (file,) = changed.get("evaluate.quantizations", [None])
        size = self.file_bytes if file is None else _file_bytes(self.sizes, file)
        return serving_bytes(size, self.sizes, self.trainable, context * parallel)


def nearest_servings(serving: Serving, limit: int) -> list[Change]:
    """The nearest configurations below `limit` bytes, the smallest change first."""
    dimensions = [
        Dimension(Severity.SERVICE, list(_fewer_at_once(serving))),
        Dimension(Severity.SERVICE, list(_contexts(serving))),
        Dimension(Severity.LESS, list(_coarser(serving))),
    ]
    return nearest(dimensions, lambda options: serving.bytes_with(options) <= limit)


def _fewer_at_once(serving: Serving) -> Iterator[Option]:
    count = serving.parallel // 2
    while count:
        yield Option({"evaluate.parallel": count}, reasons.FewerAtOnce(count, serving.parallel))
        count //= 2


def _contexts(serving: Serving) -> Iterator[Option]:
    """Shorter ones, down to that of the longest row."""
    least = -(-serving.longest_row // _UNIT) * _UNIT
    context = serving.context // 2 // _UNIT * _UNIT
    shorter = []
    while context > least:
        shorter.append(context)
        context = context // 2 // _UNIT * _UNIT
    for one in [*shorter, least] if least < serving.context else []:
        yield Option({"evaluate.context": one}, reasons.ShorterContext(one, serving.longest_row))


def _coarser(serving: Serving) -> Iterator[Option]:
    for kind in _COARSER if serving.folder else ():
        smaller = _file_bytes(serving.sizes, kind) < serving.file_bytes
        if smaller and (kind == _WRITTEN_HERE or serving.quantizes):
            yield Option({"evaluate.quantizations": [kind]}, reasons.CoarserFile(kind))


def _file_bytes(sizes: Sizes, kind: str) -> int:
    return int(bits_of_format(kind) * sizes.parameters / 8)
