"""patch_applies: the answer's diff applies to the row's `files` (path → content).

Neither git nor a folder is used: the diff is applied in memory (scoring/patch.py).
"""

from __future__ import annotations

import re

from journeyman.scoring.checks import Answer, Finding
from journeyman.scoring.patch import PatchError, apply_patch
from journeyman.scoring.row_files import BadFile, row_files

_FENCE = re.compile(r"```(?:diff|patch)[^\n]*\n(.*?)(?:\n```|\Z)", re.DOTALL)
_MOST_CHARACTERS = 1 << 20


def patch_applies(answer: Answer) -> Finding:
    try:
        files = row_files(answer.data.get("files"))
    except BadFile as error:
        return Finding("unscored", str(error))
    fenced = _FENCE.findall(answer.text)
    diff = "\n".join(fenced) if fenced else answer.text
    if "@@" not in diff and "rename from" not in diff:
        return Finding("fail", "no diff in the answer")
    if len(diff) > _MOST_CHARACTERS:
        return Finding("fail", f"a diff of {len(diff):,} characters, at most {_MOST_CHARACTERS:,}")
    try:
        apply_patch(files, diff)
    except PatchError as error:
        return Finding("fail", str(error))
    return Finding("pass")
