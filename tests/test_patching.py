"""Patches: our reader and applier against `git apply` itself, and what neither may do."""

from __future__ import annotations

import difflib
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journeyman.scoring import checks, patch_applies
from journeyman.scoring.checks import Answer, check_table
from journeyman.scoring.code_block import fenced_blocks
from journeyman.scoring.patching import patched
from journeyman.scoring.row_files import BadFile, file_name, row_files
from journeyman.scoring.sandbox import Limits
from journeyman.scoring.unified_diff import PatchError

FUZZ = int(os.environ.get("JOURNEYMAN_FUZZ", "1"))
FILES = {"f.py": "x = 1\ny = 2\n"}
PATCH = "--- a/f.py\n+++ b/f.py\n@@ -1,2 +1,2 @@\n x = 1\n-y = 2\n+y = 3\n"


def by_git(files: dict[str, str], diff: str, scratch: Path) -> dict[str, str] | None:
    """What `git apply` makes of our own data in a folder that is no repository; None where it refuses."""
    home, work = scratch / "home", scratch / "work"
    home.mkdir(exist_ok=True)
    subprocess.run(["rm", "-rf", str(work)], check=True)
    work.mkdir()
    for name, text in files.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_bytes(text.encode())
    env = {
        "PATH": os.environ["PATH"], "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CEILING_DIRECTORIES": str(scratch),
    }  # fmt: skip
    diff += "\n" * (not diff.endswith("\n"))  # the check forgives that this one is missing
    done = subprocess.run(["git", "apply", "-"], input=diff.encode(), cwd=work, env=env, capture_output=True)
    if done.returncode:
        return None
    return {str(path.relative_to(work)): path.read_bytes().decode() for path in work.rglob("*") if path.is_file()}


def ours(files: dict[str, str], diff: str) -> dict[str, str] | None:
    try:
        return patched(files, diff)
    except PatchError:
        return None


ONE_FILE = [
    PATCH,
    "Some words.\n" + PATCH + "More words.\n",
    PATCH.replace("a/f.py", "f.py").replace("b/f.py", "f.py"),
    PATCH.replace("\n", "\r\n"),
    PATCH.replace("-1,2 +1,2", "-1,3 +1,2"),
    PATCH.replace("-1,2 +1,2", "-1 +1,2"),
    PATCH.replace("-1,2 +1,2", "-9,2 +9,2"),
    PATCH.replace(" x = 1", " x =  1"),
    PATCH.replace(" x = 1", "x = 1"),
    PATCH.replace("+y = 3\n", "+y = 3\n\\ No newline at end of file\n"),
    PATCH.replace("-y = 2\n", "-y = 2\n\\ No newline at end of file\n"),
    PATCH.rstrip("\n"),
    PATCH.replace("--- a/f.py\n", "--- a/f.py\t2024-01-01 00:00:00\n"),
    PATCH.replace("--- a/f.py", "--- a/f.py.orig"),
    PATCH.replace("--- a/f.py", "--- a/f.p"),
    PATCH.replace("f.py", "none.py"),
    PATCH.replace("f.py", "../f.py"),
    PATCH.replace("f.py", "/f.py"),
    PATCH[PATCH.index("@@") :],
    PATCH + PATCH,
    PATCH + PATCH.replace("y = 3", "y = 4").replace("y = 2", "y = 3"),
    "--- a/f.py\n+++ b/f.py\n@@ -1,2 +1,2 @@\n x = 1\n y = 2\n",
    "--- a/f.py\n+++ b/f.py\n@@ -2 +2 @@\n-y = 2\n+y = 3\n",
    "--- a/f.py\n+++ b/f.py\n@@ -1 +1 @@\n-y = 2\n+y = 3\n",
    "--- a/f.py\n+++ b/f.py\n@@ -1 +1 @@\n-x = 1\n+x = 3\n",
    "--- a/f.py\n+++ b/f.py\n@@ -0,0 +1 @@\n+z = 0\n",
    "--- a/f.py\n+++ b/f.py\n@@ -2,0 +3 @@\n+z = 0\n",
    "--- a/new.py\n+++ b/new.py\n@@ -0,0 +1 @@\n+z = 0\n",
    "--- /dev/null\n+++ b/new.py\n@@ -0,0 +1,2 @@\n+z = 0\n+\n",
    "--- /dev/null\n+++ b/f.py\n@@ -0,0 +1 @@\n+z = 0\n",
    "--- /dev/null\n+++ b/f.py/inner.py\n@@ -0,0 +1 @@\n+z = 0\n",
    "--- /dev/null\n+++ b/.git/config\n@@ -0,0 +1 @@\n+z = 0\n",
    "--- a/f.py\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-x = 1\n-y = 2\n",
    "--- a/f.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-x = 1\n",
    "diff --git a/f.py b/f.py\nindex 1111111..2222222 100644\n" + PATCH,
    "diff --git a/f.py b/g.py\nsimilarity index 100%\nrename from f.py\nrename to g.py\n",
    "diff --git a/f.py b/g.py\nsimilarity index 80%\nrename from f.py\nrename to g.py\n"
    + PATCH.replace("+++ b/f", "+++ b/g"),
    "diff --git a/f.py b/g.py\nsimilarity index 80%\ncopy from f.py\ncopy to g.py\n"
    + PATCH.replace("+++ b/f", "+++ b/g"),
    "diff --git a/f.py b/f.py\nold mode 100644\nnew mode 100755\n",
    "diff --git a/f.py b/f.py\n",
    "diff --git a/f.py b/f.py\nindex 1111111..2222222 100644\n",
    "diff --git a/e.py b/e.py\nnew file mode 100644\nindex 0000000..e69de29\n",
    "diff --git a/f.py b/f.py\ndeleted file mode 100644\nindex 1111111..0000000\n--- a/f.py\n+++ /dev/null\n"
    "@@ -1,2 +0,0 @@\n-x = 1\n-y = 2\n",
    "diff --git a/f.py b/f.py\nindex 1111111..2222222 100644\n--- a/f.py\n+++ b/g.py\n"
    "@@ -1,2 +1,2 @@\n x = 1\n-y = 2\n+y = 3\n",
    'diff --git "a/\\303\\251.py" "b/\\303\\251.py"\nnew file mode 100644\nindex 0000000..1111111\n--- /dev/null\n'
    '+++ "b/\\303\\251.py"\n@@ -0,0 +1 @@\n+z = 0\n',
    "diff --git a/i.png b/i.png\nnew file mode 100644\nindex 0000000..1111111\n"
    "Binary files /dev/null and b/i.png differ\n",
    "no patch", "", "@@", "--- a/f.py\n+++ b/f.py\n", "diff --git x\nindex 1..2\n",
    "diff --git x\nnew file mode 100644\n",
]  # fmt: skip


