"""The two passes over the rows: worker processes examine them, and this process stores the results.

Each pass resumes after its last commit. Between the passes, selection.py decides from the columns which rows stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from journeyman.append_log import AppendLogs
from journeyman.config import CurateConfig
from journeyman.curation.columns import Names
from journeyman.curation.duplicates import BANDS
from journeyman.curation.examine import Examined, Examiner, examine
from journeyman.curation.log import Log
from journeyman.curation.render import KEPT, ChosenBatch, RenderWorker, render
from journeyman.curation.row_batches import RowBatches
from journeyman.curation.rules import CheckFault
from journeyman.curation.selection import DECISIONS, Choice, Ruling, ruling
from journeyman.errors import Interrupted
from journeyman.manifests import RolePrompt
from journeyman.models.base import Vocabulary
from journeyman.parallel import HERE, LOCAL, Executor
from journeyman.protocols import Reporter

BAND_FILES = [f"band-{number:02}.u4" for number in range(BANDS)]
_WORTH_WORKERS = 8 << 20
"""Compressed bytes of interactions from which worker processes are worth starting."""
_MOST_PROMPTS, _MOST_VERSIONS, _MOST_IDS = 2_000, 50, 200
Counts = dict[str, Counter[tuple[str, str]]]
"""Number of rows: "dropped" or "noted" → (rule, role) → rows."""


def first_pass(
    interactions: Path,
    config: CurateConfig,
    base: Vocabulary,
    scratch: Path,
    reporter: Reporter,
    check_fault: CheckFault | None = None,
    executor: Executor = LOCAL,
) -> dict[str, Any]:
    """Examines each row on its own; returns the tables that belong to the columns."""
    size = interactions.stat().st_size
    reporter.begin("curate: look", size, "bytes")
    names = ["rows", "words.u4", "dropped-1.jsonl", "noted-1.jsonl", *BAND_FILES]
    empty = {
        "rows": 0,
        "done": False,
        "roles": [],
        "teachers": [],
        "files": [],
        "prompts": {},
        "tools": {},
        "ids": {},
        "noted": [],
    }
    with AppendLogs(scratch, names, ".first.json") as outputs:
        state: dict[str, Any] = outputs.state or empty
        if state["done"]:
            return state
        tables = {name: Names(state[name]) for name in ("roles", "teachers", "files")}
        noted = Counter({(rule, role): n for rule, role, n in state["noted"]})
        batches = RowBatches(interactions, state["rows"])
        setup = partial(Examiner, base, config, check_fault)
        workers = executor if size > _WORTH_WORKERS else HERE
        for made in workers.map_batches(examine, setup, batches, stopping=lambda: reporter.stop_requested):
            _store(made, tables, outputs)
            noted.update(made.noted)
            _merge(state, made)
            state |= {name: table.names for name, table in tables.items()}
            state["rows"] += len(made.rows)
            reporter.advance(batches.read)
            if outputs.commit_due or reporter.stop_requested:
                outputs.commit(state | {"noted": _listed(noted)})
            if reporter.stop_requested:
                raise Interrupted(f"stopped after examining {state['rows']} rows", "Run the command again to resume")
        state = {**state, "noted": _listed(noted), "done": True}
        outputs.commit(state)
    return state


def _listed(counts: Counter[tuple[str, str]]) -> list[tuple[str, str, int]]:
    return [(rule, role, count) for (rule, role), count in counts.items()]


def _store(made: Examined, tables: Mapping[str, Names], outputs: AppendLogs) -> None:
    for column, table in (("role", "roles"), ("teacher", "teachers"), ("file", "files")):
        made.rows[column] = tables[table].translated(made.rows[column], getattr(made, table))
    outputs.write("rows", made.rows.tobytes())
    outputs.write("words.u4", made.words.tobytes())
    for number, name in enumerate(BAND_FILES):
        outputs.write(name, made.bands[:, number].tobytes())
    for name, data in made.findings.items():
        outputs.write(f"{name}-1.jsonl", data)


def _merge(state: dict[str, Any], made: Examined) -> None:
    for hashed, prompt in made.prompts.items():
        if len(state["prompts"]) < _MOST_PROMPTS:
            state["prompts"].setdefault(str(hashed), prompt)
    for path, values in made.ids.items():
        kept = state["ids"].setdefault(path, {})
        for value, count in values.items():
            if value in kept or len(kept) < _MOST_IDS:
                kept[value] = kept.get(value, 0) + count
    for name, versions in made.tools.items():
        known = state["tools"].setdefault(name, {})
        for key, (schema, count, start, end) in versions.items():
            if key in known:
                old = known[key]
                known[key] = [schema, old[1] + count, _earlier(old[2], start), _later(old[3], end)]
            elif len(known) < _MOST_VERSIONS:
                known[key] = [schema, count, _earlier(start, start), _later(end, end)]


def _earlier(a: float | None, b: float | None) -> float | None:
    return min((t for t in (a, b) if t is not None and t == t), default=None)


def _later(a: float | None, b: float | None) -> float | None:
    return max((t for t in (a, b) if t is not None and t == t), default=None)


def second_pass(
    interactions: Path,
    log: Log,
    choice: Choice,
    prompts: Mapping[str, RolePrompt],
    tools: Mapping[str, Any],
    config: CurateConfig,
    base: Vocabulary,
    scratch: Path,
    reporter: Reporter,
    executor: Executor = LOCAL,
) -> Counts:
    """Renders the remaining rows; returns the rows dropped and noted, by rule and role."""
    size = interactions.stat().st_size
    reporter.begin("curate: render", size, "bytes")
    names = ["examples.jsonl", "examples", "dropped-2.jsonl", "noted-2.jsonl"]
    with AppendLogs(scratch, names, ".second.json") as outputs:
        state = outputs.state or {"rows": 0, "dropped": [], "noted": []}
        counts: Counts = {k: Counter({(a, b): n for a, b, n in state[k]}) for k in ("dropped", "noted")}
        batches = RowBatches(interactions, state["rows"])
        done = _Done(state["rows"])
        setup = partial(RenderWorker, base, config, prompts, tools)
        workers = executor if size > _WORTH_WORKERS else HERE
        chosen = _chosen(batches, log, choice, done)
        for made in workers.map_batches(render, setup, chosen, named=_place, stopping=lambda: reporter.stop_requested):
            outputs.write("examples.jsonl", made.examples)
            outputs.write("examples", made.columns.tobytes())
            for name, data in made.findings.items():
                outputs.write(f"{name}-2.jsonl", data)
            counts["dropped"].update(made.dropped)
            counts["noted"].update(made.noted)
            rows = done.ends.pop(0)
            reporter.advance(batches.read)
            if outputs.commit_due or reporter.stop_requested:
                outputs.commit({"rows": rows, **{name: _listed(count) for name, count in counts.items()}})
            if reporter.stop_requested:
                raise Interrupted(f"stopped after rendering {rows} rows", "Run the command again to resume")
        outputs.commit({"rows": len(log.rows), **{name: _listed(count) for name, count in counts.items()}})
    return counts


def _place(batch: ChosenBatch) -> str:
    return f"rows {batch.first + 1} to {batch.first + batch.count} of the interactions"


class _Done:
    """Rows read up to the end of each batch in progress."""

    def __init__(self, start: int) -> None:
        self.row = start
        self.ends: list[int] = []


def _chosen(batches: RowBatches, log: Log, choice: Choice, done: _Done) -> Iterator[ChosenBatch]:
    """The rows of each batch that the first pass kept, with the decisions about them."""
    for batch in batches:
        first, count = done.row, batch.count()
        here = slice(first, first + count)
        assert here.stop <= len(log.rows), "the interactions have more rows than the first pass saw"
        rows = first + np.flatnonzero(log.rows["rule"][here] == 0)
        kept = np.empty(len(rows), dtype=KEPT)
        kept["row"], kept["group"], kept["weight"] = rows, choice.groups[rows], choice.weights[rows]
        kept["ends"], kept["output_tokens"] = (
            ~log.rows["cut"][rows],
            log.rows["output_tokens"][rows].astype(np.int64) - 1,
        )
        dropped = {
            row: ruling(DECISIONS[choice.rule[row]], log, int(choice.about[row]))
            for row in rows[choice.rule[rows] != 0].tolist()
        }
        noted: dict[int, list[Ruling]] = {}
        for rule, about in choice.noted.items():
            for row in rows[about[rows] >= 0].tolist():
                noted.setdefault(row, []).append(ruling(rule, log, int(about[row])))
        done.row += count
        done.ends.append(done.row)
        yield ChosenBatch(batch, first, count, kept, dropped, noted)
