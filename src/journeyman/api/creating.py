"""journeyman.create: a new run folder with its config file."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path

from journeyman.api.checks import refuse_while_loading
from journeyman.api.run import Run
from journeyman.api.settings import RoleChecks, Settings, flattened, with_checks, with_settings, write_sources
from journeyman.artifacts import write_atomic
from journeyman.config import CONFIG_NAME, parse_config
from journeyman.errors import UsageError
from journeyman.proposing.places import source_paths
from journeyman.proposing.proposal import propose
from journeyman.proposing.toml import config_text, toml_string
from journeyman.sources.files import require_logs
from journeyman.sources.nearby import relative

Places = str | PathLike[str] | Sequence[str | PathLike[str]]
"""Files, folders or globs."""


def create(
    folder: str | PathLike[str],
    sources: Places | None = None,
    *,
    from_logs: Places | None = None,
    settings: Settings | None = None,
    checks: RoleChecks | None = None,
) -> Run:
    """Creates a run folder with a config file, and opens it.

    Args:
        folder: is made if it does not exist.
        sources: the logs, as seen from the current folder; every other key has its default.
        from_logs: the logs, in place of `sources`: a sample of them is read, and a commented config that fits them
            is written, as `journeyman init --from` does.
        settings: further keys of the config file, {"train.epochs": 1}. Paths in them are relative to the run
            folder, as in the file; a pathlib.Path is relative to the current folder.
        checks: role → its checks, as roles.ROLE.checks: {"coder": ["answered", polite]}.

    Raises:
        UsageError: the folder has a config file, no log is found, or a setting is unknown or out of range.
    """
    refuse_while_loading()
    target = Path(folder) / CONFIG_NAME
    if target.exists():
        raise UsageError(
            f"{target}: exists already and was left as it is", f"Open it: journeyman.open({str(folder)!r})"
        )
    if (sources is None) == (from_logs is None):
        raise UsageError(
            "create needs the logs, as sources or as from_logs", f'journeyman.create({str(folder)!r}, "logs/*.jsonl")'
        )
    if from_logs is not None:
        text = config_text(propose(Path(folder), _named(from_logs)))
    else:
        assert sources is not None
        text = _least_text(Path(folder), _named(sources))
    flat, sources_of_checks = with_checks(flattened(settings or {}), checks, Path(folder))
    text = with_settings(text, flat)
    parse_config(tomllib.loads(text), str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    write_sources(sources_of_checks)
    write_atomic(target, text.encode())
    return Run(folder)


def _least_text(folder: Path, entries: Sequence[str]) -> str:
    paths = source_paths(folder, Path.cwd(), entries)
    require_logs(Path.cwd(), [str(path) for path in paths])
    sources = ", ".join(toml_string(relative(path, folder)) for path in paths)
    return f"# Every key is optional; docs/reference.md lists them all.\n\n[data]\nsources = [{sources}]\n"


def _named(places: Places) -> list[str]:
    return [fspath(places)] if isinstance(places, str | PathLike) else [fspath(one) for one in places]
