"""patch_applies: the answer's diff applies to the row's `files` (path → content), by `git apply --check`.

git refuses by itself what leaves the folder; the row's own paths are refused here.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from journeyman.scoring.checks import Answer, Finding

_FENCE = re.compile(r"```(?:diff|patch)[^\n]*\n(.*?)(?:\n```|\Z)", re.DOTALL)
_TIMEOUT_S = 10


def patch_applies(answer: Answer) -> Finding:
    files = answer.data.get("files")
    if not isinstance(files, dict) or not files or not all(isinstance(text, str) for text in files.values()):
        return Finding("unscored", "the row has no check.files")
    git = shutil.which("git")
    if git is None:
        return Finding("unscored", "git is not installed")
    fenced = _FENCE.findall(answer.text)
    diff = "\n".join(fenced) if fenced else answer.text
    if "@@" not in diff:
        return Finding("fail", "no diff in the answer")
    with tempfile.TemporaryDirectory(prefix="journeyman-patch-") as name:
        folder = Path(name).resolve()
        for path, text in files.items():
            place = (folder / path).resolve()
            if not place.is_relative_to(folder):
                return Finding("unscored", f"check.files: {path!r} leaves the folder")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
        try:
            done = subprocess.run(
                [git, "apply", "--check", "--recount", "-"],
                input=diff.rstrip("\n") + "\n", cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_S,
                env={"GIT_CEILING_DIRECTORIES": str(folder.parent), "GIT_CONFIG_NOSYSTEM": "1", "HOME": name},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Finding("fail", f"git apply did not end within {_TIMEOUT_S} s")
    if done.returncode == 0:
        return Finding("pass")
    return Finding("fail", (done.stderr.strip().splitlines() or ["git apply refuses it"])[0][:300])
