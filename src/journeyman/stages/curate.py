"""curate: interactions → training, validation and test rows; every dropped row is recorded with the rule that did it.

Two resumable passes over the rows in worker processes; between them, rows are compared by columns, which take a few
dozen bytes of memory per row beside mapped files, regardless of the rows' length.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from journeyman.config import Config
from journeyman.curation.columns import ROW, mapped_array
from journeyman.curation.duplicates import Words
from journeyman.curation.leak_check import separate
from journeyman.curation.lint import dropped_by_rule, lint
from journeyman.curation.log import Log
from journeyman.curation.passes import BAND_FILES, Counts, first_pass, second_pass
from journeyman.curation.prompts import own_prompts, role_prompts
from journeyman.curation.render import EXAMPLE
from journeyman.curation.selection import choose
from journeyman.curation.split import NAMES, TRAIN, Splits
from journeyman.curation.terms import refuse_unknown
from journeyman.errors import InputError
from journeyman.manifests import DatasetManifest
from journeyman.models.base import Base, Vocabulary
from journeyman.parallel import LOCAL, Executor
from journeyman.protocols import Reporter
from journeyman.rendering.renderer import Renderer
from journeyman.scoring.apart import RowFaults

_LEAST_VERSION = 0.05
_SPLIT_FILES = {"train": "train.jsonl", "val": "val.jsonl", "test": "sealed/test.jsonl"}


def curate(
    interactions: Path, config: Config, base: Base, out: Path, reporter: Reporter, executor: Executor = LOCAL
) -> DatasetManifest:
    """Filters, deduplicates, renders and splits the rows.

    Args:
        executor: where the rows of a large log are examined, compared and rendered.

    Raises:
        InputError: no training rows remain, a test task is found among them, or curate.teacher_terms refuses teachers
            whose terms are not known.
        Interrupted: asked to stop; the same call resumes.
    """
    scratch = out / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    faults = RowFaults({role: (*one.checks, *one.weights) for role, one in config.roles.items()})
    vocabulary = Vocabulary(base.path, base.tokenizer)
    state = first_pass(interactions, config.curate, vocabulary, scratch, reporter, faults, executor)
    rows = mapped_array(scratch / "rows", ROW)
    teachers = np.asarray(rows["teacher"][rows["rule"] == 0]).astype(np.int64)
    refuse_unknown(state["teachers"], teachers, config.curate.teacher_terms)
    words = Words(scratch / "words.u4", rows["words"])
    log = Log(rows, words, state["roles"], state["files"], {int(k): v for k, v in state["prompts"].items()})
    reporter.begin("compare rows", len(BAND_FILES), "bands")
    prompts = role_prompts(log, np.flatnonzero(rows["rule"] == 0), config)
    log.own = own_prompts(log, prompts)
    choice = choose(log, [scratch / name for name in BAND_FILES], config.curate, executor, reporter)
    left = role_prompts(log, np.flatnonzero((rows["rule"] == 0) & (choice.rule == 0)), config)
    # A fixed prompt is the version that most of the kept rows have; which kind a prompt is stays decided.
    prompts |= {role: made for role, made in left.items() if made.kind == prompts[role].kind}
    tools = _drifted(state["tools"])
    counts = second_pass(
        interactions, log, choice, prompts, tools, config.curate, vocabulary, scratch, reporter, executor
    )
    examples = mapped_array(scratch / "examples", EXAMPLE)
    if not len(examples):
        dropped = _dropped(log, counts)
        counted = ", ".join(f"{rule} {n}" for rule, n in dropped.most_common())
        if dropped.most_common(1)[0][0] == "too_long":
            raise InputError(
                f"{interactions}: none of {len(rows)} interactions remain to train on ({counted}): most are longer "
                f"than curate.max_length = {config.curate.max_length} tokens",
                "Raise curate.max_length, or set curate.rules.too_long = 'cut'",
            )
        raise InputError(
            f"{interactions}: none of {len(rows)} interactions remain to train on ({counted})",
            "Relax [curate.rules] in journeyman.toml, or log more interactions",
        )
    split, leak_check = separate(log, choice, examples["row"].astype(np.int64), config.curate, executor, reporter)
    if not (split == TRAIN).any():
        raise InputError(
            f"{interactions}: all {len(examples)} rows are in test or validation", "Lower curate.test_share"
        )
    _write_splits(scratch, out, split)
    for name in ("dropped", "noted"):
        _concatenate([scratch / f"{name}-{number}.jsonl" for number in (1, 2)], out / f"{name}.jsonl")
    manifest = lint(log, state, choice, counts, examples, split, leak_check, prompts, Renderer(base), config)
    assert manifest.rows_in == manifest.kept + sum(manifest.dropped.values())
    shutil.rmtree(scratch)
    return manifest


def _drifted(tools: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Tool → its newest definition, for tools that had several.

    The newest is the one that first appeared last (in time, or in the log) among those in at least a twentieth of the
    rows: late uses of an old definition do not bring it back, and a single experiment is not a new version.
    """
    newest = {}
    for name, versions in tools.items():
        if len(versions) > 1:
            offered = sum(version[1] for version in versions.values())
            common = [version for version in versions.values() if version[1] >= _LEAST_VERSION * offered]
            newest[name] = max(enumerate(common), key=lambda pair: (pair[1][2] or 0.0, pair[0]))[1][0]
    return newest


def _dropped(log: Log, counts: Counts) -> Counter[str]:
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
