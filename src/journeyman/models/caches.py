"""Finds models that were downloaded: by journeyman itself, Hugging Face's programs, llama.cpp and LM Studio.

Only what is on the disk is found; nothing is downloaded. Layouts:

- Hugging Face: `models--PUBLISHER--REPO/snapshots/COMMIT/FILE`, and `refs/main` names the current commit.
- llama.cpp: `PUBLISHER_REPO_FILE`, in one folder; its later versions use the layout of Hugging Face.
- LM Studio: `PUBLISHER/REPO/FILE`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from journeyman.artifacts import expanded
from journeyman.errors import InputError
from journeyman.model_files import first_part, is_complete
from journeyman.models.checkpoint_files import is_whole
from journeyman.models.finding import listed, models_among
from journeyman.models.names import MAIN, ModelName

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Cache:
    """A program's cache on this machine.

    Attributes:
        program: its name.
        folder: where the program keeps its models; may be missing.
        files: the folder and a name → the files of its repo, as (name in the repo, path).
        wholes: the folder and a name → the folders with the original weights of its repo.
    """

    program: str
    folder: Path
    files: Callable[[Path, ModelName], Iterable[tuple[str, Path]]]
    wholes: Callable[[Path, ModelName], Sequence[Path]] = lambda folder, name: ()


def own_cache() -> Path:
    """The folder of the models that journeyman has downloaded, in Hugging Face's layout."""
    return Path(os.environ.get("XDG_CACHE_HOME") or expanded("~/.cache")) / "journeyman" / "hub"


def caches() -> list[Cache]:
    """The caches, in the order in which they are searched."""
    home, cache = expanded("~"), Path(os.environ.get("XDG_CACHE_HOME") or expanded("~/.cache"))
    hub = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    hf_home = Path(os.environ.get("HF_HOME") or cache / "huggingface")
    named = os.environ.get("LLAMA_CACHE")
    llama = [expanded(named)] if named else [cache / "llama.cpp", home / "Library" / "Caches" / "llama.cpp"]
    return [
        Cache("journeyman", own_cache(), _in_own),
        Cache("Hugging Face", expanded(hub) if hub else expanded(str(hf_home)) / "hub", _in_hub, _wholes_in_hub),
        *([Cache("llama.cpp", llama[0], _in_hub)] if named else []),
        *(Cache("llama.cpp", folder, _in_llama) for folder in llama if folder == llama[0] or folder.is_dir()),
        *(
            Cache("LM Studio", folder, _in_lm_studio)
            for folder in (home / ".lmstudio/models", home / ".cache/lm-studio/models")
        ),
    ]


def find_in_caches(model: str, name: ModelName) -> Path | None:
    """The model in the first cache that has it: its file, or the folder with its original weights.

    Args:
        model: as the user wrote it.

    Raises:
        InputError: a cache cannot be read, or the first one that has the model has several that could be meant.
    """
    for cache in caches():
        wholes, files = _readable(cache, name)
        taken = list(wholes) or models_among(path for file, path in files if name.takes(file))
        if len(taken) == 1:
            return taken[0]
        if wholes:
            raise InputError(
                f"base.model = {model!r}: {len(taken)} commits in {cache.program}'s cache: "
                f"{', '.join(path.name for path in taken)}",
                f"Name one: {name.repo_id}@{taken[0].name}",
            )
        if taken:
            raise InputError(
                f"base.model = {model!r}: {len(taken)} models in {cache.program}'s cache: "
                f"{listed(taken, cache.folder)}",
                f"Name one as PUBLISHER/REPO/FILE.gguf, or by its path: {taken[0]}",
            )
    return None


def absence(name: ModelName) -> str:
    """A part of a sentence: where the model was not found, and what the caches contain of its repo."""
    searched = caches()
    places = " or ".join(dict.fromkeys(f"{cache.folder} ({cache.program})" for cache in searched))
    others = [model for cache in searched for model in models_among(path for _, path in _readable(cache, name)[1])]
    only = f", which contain only {listed(others)} of this repo" if others and name.repo else ""
    return f"no such model in {places}{only}"


