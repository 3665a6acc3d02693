"""`journeyman show dataset --row N`: every token of a row, and whether it carries loss."""

from __future__ import annotations

from itertools import groupby, islice
from pathlib import Path

from rich.text import Text

from journeyman.artifacts import read_rows
from journeyman.cli.say import result_console
from journeyman.config import CONFIG_NAME, load_config
from journeyman.errors import UsageError
from journeyman.foreign import named, plain, plain_lines
from journeyman.records import Example
from journeyman.rendering.mask import Part, check_mask, parts
from journeyman.rendering.renderer import Renderer
from journeyman.runs import Run

_FILES = {"train": "train.jsonl", "val": "val.jsonl", "test": "sealed/test.jsonl"}
_STYLES: dict[Part, str] = {"prompt": "dim", "trained": "green", "terminator": "black on green"}
_MARKS: dict[Part, tuple[str, str]] = {"prompt": ("", ""), "trained": ("⟦", "⟧"), "terminator": ("⟪", "⟫")}


def print_row(folder: Path, stage: str, split: str, number: int) -> None:
    """Prints the row's tokens, colored by kind and with visible boundaries; in brackets if there is no color.

    Raises:
        UsageError: not the dataset, no such split, or no such row.
        InputError: the row's loss mask is wrong.
    """
    if stage != "curate":
        raise UsageError(f"--row shows a row of the dataset, not of {stage}", "Run: journeyman show dataset --row 1")
    if split not in _FILES:
        raise UsageError(f"--split {split!r}: unknown", f"One of: {', '.join(_FILES)}")
    run = Run(folder, load_config(folder / CONFIG_NAME))
    path = run.file("curate", _FILES[split])
    row = next(islice(read_rows(path, Example), max(0, number - 1), None), None) if number > 0 else None
    if row is None:
        raise UsageError(
            f"{path}: has no row {number}", "Rows are counted from 1; journeyman status shows how many there are"
        )
    console = result_console()
    console.print(_painted(row, run.renderer, color=console.is_terminal), soft_wrap=True)


def _painted(row: Example, renderer: Renderer, *, color: bool) -> Text:
    rendered = renderer.example(row)
    check_mask(row, rendered, renderer.end_ids)
    kinds = parts(rendered)
    counts = {kind: kinds.count(kind) for kind in _STYLES}
    text = Text(f"{plain(row.id)} ({named(row.role)}, {plain(row.group)}, weight {row.weight:g}): ")
    text.append(f"{counts['prompt']} prompt", _STYLES["prompt"]).append(", ")
    text.append(f"{counts['trained']} trained", _STYLES["trained"]).append(", ")
    text.append(f"{counts['terminator']} terminator", _STYLES["terminator"])
    text.append("\n" if row.ends else " (the answer is cut off: no terminator is trained)\n")
    for kind, run in groupby(zip(rendered.ids, kinds, strict=True), key=lambda pair: pair[1]):
        pieces = [plain_lines(renderer.decode([token])) for token, _ in run]
        if color:
            for index, piece in enumerate(pieces):
                # Every other token is underlined, so that the boundaries are visible.
                text.append(piece, f"{_STYLES[kind]}{' underline' if index % 2 else ''}")
        else:
            opening, closing = _MARKS[kind]
            text.append("".join(f"{opening}{piece}{closing}" for piece in pieces))
    return text
