"""Names of models on a model hub, as they are written in `base.model`.

PUBLISHER/REPO[@REVISION][:QUANTIZATION] or PUBLISHER/REPO[@REVISION]/FILE.gguf; or FILE.gguf, in any repo.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from journeyman.errors import InputError

MAIN = "main"
"""The revision of a name that has none."""
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_NAME = re.compile(
    rf"(?:(?P<publisher>{_PART})/(?P<repo>{_PART})(?:@(?P<revision>{_PART}))?"
    rf"(?::(?P<tag>{_PART})|/(?P<file>(?:{_PART}/)*{_PART}\.gguf))?|(?P<alone>{_PART}\.gguf))"
)


class NotDownloaded(InputError):
    """A model that is named as hubs name it, is not on this machine, and could be downloaded."""


@dataclass(frozen=True)
class ModelName:
    """A model as its publisher's page names it.

    Attributes:
        publisher, repo: "" if only a file is named.
        tag: the quantization, such as Q4_K_M; "" if none is named.
        file: the file's name, in a repo with the folders there; "" if none is named.
        revision: the branch, tag or commit; "" if none is named.
    """

    publisher: str
    repo: str
    tag: str
    file: str
    revision: str = ""

    @property
    def repo_id(self) -> str:
        """PUBLISHER/REPO, as the hub calls it."""
        return f"{self.publisher}/{self.repo}"

    @property
    def whole_repo(self) -> bool:
        """True if neither a file nor a quantization is named, so that the repo's original weights can be meant."""
        return bool(self.repo) and not self.tag and not self.file

    def takes(self, file: str) -> bool:
        """True if this is the name of that file of the repo."""
        if self.file:
            return file == self.file
        marks, tag = (f"-{text.lower()}-".replace("/", "-").replace(".", "-") for text in (file, self.tag))
        return not self.tag or tag in marks or f"_{tag[1:]}" in marks

    def command(self) -> str:
        """The command of Hugging Face's own program that downloads it to Hugging Face's cache."""
        what = self.file or (f"--include '*{self.tag}*.gguf'" if self.tag else "")
        revision = f"--revision {self.revision}" if self.revision else ""
        return " ".join(part for part in ("hf download", self.repo_id, what, revision) if part)


def name_of(model: str) -> ModelName | None:
    """Parses a name of one of the forms above; None if it has none of them."""
    found = _NAME.fullmatch(model)
    if found is None or (found["repo"] or "").endswith(".gguf"):
        return None
    publisher, repo, tag, file, revision = (
        found[group] or "" for group in ("publisher", "repo", "tag", "file", "revision")
    )
    return ModelName(publisher, repo, tag, file or found["alone"] or "", revision)


def may_be(path: Path, model: str) -> bool:
    """True if `model` may be a name of the file at `path`: its own or its folder's name, or that of its repo, if the
    file is in a program's cache. A base that is missing must not be replaced by another one that is there."""
    name = name_of(model)
    if name is None or not name.repo:
        return Path(model).name in (path.name, path.parent.name)
    for before in (
        f"/models--{name.publisher}--{name.repo}/snapshots/",
        f"/{name.repo_id}/",
        f"/{name.publisher}_{name.repo}_",
    ):
        _, found, file = path.as_posix().partition(before)
        commit = ""
        if found and before.endswith("/snapshots/"):
            commit, _, file = file.partition("/")
        if found and (not name.revision or name.revision == commit):
            return name.takes(file) or file == name.file.replace("/", "_")
    return False
