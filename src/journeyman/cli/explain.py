"""`journeyman ingest --explain FILE`: how one row of a file is read, and what each of its fields becomes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from journeyman.cli.grid import Column, print_grid
from journeyman.cli.say import result_console, say
from journeyman.config import CONFIG_NAME, DataConfig, load_config
from journeyman.errors import UsageError
from journeyman.foreign import plain
from journeyman.records import Interaction, Rejected
from journeyman.sources.explain import NOT_KEPT, explained
from journeyman.sources.files import Row, read_file
from journeyman.sources.reader import FORMATS, Reader

_SHOWN = 48


def print_explanation(folder: Path, file: Path, line: int, settings: Sequence[str]) -> None:
    """Reads with the run's [data] settings if the folder has a config file, otherwise with the defaults.

    Raises:
        UsageError: the file has no such row.
    """
    has_config = (folder / CONFIG_NAME).is_file()
    data = load_config(folder / CONFIG_NAME, list(settings)).data if has_config else DataConfig()
    row = _row(file, line, data)
    reader = Reader(data)
    records = reader.records(row, file.name)
    if row.session is not None:
        say(f"{file}: one session, read as {row.session}")
        for number, one in enumerate(records):
            say(f"[{number}] {one.source if isinstance(one, Interaction) else one.line}: {_outcome(one)}")
        return
    say(f"{file}, row {row.line}: {_format(reader, row)}")
    for number, one in enumerate(records):
        say(f"[{number}] {_outcome(one)}")
    if row.value is None:
        return
    fields = explained(row.value, records)
    columns = [Column(name, wraps=True) for name in ("field", "value", "became")]
    rows = [[plain(one.path, 60), plain(str(one.value), _SHOWN), plain(one.where, 60)] for one in fields]
    print_grid(result_console(), "what each field became", columns, rows)
    lost = sum(one.where == NOT_KEPT for one in fields)
    say(f"{lost} fields are not kept" if lost else "every field is kept")


def _row(file: Path, line: int, data: DataConfig) -> Row:
    last = 0
    for row, _ in read_file(file, 0, data.encoding):
        last = row.line
        if row.line >= line:
            return row if row.session is not None else row.parsed()
    raise UsageError(f"{file}: no row {line}; the last one is {last}", "Choose another one with --line")


def _format(reader: Reader, row: Row) -> str:
    if row.value is None:
        return "not a JSON object"
    claims = [name for name, one in FORMATS.items() if one.claims(row.value)]
    chosen = reader.format_of(row.value)
    if chosen is None:
        return "not recognized as any format"
    others = [name for name in claims if name != chosen]
    return f"read as {chosen}" + (
        f", which takes precedence over {', '.join(others)}" if others else ", the only match"
    )


def _outcome(one: Interaction | Rejected) -> str:
    if isinstance(one, Rejected):
        return f"rejected: {plain(one.reason.sentence(), 400)}"
    ended = {True: "success", False: "failure", None: "success not logged"}[one.succeeded]
    calls = f", calls {', '.join(call.name for call in one.output_calls)}" if one.output_calls else ""
    answer = f"answer of {len(one.output)} characters" if one.output else "no text"
    notes = "".join(f"; note: {note.sentence()}" for note in one.notes)
    return plain(f"role {one.role}, {len(one.messages)} turns, {answer}{calls}, {ended}{notes}", 300)
