"""Where the recorder of a run writes, by its config file; only folders within the run folder are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from journeyman.config import CONFIG_NAME, Config, load_config
from journeyman.errors import ChangedArtifact, JourneymanError
from journeyman.ui.files import State, state_of
from journeyman.ui.indexes import Kept


@dataclass(frozen=True)
class Places:
    """The folders of a run.

    Attributes:
        recorded, routing: relative to the run folder, without "..".
        student: whether the config names a student.
        roles: names of the roles in [route.roles].
        problem: why the config file, or a folder that it names, is not used; empty: nothing.
    """

    recorded: str
    routing: str
    student: bool
    roles: tuple[str, ...] = ()
    problem: str = ""


KnownPlaces = Kept[Places]


def places_of(root: Path, known: KnownPlaces) -> Places:
    """What the config file says; read again when it has changed."""
    state: State | None = state_of(root / CONFIG_NAME)
    return known.get(root, state, lambda: _read(root, state is not None))


def _read(root: Path, there: bool) -> Places:
    default = Config()
    problem = ""
    try:
        config = load_config(root / CONFIG_NAME) if there else default
    except JourneymanError as error:
        config, problem = default, f"{error.what}: the default folders are shown"
    names = []
    for key, given, usual in (
        ("record.folder", config.record.folder, default.record.folder),
        ("route.folder", config.route.folder, default.route.folder),
    ):
        inner = _within(given)
        if inner is None:
            problem = f"{key} leads out of the run folder, so the page does not read it"
        names.append(usual if inner is None else inner)
    return Places(names[0], names[1], bool(config.route.student), tuple(config.route.roles), problem)


def _within(given: str) -> str | None:
    """The path without ".", or None if it may lead out of the folder."""
    path = PurePosixPath(given)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in given:
        return None
    return str(path)


def refuse_links(root: Path, folder: str) -> None:
    """Before something is written there.

    Raises:
        ChangedArtifact: a part of the path is a link.
    """
    path = root
    for name in folder.split("/"):
        path = path / name
        if path.is_symlink():
            raise ChangedArtifact(f"{path}: a link, which the page does not follow", "Use: journeyman route")


def is_there(root: Path, folder: str) -> bool:
    """Whether it is a folder, and no part of its path is a link."""
    try:
        refuse_links(root, folder)
    except ChangedArtifact:
        return False
    return (root / folder).is_dir()
