"""Refuses flags that don't go together, so that none is silently ignored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from journeyman.errors import UsageError


def refuse_ignored(given: Mapping[str, object], because: str, remedy: str) -> None:
    """Refuses flags that would have no effect.

    Args:
        given: flag → its value; None and False: it was not given.
        because: why they are useless, as in "--override: no effect {because}".

    Raises:
        UsageError: at least one was given.
    """
    useless = [flag for flag, value in given.items() if value is not None and value is not False]
    if useless:
        raise UsageError(f"{' and '.join(useless)}: no effect {because}", remedy)


def check_run_flags(until: str, redo: bool, override: str | None, other_engine: bool) -> None:
    """Checks the flags of commands that run stages.

    Raises:
        UsageError: a flag would have no effect, or the reason for --override, which is recorded permanently, is empty.
    """
    if override is not None and not override.strip():
        raise UsageError("--override: the reason is empty", 'Give one: --override "pilot with human review"')
    if until != "export":
        useless = {"--override": override, "--allow-other-engine": other_engine}
        refuse_ignored(useless, f"with --until {until}", "They apply to export: journeyman run, or journeyman export")
    if redo:
        remedy = "--redo evaluates with the installed engine: leave out one of the two"
        refuse_ignored({"--allow-other-engine": other_engine}, "with --redo", remedy)


def check_target_flags(names: Sequence[str], out: Path | None, quantization: str | None, allowed: str | None) -> None:
    """Checks the flags of export that are about targets.

    Raises:
        UsageError: there is no such target or format, or a flag would have no effect.
    """
    given = {"--out": out, "--quantization": quantization, "--allow-unevaluated": allowed}
    if not names:
        refuse_ignored(given, "without --target", "Name one: journeyman export --target gguf")
        return
    from journeyman.bundling.targets import TARGETS, check_names

    check_names(names, quantization)
    if allowed is not None and not any(TARGETS[name].other_weights for name in names):
        others = ", ".join(name for name, kind in TARGETS.items() if kind.other_weights)
        raise UsageError(
            f"--allow-unevaluated: no effect on {', '.join(names)}, whose weights are those that were evaluated",
            f"Leave it out; it is for {others}",
        )
    if allowed is not None and not allowed.strip():
        raise UsageError("--allow-unevaluated: the reason is empty", 'Give one: --allow-unevaluated "a demo"')


def check_probe_flags(probe: bool, budget: str | None, as_json: bool, others: Mapping[str, object]) -> None:
    """Checks the flags of plan that are about the probe.

    Args:
        others: flags that have no effect with it → their values.

    Raises:
        UsageError: a flag would have no effect.
    """
    if probe:
        refuse_ignored(
            others, "with --probe, which works in this terminal with the settings as they are", "Leave it out"
        )
    else:
        given = {"--probe-budget": budget, "--json": as_json}
        refuse_ignored(given, "without --probe", "Run: journeyman plan --probe, or journeyman show plan --json")