@pytest.mark.parametrize("diff", ONE_FILE, ids=range(len(ONE_FILE)))
def test_the_same_as_git_apply(diff: str, tmp_path: Path) -> None:
    assert ours(FILES, diff) == by_git(FILES, diff, tmp_path)


LINE = st.sampled_from(["a", "b", "", "  c", "d\r", "+e", "-f", "@@ -1 +1 @@", "\\ g", "é"])
TEXT = st.builds(lambda lines, end: "\n".join(lines) + end, st.lists(LINE, max_size=12), st.sampled_from(["", "\n"]))


def _diff(old: dict[str, str], new: dict[str, str], context: int) -> str:
    """As difflib makes it, with git's headers and its line about a missing newline."""
    parts = []
    for name in sorted({*old, *new}):
        before, after = (files.get(name, "").split("\n") for files in (old, new))
        lines = [[*(f"{line}\n" for line in text[:-1]), *([text[-1]] if text[-1] else [])] for text in (before, after)]
        heads = [f"a/{name}" if name in old else "/dev/null", f"b/{name}" if name in new else "/dev/null"]
        for line in difflib.unified_diff(*lines, *heads, n=context, lineterm="\n"):
            parts.append(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n")
    return "".join(parts)


@settings(max_examples=40 * FUZZ, deadline=None)
@given(old=TEXT, new=TEXT, other=TEXT, shift=st.lists(LINE, max_size=3), context=st.integers(0, 3), data=st.data())
def test_random_edits_apply_as_with_git(
    old: str, new: str, other: str, shift: list[str], context: int, data: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The patch of two files, on what it was made of, on that with lines before it, and on something else."""
    scratch = tmp_path_factory.mktemp("git")
    diff = _diff({"d/x": old, "gone": other}, {"d/x": new, "made": other}, context)
    moved = "".join(f"{line}\n" for line in shift) + old
    for text in (old, moved, other):
        files = {"d/x": text, "gone": other, "e": ""}
        _alike(files, diff, scratch)
    if diff:  # a damaged patch
        at = data.draw(st.integers(0, len(diff) - 1))
        damaged = diff[:at] + data.draw(st.sampled_from(["", "\n", "x", " ", "-", "+", "1"])) + diff[at + 1 :]
        files = {"d/x": old, "gone": other, "e": ""}
        _alike(files, damaged, scratch)


def _alike(files: dict[str, str], diff: str, scratch: Path) -> None:
    """Stricter than git in one thing: git lets a line without an end match the beginning of a line."""
    found, expected = ours(files, diff), by_git(files, diff, scratch)
    assert found == expected or (found is None and "\n\\ " in diff), (files, diff, expected)


@given(st.text(alphabet="`\n py+-\td", max_size=60))
def test_fences_are_found_as_the_expression_found_them(text: str) -> None:
    import re

    old = re.compile(r"```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:\n```|\Z)", re.DOTALL)
    assert list(fenced_blocks(text)) == [(found[1].lower(), found[2]) for found in old.finditer(text)]


def test_fences_without_end_take_no_time() -> None:
    assert list(fenced_blocks("```" * 200_000)) == []
    assert len(list(fenced_blocks("```" + "a" * 300_000 + "\n" + "``` x\n" * 100_000))) > 1


def _said(files: Any, text: str = f"```diff\n{PATCH}```") -> checks.Finding:
    return check_table()["patch_applies"](Answer(text, "stop", {"files": files}, Limits()))


def test_a_row_with_a_git_folder_runs_nothing(tmp_path: Path) -> None:
    """The attack: git obeys `.git/config` of the row's files, and a filter there is a command."""
    owned = tmp_path / "owned"
    hostile = {
        ".git/HEAD": "ref: refs/heads/main\n",
        ".git/config": f'[core]\n\trepositoryformatversion = 0\n[filter "x"]\n\tclean = touch {owned}\n\trequired\n',
        ".git/objects/.k": "", ".git/refs/.k": "", ".gitattributes": "* filter=x\n", **FILES,
    }  # fmt: skip
    found = _said(hostile)
    assert not owned.exists()
    assert found.outcome == "unscored" and ".git" in found.detail
    assert not {"subprocess", "tempfile", "os", "shutil"} & vars(patch_applies).keys(), "no program, no file"


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "/x", "../x", "a/../../x", "a//b", "a/", "./a", "a\0b", "a\nb", "\ud800", ".git", ".git/config",
        "a/.GIT/config", ".gitattributes", ".gitmodules", ".gitignore", "x/.Git", ".git ", ".git.", ".g\u200cit/x",
        "a\\b", "C:x", "git~1", "x" * 300, "/".join("d" * 40), "a\u202eb",
    ],
)  # fmt: skip
def test_names_that_no_row_may_use(name: str) -> None:
    with pytest.raises(BadFile):
        file_name(name)
    with pytest.raises(BadFile):
        row_files({name: "", "f.py": "x"})
    assert _said({name: ""}).outcome == "unscored"


