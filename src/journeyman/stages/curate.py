"""curate: interactions → training, validation and sealed test rows; every row that goes has a rule and a record.

Two passes over the rows, each in worker processes and resumable; between them the columns decide. Memory grows
by about a hundred bytes a row, whatever the rows' length.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from journeyman.config import Config
from journeyman.curation.choose import Choice, Log, choose
from journeyman.curation.columns import ROW, Flags, Names, mapped_array
from journeyman.curation.duplicates import BANDS, Words
from journeyman.curation.examine import Examined, Examiner, examine
from journeyman.curation.lint import lint
from journeyman.curation.render import EXAMPLE, Chosen, RenderWorker, render
from journeyman.curation.separate import separate
from journeyman.curation.split import NAMES, TRAIN, Splits
from journeyman.errors import InputError, Interrupted
from journeyman.manifests import DatasetManifest
from journeyman.models.gguf_file import GgufFile
from journeyman.outputs import Outputs
from journeyman.parallel import mapped
from journeyman.ports import Reporter
from journeyman.rendering.renderer import Renderer

VERSION = 2
_BATCH_BYTES = 1 << 20
_WORTH_WORKERS = 8 << 20
"""Compressed bytes of interactions from which starting worker processes pays."""
_MOST_PROMPTS, _MOST_VERSIONS, _MOST_IDS = 2_000, 50, 200
_LEAST_VERSION = 0.05
_BANDS = [f"band-{number:02}.u4" for number in range(BANDS)]
_SPLIT_FILES = {"train": "train.jsonl", "val": "val.jsonl", "test": "sealed/test.jsonl"}


def curate(interactions: Path, config: Config, base: GgufFile, out: Path, reporter: Reporter) -> DatasetManifest:
    """Filters, removes repeats, renders and splits.

    Raises:
        InputError: nothing is left to train on, or a test task is found in train.
        Interrupted: asked to stop; the same call goes on.
    """
    scratch = out / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    state = _first_pass(interactions, config, base, scratch, reporter)
    rows = mapped_array(scratch / "rows", ROW)
    words = Words(scratch / "words.u4", np.asarray(rows["words"]))
    log = Log(rows, words, state["roles"], state["files"], {int(k): v for k, v in state["prompts"].items()})
    reporter.begin("compare rows", 1, "log")
    choice = choose(log, [scratch / name for name in _BANDS], config.curate)
    prompts = _system_prompts(log, choice, config)
    counts = _second_pass(interactions, log, choice, prompts, _drifted(state["tools"]), config, base, scratch, reporter)
    examples = mapped_array(scratch / "examples", EXAMPLE)
    if not len(examples):
        counted = ", ".join(f"{rule} {n}" for rule, n in _dropped(log, counts).most_common())
        raise InputError(
            f"{interactions}: none of {len(rows)} interactions is left to train on ({counted})",
            "Loosen [curate.rules] in journeyman.toml or log more",
        )
    split, leak_check = separate(log, choice, examples["row"].astype(np.int64), config.curate)
    if not (split == TRAIN).any():
        raise InputError(
            f"{interactions}: all {len(examples)} rows lie in test or validation", "Lower curate.test_share"
        )
    _write_splits(scratch, out, split)
    for name in ("dropped", "noted"):
        _concatenate([scratch / f"{name}-{number}.jsonl" for number in (1, 2)], out / f"{name}.jsonl")
    manifest = lint(log, state, choice, counts, examples, split, leak_check, prompts, Renderer(base), config)
    assert manifest.rows_in == manifest.kept + sum(manifest.dropped.values())
    shutil.rmtree(scratch)
    return manifest


def _first_pass(
    interactions: Path, config: Config, base: GgufFile, scratch: Path, reporter: Reporter
) -> dict[str, Any]:
    """Looks at each row on its own; returns the tables that belong to the columns."""
    size = interactions.stat().st_size
    reporter.begin("curate: look", size, "bytes")
    names = ["rows", "words.u4", "dropped-1.jsonl", "noted-1.jsonl", *_BANDS]
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
    with Outputs(scratch, names, ".first.json") as outputs:
        state: dict[str, Any] = outputs.state or empty
        if state["done"]:
            return state
        tables = {name: Names(state[name]) for name in ("roles", "teachers", "files")}
        noted = Counter({(rule, role): n for rule, role, n in state["noted"]})
        batches = _Batches(interactions, state["rows"])
        setup = partial(Examiner, base.path, config.curate)
        for made in mapped(examine, setup, batches, parallel=size > _WORTH_WORKERS):
            _store(made, tables, outputs)
            noted.update(made.noted)
            _merge(state, made)
            state |= {name: table.names for name, table in tables.items()}
            state["rows"] += len(made.rows)
            reporter.advance(batches.read)
            if outputs.commit_due or reporter.stop_requested:
                outputs.commit(state | {"noted": _listed(noted)})
            if reporter.stop_requested:
                raise Interrupted(f"stopped after looking at {state['rows']} rows", "Run it again to go on")
        state = {**state, "noted": _listed(noted), "done": True}
        outputs.commit(state)
    return state


def _listed(counts: Counter[tuple[str, str]]) -> list[tuple[str, str, int]]:
    return [(rule, role, count) for (rule, role), count in counts.items()]


class _Batches:
    """Lines of the interactions, about a megabyte at a time; `read` is how much of the file that took."""

    def __init__(self, path: Path, skip: int) -> None:
        self._path, self._skip, self.read = path, skip, 0

    def __iter__(self) -> Iterator[list[bytes]]:
        import io

        with self._path.open("rb") as file:
            stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            lines = io.BufferedReader(stream, _BATCH_BYTES)
            for _ in islice(lines, self._skip):
                pass
            while batch := lines.readlines(_BATCH_BYTES):
                self.read = file.tell()
                yield batch


def _store(made: Examined, tables: Mapping[str, Names], outputs: Outputs) -> None:
    for column, table in (("role", "roles"), ("teacher", "teachers"), ("file", "files")):
        made.rows[column] = tables[table].translated(made.rows[column], getattr(made, table))
    outputs.write("rows", made.rows.tobytes())
    outputs.write("words.u4", made.words.tobytes())
    for number, name in enumerate(_BANDS):
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


def _drifted(tools: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """tool → its newest definition, for the tools that had several.

    That is the one that appeared last (in time, or in the log), among those that a twentieth of the rows have: a
    straggler with the old definition does not bring it back, and a lone experiment is no new version.
    """
    newest = {}
    for name, versions in tools.items():
        if len(versions) > 1:
            offered = sum(version[1] for version in versions.values())
            common = [version for version in versions.values() if version[1] >= _LEAST_VERSION * offered]
            newest[name] = max(enumerate(common), key=lambda pair: (pair[1][2] or 0.0, pair[0]))[1][0]
    return newest


def _system_prompts(log: Log, choice: Choice, config: Config) -> dict[str, str]:
    """role → the configured prompt, else the one that the role's remaining rows show most often."""
    alive = _alive(log, choice)
    prompts = {}
    for code, role in enumerate(log.roles):
        logged = log.rows["system"][alive & (log.rows["role"] == code)]
        values, counts = np.unique(logged[logged != 0], return_counts=True)
        known = [(count, int(value)) for value, count in zip(values, counts, strict=True) if int(value) in log.prompts]
        if known:
            prompts[role] = log.prompts[max(known)[1]]
    prompts |= {role: c.system_prompt for role, c in config.roles.items() if c.system_prompt is not None}
    return dict(sorted(prompts.items()))