def _readable(cache: Cache, name: ModelName) -> tuple[Sequence[Path], list[tuple[str, Path]]]:
    """The folders and the files of the name's repo in a cache."""
    try:
        return cache.wholes(cache.folder, name), list(cache.files(cache.folder, name))
    except PermissionError as error:
        raise InputError(
            f"{error.filename or cache.folder}: cannot be read, in {cache.program}'s cache",
            "Make the folder readable, or name a .gguf file by its path",
        ) from error


def _in_own(folder: Path, name: ModelName) -> Iterable[tuple[str, Path]]:
    """Of journeyman's own cache, complete models of the very revision; what a repo's name stands for is in its record
    (pins.py)."""
    if name.whole_repo:
        return []
    asked = replace(name, revision=name.revision or MAIN) if name.repo else name
    return [one for one in _in_hub(folder, asked) if is_complete(first_part(one[1]))]


def _in_hub(folder: Path, name: ModelName) -> Iterable[tuple[str, Path]]:
    repos = [repo_in_hub(folder, name)] if name.repo else sorted(folder.glob("models--*--*"))
    for repo in repos:
        for snapshot in snapshots(repo, name.revision, lambda one: any(one.rglob("*.gguf"))):
            yield from ((path.relative_to(snapshot).as_posix(), path) for path in sorted(snapshot.rglob("*.gguf")))


def _wholes_in_hub(folder: Path, name: ModelName) -> Sequence[Path]:
    if not name.whole_repo:
        return []
    return [one for one in snapshots(repo_in_hub(folder, name), name.revision, is_whole) if is_whole(one)]


def repo_in_hub(folder: Path, name: ModelName) -> Path:
    """The folder of a repo in a cache with Hugging Face's layout."""
    return folder / f"models--{name.publisher}--{name.repo}"


def snapshots(repo: Path, revision: str, wanted: Callable[[Path], bool]) -> Sequence[Path]:
    """The snapshot of a revision of a repo in Hugging Face's cache; without one, the current if it has what is wanted,
    otherwise all."""
    found = sorted(path for path in (repo / "snapshots").glob("*") if path.is_dir())
    try:
        commit = (repo / "refs" / (revision or MAIN)).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        commit = revision if _COMMIT.fullmatch(revision) else ""
    current = [one for one in found if one.name == commit]
    return current if revision or any(map(wanted, current)) else found


def _in_llama(folder: Path, name: ModelName) -> Iterable[tuple[str, Path]]:
    """A cached file is named after its repo, with _ for /; which repo it is can be ambiguous, see _longer."""
    if name.revision:  # which the file's name does not tell
        return []
    if not name.repo:
        return [(name.file, folder / name.file)] if (folder / name.file).is_file() else []
    prefix = f"{name.publisher}_{name.repo}_"
    longer = _longer(folder, prefix)
    found = (path for path in sorted(folder.glob("*.gguf")) if path.name.startswith(prefix))
    file = name.file.replace("/", "_")
    return [
        (name.file if path.name == prefix + file else path.name.removeprefix(prefix), path)
        for path in found
        if not path.name.startswith(longer)
    ]


def _longer(folder: Path, prefix: str) -> tuple[str, ...]:
    """Prefixes of other repos that begin in the same way: PUBLISHER/REPO_2's files also begin with PUBLISHER_REPO_."""
    names = (path.name.removeprefix("manifest=").split("=") for path in folder.glob("manifest=*=*=*.json"))
    return tuple({one for parts in names if (one := f"{parts[0]}_{parts[1]}_") != prefix and one.startswith(prefix)})


def _in_lm_studio(folder: Path, name: ModelName) -> Iterable[tuple[str, Path]]:
    if name.revision:
        return []
    repos = [folder / name.publisher / name.repo] if name.repo else sorted(folder.glob("*/*/"))
    return [(path.relative_to(repo).as_posix(), path) for repo in repos for path in sorted(repo.rglob("*.gguf"))]
