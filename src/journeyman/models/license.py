"""The license that a base names for itself. It is a claim of whoever made the file, and is shown as one."""

from __future__ import annotations

import re
from pathlib import Path

from journeyman.foreign import plain
from journeyman.models.gguf_file import GgufFile

_KEY = "general.license"
_CARD, _MOST = "README.md", 1 << 16
_FRONT = re.compile(r"\A---\r?\n(.*?)^---\s*$", re.DOTALL | re.MULTILINE)
_LICENSE = re.compile(r"^license:[ \t]*[\"']?([A-Za-z0-9][A-Za-z0-9 ._+-]{0,80})", re.MULTILINE)


def license_of(path: Path) -> str | None:
    """What a GGUF file's metadata or the front matter of a folder's README.md gives as license; None: neither does.

    Sources: ggml-org/ggml, docs/gguf.md (`general.license`, in SPDX's terms); Hugging Face's model cards (`license`).
    """
    if not path.is_dir():
        found = GgufFile(path).metadata.get(_KEY)
        return plain(found.strip(), 80) if isinstance(found, str) and found.strip() else None
    try:
        with (path / _CARD).open("rb") as file:
            text = file.read(_MOST).decode(errors="replace")
    except OSError:
        return None
    front = _FRONT.match(text)
    named = _LICENSE.search(front[1]) if front else None
    return named[1].strip() if named else None
