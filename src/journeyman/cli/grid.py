"""Tables that stay readable: a grid if the terminal is wide enough, otherwise "name: value" lines for each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from journeyman.cli.say import PlainConsole, say_on
from journeyman.foreign import plain

_LEAST_WRAPPED = 20
"""The least width, in cells, at which a column's wrapped text is readable."""


@dataclass(frozen=True)
class Column:
    """A column of a table. `wraps`: its texts are long and may take several lines."""

    name: str
    wraps: bool = False
    right: bool = False


def print_grid(
    console: PlainConsole, title: str, columns: Sequence[Column], rows: Sequence[Sequence[str | Text]]
) -> None:
    """Prints a table, or blocks if columns would be cut off; no cell's text can start a line of its own."""
    rows = [[plain(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    if _needed(columns, rows) > console.width:
        _print_blocks(console, title, columns, rows)
        return
    table = Table(title=title, title_justify="left")
    for column in columns:
        justify: JustifyMethod = "right" if column.right else "left"
        table.add_column(plain(column.name), no_wrap=not column.wraps, overflow="fold", justify=justify)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _needed(columns: Sequence[Column], rows: Sequence[Sequence[str | Text]]) -> int:
    """The smallest width, borders included, in which no cell is cut off or squeezed."""
    width = 1
    for place, column in enumerate(columns):
        widest = max(cell_len(str(text)) for text in (column.name, *(row[place] for row in rows)))
        width += 3 + (min(widest, _LEAST_WRAPPED) if column.wraps else widest)
    return width


def _print_blocks(
    console: PlainConsole, title: str, columns: Sequence[Column], rows: Sequence[Sequence[str | Text]]
) -> None:
    say_on(console, title)
    for row in rows:
        first, *others = row
        console.print(first, overflow="fold")
        for column, value in zip(columns[1:], others, strict=True):
            text = Text(f"{plain(column.name)}: ").append(value)
            for line in text.wrap(console, max(1, console.width - 2), overflow="fold"):
                line.rstrip()
                console.print(Text("  ").append_text(line))
