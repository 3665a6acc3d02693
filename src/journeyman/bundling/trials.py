"""Loads a target's files with the programs that are here, and puts the golden prompt to them."""

from __future__ import annotations

import math
from pathlib import Path

from journeyman.bundling.golden import NEAR_NATS, compare, settings_of
from journeyman.bundling.source import Source
from journeyman.foreign import named
from journeyman.inference.engines import running_engine
from journeyman.manifests import GoldenAnswer, GoldenAnswers, Trial
from journeyman.reasons.base import Reason
from journeyman.reasons.bundling import AnswerUnknown, FolderMissing, PackageMissing, ProgramNotTried
from journeyman.records import EVERY_ROLE

_APART = (
    "The files are those that were trained, so this program computes something else: try another version of it, or "
    "another target"
)
_MERGED_FILE = (
    "Choose a --quantization with more bits, evaluate the merged file (evaluate.merged), or ship base and adapter "
    "(--target llama.cpp)"
)
_MERGED_FOLDER = "Ship base and adapter (--target adapter or vllm)"
"""What can be done about another answer."""


def by_engine(source: Source, golden: GoldenAnswers | None, name: str, base: Path, adapter: Path | None) -> Trial:
    """The serving engine with these files.

    Args:
        name: the adapter's, 'all' or a role.
        adapter: None if it is merged into the base.

    Raises:
        EngineError: the engine does not load them.
        InputError: they give another answer.
    """
    expected = _of(golden, name)
    if expected is None:
        return _untried(name, "llama.cpp", _unknown(source))
    with running_engine(settings_of(source.bundle, base, adapter, source.threads)) as engine:
        return compare(
            expected, engine, engine.engine_identity.line(), base.parent, _MERGED_FILE if adapter is None else _APART
        )


def by_library(
    source: Source, golden: GoldenAnswers | None, name: str, folder: Path | None, adapter: Path | None
) -> Trial:
    """`transformers`, and `peft` if there is an adapter, with a Hugging Face folder; raises as by_engine does."""
    from journeyman.training.reloaded import Reloaded, library_missing, library_version

    expected, adapted = _of(golden, name), adapter is not None
    program = "transformers and peft" if adapted else "transformers"
    missing = library_missing(adapted)
    if folder is None:
        return _untried(name, program, FolderMissing(source.base_name))
    if missing is not None:
        return _untried(name, program, PackageMissing(missing))
    if expected is None:
        return _untried(name, program, _unknown(source))
    reloaded = Reloaded(folder, adapter, "float32" if source.results.plan.precision == "float32" else "bfloat16")
    return compare(
        expected, reloaded, library_version(adapted), adapter or folder, _APART if adapted else _MERGED_FOLDER
    )


def by_nobody(name: str, program: str) -> Trial:
    """A program that journeyman does not start."""
    return _untried(name, program, ProgramNotTried(program))


def _of(golden: GoldenAnswers | None, name: str) -> GoldenAnswer | None:
    return None if golden is None else next(one for one in golden.answers if one.adapter == name)


def _unknown(source: Source) -> Reason:
    server = source.bundle.server
    assert server is not None, "the answer is recorded of every bundle with files"
    return AnswerUnknown(server.url)


def _untried(name: str, program: str, why: Reason) -> Trial:
    return Trial(adapter=name, program=program, outcome="not_tried", why=why.record())


def trial_line(trial: Trial) -> str:
    """One clause for a person."""
    who = "" if trial.adapter == EVERY_ROLE else f"{named(trial.adapter)}: "
    if trial.outcome == "not_tried":
        return f"{who}{trial.why.sentence() if trial.why else 'not tried here'}"
    same = trial.tokens - trial.differing
    most = math.ceil(round(trial.most_nats * 100, 6)) / 100  # rounded up, as it is a limit
    near = f"; the others were at most {most:.2f} nats likelier" if trial.differing else ""
    alike = trial.base_nats is not None and trial.base_nats <= NEAR_NATS
    base = "; so does the base without the adapter, so this does not show that the adapter works" if alike else ""
    return f"{who}{trial.program} answers with {same} of {trial.tokens} golden tokens{near}{base}"
