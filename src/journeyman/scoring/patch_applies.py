"""patch_applies: the answer's diff applies to the row's `files` (path → content), with the rules of `git apply --check
--recount`: wrong line counts in hunks are corrected.

The files stay in memory and no program runs, because git would obey configuration that it finds among the files.
"""

from __future__ import annotations

from journeyman.reasons.checking import DataInvalid, DataMissing
from journeyman.scoring.code_block import fenced_blocks
from journeyman.scoring.contracts import Answer, CheckResult
from journeyman.scoring.patch import apply_patch
from journeyman.scoring.patch_parsing import PatchError
from journeyman.scoring.row_files import BadFile, row_files


def patch_applies(answer: Answer) -> CheckResult:
    if "files" not in answer.data:
        return CheckResult("unscored", DataMissing("files"))
    try:
        files = row_files(answer.data["files"])
    except BadFile as error:
        return CheckResult("unscored", DataInvalid("files", str(error)))
    fenced = [body for language, body in fenced_blocks(answer.text) if language in ("diff", "patch")]
    diff = "\n".join(fenced) if fenced else answer.text
    try:
        apply_patch(files, diff)
    except PatchError as error:
        return CheckResult("fail", error.reason)
    return CheckResult("pass")