def _alive(log: Log, choice: Choice) -> Flags:
    alive: Flags = np.asarray(log.rows["rule"] == 0)
    alive[list(choice.dropped)] = False
    return alive


Counts = dict[str, Counter[tuple[str, str]]]


def _second_pass(
    interactions: Path,
    log: Log,
    choice: Choice,
    prompts: Mapping[str, str],
    tools: Mapping[str, Any],
    config: Config,
    base: GgufFile,
    scratch: Path,
    reporter: Reporter,
) -> Counts:
    """Renders what stays; returns the rows dropped and noted by rule and role."""
    size = interactions.stat().st_size
    reporter.begin("curate: render", size, "bytes")
    names = ["examples.jsonl", "examples", "dropped-2.jsonl", "noted-2.jsonl"]
    with Outputs(scratch, names, ".second.json") as outputs:
        state = outputs.state or {"rows": 0, "dropped": [], "noted": []}
        counts: Counts = {k: Counter({(a, b): n for a, b, n in state[k]}) for k in ("dropped", "noted")}
        batches = _Batches(interactions, state["rows"])
        done = _Done(state["rows"])
        setup = partial(RenderWorker, base.path, config.curate, prompts, tools)
        for made in mapped(render, setup, _chosen(batches, log, choice, done), parallel=size > _WORTH_WORKERS):
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
                raise Interrupted(f"stopped after rendering {rows} rows", "Run it again to go on")
        outputs.commit({"rows": len(log.rows), **{name: _listed(count) for name, count in counts.items()}})
    return counts


class _Done:
    """Rows read up to the end of each batch that is under way."""

    def __init__(self, start: int) -> None:
        self.row = start
        self.ends: list[int] = []


def _chosen(batches: _Batches, log: Log, choice: Choice, done: _Done) -> Iterator[list[Chosen]]:
    """The rows of each batch that the first pass left, with what was decided."""
    rows = log.rows
    first_of_id: Flags = np.zeros(len(rows), dtype=bool)
    if len(rows):
        first_of_id[np.unique(rows["id"], return_index=True)[1]] = True
    for batch in batches:
        chosen = [
            Chosen(
                row, line, choice.dropped.get(row), choice.noted.get(row, ()), int(choice.groups[row]),
                float(choice.weights[row]), not rows["cut"][row], not first_of_id[row],
                int(rows["output_tokens"][row]) - 1,
            )
            for row, line in enumerate(batch, start=done.row)
            if rows["rule"][row] == 0
        ]  # fmt: skip
        done.row += len(batch)
        done.ends.append(done.row)
        yield chosen


def _dropped(log: Log, counts: Counts) -> Counter[str]:
    from journeyman.curation.lint import dropped_by_rule

    total: Counter[str] = Counter()
    for (rule, _), count in dropped_by_rule(log, counts).items():
        total[rule] += count
    return total


def _write_splits(scratch: Path, out: Path, split: Splits) -> None:
    (out / "sealed").mkdir(exist_ok=True)
    files = [(out / _SPLIT_FILES[name]).open("wb") for name in NAMES]
    try:
        with (scratch / "examples.jsonl").open("rb") as lines:
            for line, place in zip(lines, split.tolist(), strict=True):
                files[place].write(line)
    finally:
        for file in files:
            file.close()


def _concatenate(parts: Sequence[Path], whole: Path) -> None:
    with whole.open("wb") as out:
        for part in parts:
            with part.open("rb") as file:
                shutil.copyfileobj(file, out, 1 << 20)
