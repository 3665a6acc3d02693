"""Diffs applied in memory, compared with git itself; and file names that rows and answers may not use."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from journeyman.scoring.contracts import Answer, Limits
from journeyman.scoring.patch import apply_patch
from journeyman.scoring.patch_applies import patch_applies
from journeyman.scoring.patch_parsing import PatchError
from journeyman.scoring.row_files import BadFile, file_name, row_files

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is the reference")
ENVIRONMENT = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "PATH": os.environ["PATH"]}
FUZZ = int(os.environ.get("JOURNEYMAN_FUZZ", "1"))


def git(folder: Path, *arguments: str, diff: str = "") -> subprocess.CompletedProcess[bytes]:
    environment = {**ENVIRONMENT, "HOME": str(folder), "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    return subprocess.run(["git", *arguments], cwd=folder, input=diff.encode(), env=environment, capture_output=True)


def laid(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())


def found(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_bytes().decode() for p in folder.rglob("*") if p.is_file()}


TEXTS = st.lists(st.sampled_from(["a", "b", "c", "  d", "", "é", "x\r", "-y", "+z", "@@ q"]), max_size=14).flatmap(
    lambda lines: st.sampled_from(["\n".join(lines), "\n".join(lines) + "\n" if lines else ""])
)


@needs_git
@settings(max_examples=60 * FUZZ, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(old=st.dictionaries(st.sampled_from(["f.py", "src/g.py"]), TEXTS, min_size=1),
       new=st.dictionaries(st.sampled_from(["f.py", "src/g.py", "new.txt"]), TEXTS),
       context=st.integers(1, 3), shift=st.integers(0, 2))  # fmt: skip
def test_diffs_of_git_apply_as_git_applies_them(
    tmp_path_factory: pytest.TempPathFactory, old: dict[str, str], new: dict[str, str], context: int, shift: int
) -> None:
    root = tmp_path_factory.mktemp("diff")
    laid(root / "a", old)
    laid(root / "b", new)
    (root / "a").mkdir(exist_ok=True)
    (root / "b").mkdir(exist_ok=True)
    made = git(root, "diff", "--no-index", f"-U{context}", "--src-prefix=", "--dst-prefix=", "a", "b")
    diff = made.stdout.decode()
    if not diff.strip():
        return
    # The lines before the hunk may have moved, as happens with a model's diff.
    target = {name: "q\n" * shift + text for name, text in old.items()}
    laid(root / "t", target)
    theirs = git(root / "t", "apply", "--recount", "-", diff=diff)
    try:
        ours = apply_patch(target, diff)
    except PatchError as error:
        assert theirs.returncode != 0, (str(error), diff, target)
        return
    assert theirs.returncode == 0, (theirs.stderr.decode(), diff, target)
    assert ours == found(root / "t"), diff
    if not shift:
        assert ours == new


BEFORE = "".join(f"line {n}\n" for n in range(20))
CHANGE = "--- a/f.py\n+++ b/f.py\n@@ -5,3 +5,3 @@\n line 4\n-line 5\n+LINE 5\n line 6\n"


def test_a_hunk_is_found_where_its_lines_have_moved_to() -> None:
    for moved in (BEFORE, "new\n" * 7 + BEFORE, BEFORE.replace("line 0\nline 1\n", "")):
        assert "LINE 5\n" in apply_patch({"f.py": moved}, CHANGE)["f.py"]
    with pytest.raises(PatchError, match="hunk 1 does not apply"):
        apply_patch({"f.py": BEFORE.replace("line 6", "line six")}, CHANGE)


def test_wrong_counts_are_corrected_and_surrounding_prose_is_ignored() -> None:
    diff = "Sure, here it is:\n" + CHANGE.replace("-5,3 +5,3", "-5,9 +5,2") + "\nThat is all.\n"
    assert "LINE 5\n" in apply_patch({"f.py": BEFORE}, diff)["f.py"]


def test_renames_copies_new_and_deleted_files() -> None:
    rename = "diff --git a/f.py b/g.py\nsimilarity index 100%\nrename from f.py\nrename to g.py\n"
    assert apply_patch({"f.py": "x\n"}, rename) == {"g.py": "x\n"}
    copy = rename.replace("rename", "copy")
    assert apply_patch({"f.py": "x\n"}, copy) == {"f.py": "x\n", "g.py": "x\n"}
    with pytest.raises(PatchError, match="already exists"):
        apply_patch({"f.py": "x\n", "g.py": ""}, rename)
    new = "diff --git a/n b/n\nnew file mode 100644\n--- /dev/null\n+++ b/n\n@@ -0,0 +1 @@\n+x\n"
    new += "\\ No newline at end of file\n"
    assert apply_patch({"f": ""}, new) == {"f": "", "n": "x"}
    gone = "diff --git a/f b/f\ndeleted file mode 100644\n--- a/f\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n"
    assert apply_patch({"f": "x\n"}, gone) == {}
    with pytest.raises(PatchError, match=r"does not remove all|does not apply"):
        apply_patch({"f": "x\ny\n"}, gone)


@pytest.mark.parametrize(
    ("diff", "why"),
    [
        ("diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+/etc/passwd\n", "a link"),
        ("diff --git a/l b/l\nnew file mode 160000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+x\n", "submodule"),
        ("diff --git a/b b/b\nGIT binary patch\nliteral 0\n", "binary"),
        (CHANGE.replace("f.py", "../f.py"), "leads upwards"),
        ("--- /dev/null\n+++ b//etc/x\n@@ -0,0 +1 @@\n+x\n", "absolute"),
        ("--- /dev/null\n+++ b/.git/config\n@@ -0,0 +1 @@\n+x\n", "belongs to git"),
        ('--- /dev/null\n+++ "b/.gi\\164/hooks/x"\n@@ -0,0 +1 @@\n+x\n', "belongs to git"),
        ("@@ -1 +1 @@\n-x\n+y\n", "without a file"),
        ("nothing", "no patch"),
    ],
)
def test_refused_diffs(diff: str, why: str) -> None:
    with pytest.raises(PatchError, match=why):
        apply_patch({"f.py": BEFORE}, diff)


BAD_NAMES = (
    "", "/etc/x", "../x", "a/../b", "a//b", "a/", "./a", ".git/config", "a/.GIT/x", ".gitattributes", ".git. /x",
    "git~1/x", "a\0b", "a\nb", "\ud800", "a\\b", "c:x", "a\u202eb", "x" * 300, "/".join("d" * 40),
)  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_refused_file_names(name: str) -> None:
    with pytest.raises(BadFile):
        file_name(name)
    answer = Answer(CHANGE, "stop", {"files": {"f.py": BEFORE, name: "x"}}, Limits())
    assert patch_applies(answer).outcome == "unscored"


@pytest.mark.parametrize("files", [None, [], {}, {"a": 1}, {1: "a"}, {"a": "", "a/b": ""}, {"a": "x" * (5 << 20)}])
def test_invalid_files(files: object) -> None:
    with pytest.raises(BadFile):
        row_files(files)


def test_a_row_with_a_git_configuration_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The attack on version 0.4.0: a filter in the row's own .git/config ran with the evaluating user's rights."""
    proof = tmp_path / "proof"
    files = {
        "f.py": BEFORE, ".git/HEAD": "ref: refs/heads/main\n", ".git/objects/.k": "", ".git/refs/.k": "",
        ".git/config": f'[core]\nrepositoryformatversion = 0\n[filter "x"]\nclean = touch {proof}\n',
        ".gitattributes": "* filter=x\n",
    }  # fmt: skip
    monkeypatch.setattr(subprocess, "Popen", None)  # nothing is started at all
    for held in (files, {"f.py": BEFORE}):
        patch_applies(Answer(CHANGE, "stop", {"files": held}, Limits()))
    assert patch_applies(Answer(CHANGE, "stop", {"files": files}, Limits())).outcome == "unscored"
    assert not proof.exists()


def test_a_hostile_diff_costs_little() -> None:
    random_ = random.Random(0)
    lines = "".join(random_.choice("ab") + "\n" for _ in range(20_000))
    hunk = "@@ -9000,9 +9000,9 @@\n" + " a\n" * 8 + "-q\n+r\n a\n"
    with pytest.raises(PatchError):
        apply_patch({"f": lines}, "--- a/f\n+++ b/f\n" + hunk)
