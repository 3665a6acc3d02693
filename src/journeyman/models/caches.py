"""Finds models that other programs have downloaded: in the caches of Hugging Face, llama.cpp and LM Studio.

Only what is on the disk is found; nothing is downloaded. Layouts:

- Hugging Face: `models--PUBLISHER--REPO/snapshots/COMMIT/FILE`, and `refs/main` names the current commit.
- llama.cpp: `PUBLISHER_REPO_FILE`, in one folder; its later versions use the layout of Hugging Face.
- LM Studio: `PUBLISHER/REPO/FILE`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from journeyman.artifacts import expanded
from journeyman.errors import InputError
from journeyman.models.finding import SET_BASE, listed, models_among, not_converted

_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_NAME = re.compile(rf"(?:({_PART})/({_PART})(?::({_PART})|/((?:{_PART}/)*{_PART}\.gguf))?|({_PART}\.gguf))")


@dataclass(frozen=True)
class ModelName:
    """A model as its publisher's page names it.

    Attributes:
        publisher, repo: "" if only a file is named.
        tag: the quantization, such as Q4_K_M; "" if none is named.
        file: the file's name, in a repo with the folders there; "" if none is named.
    """

    publisher: str
    repo: str
    tag: str
    file: str

    def takes(self, file: str) -> bool:
        """True if this is the name of that file of the repo."""
        if self.file:
            return file == self.file
        marks, tag = (f"-{text.lower()}-".replace("/", "-").replace(".", "-") for text in (file, self.tag))
        return not self.tag or tag in marks or f"_{tag[1:]}" in marks

    def remedy(self) -> str:
        """What to do if it is not on this machine."""
        if not self.repo:
            return SET_BASE
        what = self.file or f"--include '*{self.tag or 'Q4_K_M'}*.gguf'"
        needs = (
            "" if self.file or "gguf" in self.repo.lower() else "Name a repo with GGUF files, or if this one has some: "
        )
        return f"{needs or 'Download it: '}hf download {self.publisher}/{self.repo} {what}"


def name_of(model: str) -> ModelName | None:
    """Parses PUBLISHER/REPO, PUBLISHER/REPO:TAG, PUBLISHER/REPO/FILE.gguf or FILE.gguf; None if it is none of these."""
    found = _NAME.fullmatch(model)
    if found is None or (found[2] or "").endswith(".gguf"):
        return None
    return ModelName(found[1] or "", found[2] or "", found[3] or "", found[4] or found[5] or "")


@dataclass(frozen=True)
class Cache:
    """A program's cache on this machine.

    Attributes:
        program: its name.
        folder: where the program keeps its models; may be missing.
        files: the folder and a name → the files of its repo, as (name in the repo, path).
    """

    program: str
    folder: Path
    files: Callable[[Path, ModelName], Iterable[tuple[str, Path]]]


def caches() -> list[Cache]:
    """The caches, in the order in which they are searched."""
    home, cache = expanded("~"), Path(os.environ.get("XDG_CACHE_HOME") or expanded("~/.cache"))
    hub = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    hf_home = Path(os.environ.get("HF_HOME") or cache / "huggingface")
    named = os.environ.get("LLAMA_CACHE")
    llama = [expanded(named)] if named else [cache / "llama.cpp", home / "Library" / "Caches" / "llama.cpp"]
    return [
        Cache("Hugging Face", expanded(hub) if hub else expanded(str(hf_home)) / "hub", _in_hub),
        *([Cache("llama.cpp", llama[0], _in_hub)] if named else []),
        *(Cache("llama.cpp", folder, _in_llama) for folder in llama if folder == llama[0] or folder.is_dir()),
        *(
            Cache("LM Studio", folder, _in_lm_studio)
            for folder in (home / ".lmstudio/models", home / ".cache/lm-studio/models")
        ),
    ]


def find_in_caches(model: str, name: ModelName, missing: str) -> Path:
    """The model's file in the first cache that has it.

    Args:
        model: as the user wrote it.
        missing: what was not found before the caches were searched, for the error.

    Raises:
        InputError: no cache has it, or the first one that does has several files that could be meant.
    """
    where, others = f"base.model = {model!r}", list[Path]()
    searched = caches()
    for cache in searched:
        files = list(_readable(cache, name))
        models = models_among(path for _, path in files)
        taken = models_among(path for file, path in files if name.takes(file))
        if len(taken) == 1:
            return taken[0]
        if taken:
            raise InputError(
                f"{where}: {len(taken)} models in {cache.program}'s cache: {listed(taken, cache.folder)}",
                f"Name one as PUBLISHER/REPO/FILE.gguf, or by its path: {taken[0]}",
            )
        others += models
    if others and name.repo:
        raise InputError(f"{where}: of this repo, the caches contain only {listed(others)}", name.remedy())
    if name.repo and (raw := _safetensors(searched[0].folder, name)) is not None:
        raise InputError(f"{where}: {raw} contains safetensors and no .gguf file", not_converted(raw))
    places = " or ".join(dict.fromkeys(f"{cache.folder} ({cache.program})" for cache in searched))
    raise InputError(f"{where}: {missing}, and no such model in {places}", name.remedy())


def _readable(cache: Cache, name: ModelName) -> Iterable[tuple[str, Path]]:
    try:
        yield from cache.files(cache.folder, name)
    except PermissionError as error:
        raise InputError(
            f"{error.filename or cache.folder}: cannot be read, in {cache.program}'s cache",
            "Make the folder readable, or name a .gguf file by its path",
        ) from error


def _in_hub(folder: Path, name: ModelName) -> Iterable[tuple[str, Path]]:
    repos = [folder / f"models--{name.publisher}--{name.repo}"] if name.repo else sorted(folder.glob("models--*--*"))
    for repo in repos:
        for snapshot in snapshots(repo):
            yield from ((path.relative_to(snapshot).as_posix(), path) for path in sorted(snapshot.rglob("*.gguf")))


def snapshots(repo: Path) -> Sequence[Path]:
    """The current snapshot of a repo in Hugging Face's cache if it has any .gguf file, otherwise all snapshots."""
    found = sorted(path for path in (repo / "snapshots").glob("*") if path.is_dir())
    try:
        current = (repo / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        current = ""
    return [one for one in found if one.name == current and any(one.rglob("*.gguf"))] or found


def _safetensors(hub: Path, name: ModelName) -> Path | None:
    """The snapshot of a repo that has no .gguf file but the original weights."""
    repo = hub / f"models--{name.publisher}--{name.repo}"
    return next((one for one in snapshots(repo) if any(one.glob("*.safetensors"))), None)


def _in_llama(folder: Path, name: ModelName) -> Iterable[tuple[str, Path]]:
    """A cached file is named after its repo, with _ for /; which repo it is can be ambiguous, see _longer."""
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
    repos = [folder / name.publisher / name.repo] if name.repo else sorted(folder.glob("*/*/"))
    return [(path.relative_to(repo).as_posix(), path) for repo in repos for path in sorted(repo.rglob("*.gguf"))]