def test_files_that_no_row_may_have() -> None:
    for files in ({}, [], "x", None, {"a": 1}, {"a": "\udcff"}, {"a": "", "a/b": ""}, {"a": "x" * (5 << 20)}):
        assert _said(files).outcome == "unscored"
    assert _said({f"f{number}": "" for number in range(1_001)}).outcome == "unscored"
    assert row_files({"a/b.py": "x", "a/c.py": "", ".env": "", "gitlab.py": ""})


@pytest.mark.parametrize(
    ("diff", "why"),
    [
        ("diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+/etc/passwd\n", "120000"),
        ("diff --git a/s b/s\nnew file mode 160000\n--- /dev/null\n+++ b/s\n@@ -0,0 +1 @@\n+x\n", "160000"),
        ("diff --git a/b b/b\nnew file mode 100644\nindex 000..111\nGIT binary patch\nliteral 1\nx\n", "binary patch"),
        (PATCH.replace("f.py", ".git/hooks/x"), "belongs to git"),
        ("--- /dev/null\n+++ b/f.py/x\n@@ -0,0 +1 @@\n+x\n", "inside the file"),
        (PATCH.replace("y = 2", "y = 9"), "does not apply"),
        ('--- /dev/null\n+++ "b/.gi\\164/hooks/x"\n@@ -0,0 +1 @@\n+x\n', "belongs to git"),
        ("--- /dev/null\n+++ b//etc/x\n@@ -0,0 +1 @@\n+x\n", "absolute"),
        ("I would change y.", "no valid patch"),
        (PATCH.replace("-1,2", f"-{'9' * 5000},2"), "cannot be read"),
    ],
)
def test_patches_that_fail_with_their_reason(diff: str, why: str) -> None:
    found = _said(FILES, diff)
    assert found.outcome == "fail" and why in found.detail


def test_a_hostile_diff_costs_little() -> None:
    hunk = "@@ -9000,10 +9000,10 @@\n" + " a\n" * 8 + "-q\n+r\n a\n"
    with pytest.raises(PatchError, match="does not apply"):
        patched({"f": "a\n" * 20_000}, "--- a/f\n+++ b/f\n" + hunk)
    with pytest.raises(PatchError):
        patched({"f": "a\n"}, "--- a/f\n+++ b/f\n@@ -1 +1,2 @@\n" + "\\ No newline at end of file\n" * 50_000)
