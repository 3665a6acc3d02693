"""The GGUF files that may ship with a base: the base itself if it is one, and those that evaluate.quantizations names.

A Hugging Face folder is trained on as it is, but llama.cpp serves GGUF files: of a folder, they are made or given.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from journeyman.artifacts import expanded
from journeyman.errors import InputError
from journeyman.model_files import is_checkpoint, split_place
from journeyman.models.base import Base
from journeyman.models.converting import find_made, format_of, make, require_tools
from journeyman.models.opening import find_base, same_geometry
from journeyman.protocols import Reporter

DEFAULT_FORMAT = "Q8_0"
"""Made of a folder if evaluate.quantizations is empty: half the size of the weights, and closest to them."""
_KEY = "evaluate.quantizations"
_NAME_A_FILE = f"Set {_KEY} to .gguf files of the same base"


def served_files(base: Base, names: Sequence[str], root: Path, reporter: Reporter | None = None) -> list[Path]:
    """The files that may ship, in order; of a split one, its first part.

    Args:
        names: as evaluate.quantizations has them.
        root: what relative paths are relative to.
        reporter: receives the progress of what must be downloaded or made; None: nothing is.

    Raises:
        InputError: a file is missing, is a different model, or cannot be made or downloaded.
        DiskError, Interrupted, UsageError: as models.converting.make and models.hub.find_model.
    """
    folder = is_checkpoint(base.path)
    names = names or ([DEFAULT_FORMAT] if folder else [])
    others = [_served_file(base, name, root, reporter) for name in names]
    for number, path in enumerate(others):
        if path.name in {one.name for one in others[:number]}:
            raise InputError(f"{_KEY}: two files have the name {path.name}", "Rename one of them, or name one only")
    return others if folder else [base.path, *others]


def _served_file(base: Base, name: str, root: Path, reporter: Reporter | None) -> Path:
    given = root / expanded(name)
    kind = None if given.exists() else format_of(name)
    if kind is not None:
        return _made(base, kind, reporter)
    try:
        path = find_base(name, root, reporter)
    except InputError as error:
        raise type(error)(error.what.replace("base.model", _KEY), error.remedy.replace("base.model", _KEY)) from error
    if is_checkpoint(path):
        raise InputError(
            f"{_KEY} = {name!r}: {path} has the original weights, which llama.cpp does not serve", _NAME_A_FILE
        )
    checked = same_geometry(path, base)
    # The file's name is part of the plan's fingerprint, and earlier versions resolved every link of a path.
    return checked if given.is_file() or split_place(path) is not None else path


def _made(base: Base, kind: str, reporter: Reporter | None) -> Path:
    if not is_checkpoint(base.path):
        raise InputError(
            f"{_KEY} = {kind!r}: made of Hugging Face folders only, and base.model is {base.path.name}", _NAME_A_FILE
        )
    made = find_made(base.sha256, kind)
    if made is None and reporter is not None:
        made = make(base, kind, reporter)
    if made is None:
        require_tools(kind)
        raise InputError(f"{_KEY}: {kind} of {base.path} has not been made", "Run: journeyman run")
    return made
