"""Settings given in Python, as the config file and `--set` write them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from journeyman.api.checks import CheckFunction, found
from journeyman.artifacts import write_atomic
from journeyman.errors import UsageError
from journeyman.proposing.toml import toml_key, toml_string

Settings = Mapping[str, Any]
"""Config keys → values: {"train.epochs": 1} or {"train": {"epochs": 1}}."""
RoleChecks = Mapping[str, Sequence[str | CheckFunction]]
"""Role → its checks: names, or functions that journeyman.check registered."""
Flat = dict[tuple[str, ...], Any]
"""The parts of a config key → its value."""


def flattened(settings: Settings) -> Flat:
    """One entry for each key that is set.

    Raises:
        UsageError: a key without a section.
    """
    made = dict(_leaves(settings, ()))
    for path in made:
        if len(path) < 2:
            raise UsageError(f"settings: {path[0]!r} is not a key of a section", 'Write {"train.epochs": 2}')
    return made


def _leaves(value: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, inner in value.items():
        # Only keys at the top are split: below them a name may contain a dot, such as a role's.
        path = (*above, key) if above else tuple(str(key).split("."))
        if isinstance(inner, Mapping) and inner and not _is_value(path):
            yield from _leaves(inner, path)
        else:
            yield path, inner


def _is_value(path: tuple[str, ...]) -> bool:
    """Weights are one value: their keys are checks."""
    return path[0] == "roles" and len(path) == 3 and path[2] == "weights"


def with_checks(flat: Flat, checks: RoleChecks | None, folder: Path) -> tuple[Flat, dict[Path, str]]:
    """Settings in which registered checks stand as `file.py:function`, and the files that have to be written.

    Args:
        checks: role → its checks, in addition to those in `flat`.
        folder: the run's.

    Raises:
        UsageError: a registered check cannot be named in a config.
    """
    files: dict[Path, str] = {}

    def named(one: Any) -> Any:
        check = found(one) if isinstance(one, str | CheckFunction) else None
        if check is None:
            return one
        reference = check.reference(folder)
        if reference.source is not None:
            files[folder / reference.name.partition(":")[0]] = reference.source
        return reference.name

    made = flat | {("roles", role, "checks"): names for role, names in (checks or {}).items()}
    for path, value in made.items():
        if path[0] == "roles" and len(path) == 3 and path[2] in ("checks", "weights"):
            if isinstance(value, Mapping):
                made[path] = {named(one): weight for one, weight in value.items()}
            elif isinstance(value, list | tuple):
                made[path] = [named(one) for one in value]
    return made, files


def write_sources(files: Mapping[Path, str]) -> None:
    """Writes the files of checks that differ from what is there."""
    for path, source in files.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != source:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, source.encode())


def as_overrides(flat: Flat) -> list[str]:
    """The strings that `--set` takes.

    Raises:
        UsageError: a name that `--set` cannot express.
    """
    for path in flat:
        if any("." in part or "=" in part for part in path):
            raise UsageError(
                f"settings: the name in {'.'.join(path)} contains a dot or an equals sign", "Set it in the config file"
            )
    return [f"{'.'.join(path)}={toml_value(value, path)}" for path, value in flat.items()]


def toml_value(value: Any, path: tuple[str, ...] = ()) -> str:
    """A value as TOML. A Path is written in full, so that it does not depend on the folder where it was given.

    Raises:
        UsageError: TOML has no such value.
    """
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case str():
            return toml_string(value)
        case Path():
            return toml_string(str(value.expanduser().absolute()))
        case list() | tuple():
            return f"[{', '.join(toml_value(one, path) for one in value)}]"
        case Mapping():
            pairs = (f"{toml_key(str(key))} = {toml_value(inner, path)}" for key, inner in value.items())
            return f"{{{', '.join(pairs)}}}"
    raise UsageError(
        f"settings: {'.'.join(path)} = {value!r}: a config file has no value of the type {type(value).__name__}",
        "Use text, numbers, True or False, lists and dicts; leave a key out for its default",
    )


def with_settings(text: str, flat: Flat) -> str:
    """The text of a config file with these keys set. Comments stay; each section and value must be on one line."""
    lines = text.splitlines()
    for path, value in flat.items():
        *section, key = path
        header = f"[{'.'.join(map(toml_key, section))}]"
        line = f"{toml_key(key)} = {toml_value(value, path)}"
        start = next((at for at, one in enumerate(lines) if _opens(one, header)), None)
        if start is None:
            lines += ["", header, line]
            continue
        after = range(start + 1, len(lines))
        end = next((at for at in after if lines[at].startswith("[")), len(lines))
        names = {at: lines[at].partition("=")[0].strip() for at in range(start + 1, end)}
        place = next((at for at, name in names.items() if name == toml_key(key)), None)
        if place is None:
            lines.insert(start + 1, line)
        else:
            lines[place] = line
    return "\n".join(lines) + "\n"


def _opens(line: str, header: str) -> bool:
    rest = line.removeprefix(header).strip()
    return line.startswith(header) and (not rest or rest.startswith("#"))
