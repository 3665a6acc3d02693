"""Releases: whatever happens to a promotion, one whole release is current, and the history says how it came to be."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from faults import ENV, fill, small_disk
from journeyman.api.prepared import prepared
from journeyman.artifacts import hash_of_file, read_json
from journeyman.config import ServeConfig
from journeyman.errors import ChangedArtifact, DiskFull, InputError, NotDeployable, StaleArtifact, UsageError
from journeyman.lineage import manifest_bytes, own_hash
from journeyman.locking import locked
from journeyman.promotion import promote, rollback
from journeyman.releases import RECORD, Follower, current, kept, place_of_release, record_of, releases_of
from journeyman.verifying import verify
from promoting import SETTINGS, write_bundle
from test_pipeline import call

HELPER = Path(__file__).parent / "helpers" / "promoting.py"


@pytest.fixture
def bundles(tmp_path: Path) -> list[Path]:
    return [write_bundle(tmp_path / f"bundle-{name}", name) for name in "abc"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "releases"


def _number(folder: Path) -> int:
    found = current(folder)
    assert found is not None
    assert verify(found.place).findings == []
    return found.number


def test_promote_keeps_a_verified_copy_and_rollback_goes_back_step_by_step(bundles: list[Path], folder: Path) -> None:
    assert current(folder) is None and kept(folder) == []
    for number, bundle in enumerate(bundles, start=1):
        assert promote(bundle, folder, f"try {number}").number == number == _number(folder)
    assert (folder / "0003" / "base.gguf").read_bytes() == (bundles[2] / "base.gguf").read_bytes()
    assert os.access(folder / "0003" / "scripts" / "serve.sh", os.X_OK)
    assert promote(bundles[1], folder).number == 2, "the same bundle keeps its number"
    assert rollback(folder).number == 3
    assert rollback(folder).number == 2
    assert rollback(folder, why="worse").number == 1
    with pytest.raises(UsageError, match="no earlier release"):
        rollback(folder)
    assert rollback(folder, to=3).number == 3 == _number(folder)
    for wrong, said in ((3, "is the current one"), (7, "was never promoted")):
        with pytest.raises(UsageError, match=said):
            rollback(folder, to=wrong)
    record = record_of(folder)
    assert [(event.action, event.before, event.number) for event in record.events] == [
        ("promote", None, 1), ("promote", 1, 2), ("promote", 2, 3), ("promote", 3, 2), ("rollback", 2, 3),
        ("rollback", 3, 2), ("rollback", 2, 1), ("rollback", 1, 3),
    ]  # fmt: skip
    assert record.events[0].why == "try 1" and record.events[0].verdicts == {"coder": "deploy"}
    assert "@" in record.events[0].who and kept(folder) == [1, 2, 3]


def test_promoting_the_current_release_again_changes_nothing_for_rollback(bundles: list[Path], folder: Path) -> None:
    for bundle in (bundles[0], bundles[1], bundles[1], bundles[1]):
        promote(bundle, folder)
    assert rollback(folder).number == 1
    with pytest.raises(UsageError, match="no earlier release"):
        rollback(folder)


def test_rollback_passes_releases_that_were_removed(bundles: list[Path], folder: Path) -> None:
    for bundle in bundles:
        promote(bundle, folder)
    shutil.rmtree(folder / "0002")
    with pytest.raises(InputError, match="release 2 is no longer there") as refused:
        rollback(folder, to=2)
    assert "--until export" not in str(refused.value)
    shutil.rmtree(folder / "0003")
    with pytest.raises(InputError, match="release 3 is no longer there"):
        current(folder)
    assert rollback(folder).number == 1 == _number(folder)
    with pytest.raises(UsageError, match="no earlier release"):
        rollback(folder)


def test_the_commands_work_where_the_folder_with_releases_is(
    bundles: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in the manual: in the folder that contains the runs and releases/."""
    monkeypatch.chdir(folder.parent)
    assert call("promote", "bundle-a") == 0 == call("promote", "bundle-b")
    assert call("releases") == 0 and "kept 1, 2; current 2" in capsys.readouterr().out
    assert call("rollback") == 0 and _number(folder) == 1
    monkeypatch.chdir(folder)
    assert call("promote", "0002") == 0 and _number(folder) == 2, "a release is promoted where it is"
    assert call("rollback") == 0 and _number(folder) == 1 and kept(folder) == [1, 2]
    monkeypatch.chdir(folder / "0001")
    assert call("releases") == 0 and "kept 1, 2; current 1" in capsys.readouterr().out
    assert not list(folder.parent.parent.glob("releases")) and not (folder / "releases").exists()


def test_which_of_two_folders_with_releases_is_meant_has_to_be_said(bundles: list[Path], folder: Path) -> None:
    promote(bundles[0], folder)
    shutil.copytree(folder, bundles[1] / "releases")
    with pytest.raises(UsageError, match="two folders with releases") as refused:
        releases_of(bundles[1])
    assert "--releases" in refused.value.remedy
    assert call("releases", bundles[1], "--releases", folder) == 0


def test_without_releases_rollback_makes_no_folder(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UsageError, match="nothing was promoted") as refused:
        rollback(folder)
    assert "journeyman rollback --releases FOLDER" in refused.value.remedy and not folder.exists()


def test_remedies_name_the_bundle_and_the_folder_of_the_command(bundles: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "my releases"
    iterate = write_bundle(tmp_path / "my bundle", "x", verdicts={"coder": "iterate"}, override="a test")
    with pytest.raises(NotDeployable) as no_verdict:
        promote(iterate, folder)
    assert f"journeyman promote '{iterate}' --releases '{folder}' --override" in no_verdict.value.remedy
    with pytest.raises(InputError) as no_bundle:
        promote(tmp_path / "my run", folder)
    assert no_bundle.value.remedy == f"Run: journeyman run --until export --dir '{tmp_path / 'my run'}'"
    promote(bundles[0], folder)
    for to in (None, 1, 7):
        with pytest.raises(UsageError) as refused:
            rollback(folder, to)
        assert refused.value.remedy.endswith(f"journeyman releases --releases '{folder}'")
    promote(bundles[1], folder)
    shutil.rmtree(folder / "0001")
    with pytest.raises(InputError) as gone:
        rollback(folder, to=1)
    assert gone.value.remedy.endswith(f"journeyman releases --releases '{folder}'")


def test_an_override_that_is_not_needed_is_said(
    bundles: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("promote", bundles[0], "--override", "a pilot") == 0
    assert "--override had no effect" in capsys.readouterr().err
    iterate = write_bundle(tmp_path / "iterate", "x", override="a test")
    assert call("promote", iterate, "--override", "a pilot") == 0
    assert "--override" not in capsys.readouterr().err


def test_a_changed_bundle_with_a_folder_named_like_a_stage_is_refused(bundles: list[Path], folder: Path) -> None:
    promote(bundles[0], folder)
    promote(bundles[1], folder)
    for place in (bundles[2], place_of_release(folder, 1)):
        (place / "01-interactions").mkdir()
        (place / "01-interactions" / "x").write_text("x")
        (place / "base.gguf").write_bytes(b"x")
        assert any("base.gguf: changed" in one for one in verify(place).findings)
    with pytest.raises(ChangedArtifact):
        promote(bundles[2], folder)
    with pytest.raises(ChangedArtifact):
        rollback(folder)
    assert _number(folder) == 2


@pytest.mark.parametrize("name", ["../elsewhere/base.gguf", "scripts/base.gguf", "/elsewhere/base.gguf"])
def test_a_base_outside_of_the_bundle_is_refused_beside_one_of_its_name(name: str, tmp_path: Path) -> None:
    place = write_bundle(tmp_path / "x", "x", base_file=name)
    for act in (lambda: promote(place, tmp_path / "releases"), lambda: prepared(place, ServeConfig(), True, print)):
        with pytest.raises(InputError, match=r"base\.gguf is not among its files"):
            act()


def test_errors_about_a_release_name_no_command_that_cannot_help(bundles: list[Path], folder: Path) -> None:
    promote(bundles[0], folder)
    (folder / "0001" / "base.gguf").write_bytes(b"x")
    with pytest.raises(ChangedArtifact) as refused:
        prepared(folder / "0001", ServeConfig(), True, print)
    assert "base.gguf: changed" in refused.value.what and "journeyman run" not in refused.value.remedy
    other = {"name": "fake", "version": "1", "build": {}, "settings": {}, "processor": "one", "cpu_features": []}
    place = write_bundle(folder.parent / "x", "x", engine=other)
    with pytest.raises(StaleArtifact) as stale:
        prepared(promote(place, folder).place, ServeConfig(), False, print)
    assert "journeyman run --redo --dir RUN" in stale.value.remedy


def test_a_bundle_without_a_deploy_verdict_needs_an_override_on_record(tmp_path: Path, folder: Path) -> None:
    iterate = write_bundle(tmp_path / "x", "x", override="a test", verdicts={"coder": "iterate"})
    with pytest.raises(NotDeployable, match="exported despite the verdict"):
        promote(iterate, folder)
    assert not folder.exists()
    promote(iterate, folder, override="a pilot")
    (event,) = record_of(folder).events
    assert (event.override, event.verdicts) == ("a pilot", {"coder": "iterate"})
    good = write_bundle(tmp_path / "y", "y")
    promote(good, folder, override="not needed")
    assert record_of(folder).events[-1].override is None
    target = {"name": "gguf", "merged": "Q8_0", "evaluated": False, "deployable": False, "trials": [],
              "why_not": {"code": "merged_not_evaluated", "details": {"format": "Q8_0"}}}  # fmt: skip
    merged = write_bundle(tmp_path / "z", "z", target=target)
    with pytest.raises(NotDeployable, match="another file than the one that was"):
        promote(merged, folder, override="I want it")
    allowed = write_bundle(tmp_path / "w", "w", target=target | {"allowed": "a demo"})
    with pytest.raises(NotDeployable, match="another file than the one that was"):
        promote(allowed, folder)
    assert promote(allowed, folder, override="a demo").number == 3
    for settings, said in (({}, "settings.context"), (SETTINGS | {"parallel": 0}, "settings.parallel")):
        with pytest.raises(InputError, match=f"cannot be served: {said}"):
            promote(write_bundle(tmp_path / f"s{len(settings)}", "s", settings=settings), folder)
    with pytest.raises(InputError, match=r"elsewhere\.gguf is not among its files"):
        promote(write_bundle(tmp_path / "u", "u", adapter_files={"all": "elsewhere.gguf"}), folder)
    with pytest.raises(InputError, match="contains no base"):
        promote(write_bundle(tmp_path / "v", "v", base_file=""), folder)
    assert _number(folder) == 3


def test_changed_bundles_and_releases_are_refused_and_the_pointer_stays(bundles: list[Path], folder: Path) -> None:
    promote(bundles[0], folder)
    promote(bundles[1], folder)
    for change in (lambda path: path.write_bytes(b"x"), lambda path: path.unlink()):
        change(bundles[2] / "adapter.gguf")
        with pytest.raises(ChangedArtifact, match=r"adapter\.gguf: (changed|missing)"):
            promote(bundles[2], folder)
    (folder / "0001" / "base.gguf").write_bytes(b"x")
    with pytest.raises(ChangedArtifact, match=r"0001/base\.gguf: changed"):
        rollback(folder)
    assert _number(folder) == 2 and kept(folder) == [1, 2]
    assert promote(bundles[0], folder).number == 3, "a damaged copy is not used again"
    (folder / "0003" / "manifest.json").write_bytes((folder / "0002" / "manifest.json").read_bytes())
    with pytest.raises(ChangedArtifact, match="another bundle than the one that was promoted"):
        current(folder)


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "scripts/../../evil", ""])
def test_a_hostile_manifest_leads_out_of_no_folder(name: str, bundles: list[Path], folder: Path) -> None:
    path = bundles[0] / "manifest.json"
    (bundles[0].parent / "evil").write_text("x")
    data = read_json(path)
    data["stamp"]["files"][name] = hash_of_file(bundles[0].parent / "evil")
    data["stamp"]["sha256"] = own_hash(data)
    path.write_bytes(manifest_bytes(data))
    assert any("names a file outside of the folder" in one for one in verify(bundles[0]).findings)
    with pytest.raises(ChangedArtifact, match="outside of the folder"):
        promote(bundles[0], folder)
    assert not folder.exists()


def test_links_are_not_followed_into_a_release(bundles: list[Path], folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text((bundles[0] / "base.gguf").read_text())
    (bundles[0] / "base.gguf").unlink()
    (bundles[0] / "base.gguf").symlink_to(tmp_path / "secret")
    with pytest.raises(ChangedArtifact, match="not a regular file"):
        promote(bundles[0], folder)


@pytest.mark.parametrize("damage", ["", "{", '{"current": 1, "events": []}', '{"current": null, "events": [{}]}', "[]"])
def test_a_damaged_record_is_refused_and_never_replaced(damage: str, bundles: list[Path], folder: Path) -> None:
    promote(bundles[0], folder)
    (folder / RECORD).write_text(damage)
    for act in (lambda: current(folder), lambda: promote(bundles[1], folder), lambda: rollback(folder)):
        with pytest.raises(InputError, match=r"releases\.json"):
            act()
    assert (folder / RECORD).read_text() == damage


def test_a_follower_sees_each_change_once(bundles: list[Path], folder: Path) -> None:
    new = Follower(folder)
    assert new.changed() is None
    known = promote(bundles[0], folder)
    assert (found := new.changed()) is not None and found.number == 1 and new.changed() is None
    late = Follower(folder, known)
    promote(bundles[1], folder)
    assert (found := late.changed()) is not None and found.number == 2
    promote(bundles[0], folder)
    rollback(folder)
    assert late.changed() is None, "it already uses the one that is current again"
    assert (found := new.changed()) is not None and found.number == 2
    before = (folder / RECORD).read_bytes()
    (folder / RECORD).write_text("{")
    for _ in range(2):
        with pytest.raises(InputError):
            new.changed()
    (folder / RECORD).write_bytes(before)
    assert new.changed() is None


@contextmanager
def _promoting(folder: Path, bundles: list[Path]) -> Iterator[subprocess.Popen[str]]:
    helper = subprocess.Popen(
        [sys.executable, HELPER, str(folder), *map(str, bundles)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env=ENV,
    )  # fmt: skip
    try:
        yield helper
    finally:
        helper.communicate()


def _ended(helper: subprocess.Popen[str], command: str) -> int:
    assert helper.stdin and helper.stdout
    helper.stdin.write(f"{command}\n")
    helper.stdin.flush()
    return int(helper.stdout.readline())


def test_killed_at_every_step_one_whole_release_is_current(bundles: list[Path], folder: Path) -> None:
    promote(bundles[0], folder)
    steps = {"promote 1": 0, "rollback": 0}
    with _promoting(folder, bundles) as helper:
        for command, of in (("promote 1", (1, 2)), ("rollback", (2, 1))):
            while (code := _ended(helper, f"{command} {steps[command] + 1}")) != 0:
                steps[command] += 1
                assert code == -signal.SIGKILL
                assert _number(folder) in of and record_of(folder).current in of
                if _number(folder) == of[1]:  # killed after the rename: it counts, and what follows begins as before
                    assert _ended(helper, "rollback" if command == "promote 1" else "promote 1") == 0
            assert _number(folder) == of[1]
            assert not [path for path in folder.iterdir() if path.name.endswith(".tmp")]
    assert steps["promote 1"] > 10 and steps["rollback"] > 3, "it was killed in the middle of both"
    assert all(verify(folder / f"{number:04}").findings == [] for number in kept(folder))


def test_two_that_promote_at_once_lose_nothing(bundles: list[Path], folder: Path) -> None:
    done = 0
    with _promoting(folder, bundles) as one, _promoting(folder, bundles) as other:
        for number in range(12):
            for helper in (one, other):
                assert helper.stdin
                helper.stdin.write(f"promote {number % 3}\n" if helper is one else f"promote {(number + 1) % 3}\n")
                helper.stdin.flush()
            codes = [int(helper.stdout.readline()) for helper in (one, other) if helper.stdout]
            assert set(codes) <= {0, 2} and 0 in codes, "one is told that another is at work, and both never fail"
            done += codes.count(0)
    record = record_of(folder)
    assert len(record.events) == done and record.current == record.events[-1].number == _number(folder)
    assert [event.before for event in record.events] == [None, *(event.number for event in record.events[:-1])]
    assert len({event.sha256 for event in record.events}) == len(kept(folder)) == 3
    assert all(verify(folder / f"{number:04}").findings == [] for number in kept(folder))


def test_while_another_is_at_work_it_says_so(bundles: list[Path], folder: Path) -> None:
    with locked(folder), pytest.raises(UsageError, match="another journeyman is running"):
        promote(bundles[0], folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_on_a_full_disk_the_old_release_stays(bundles: list[Path], tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        folder = disk / "releases"
        promote(bundles[0], folder)
        for leave in (0, 4096, 8192, 16_384):
            ballast, full = fill(disk, leave), False
            try:
                promote(bundles[1], folder)
            except DiskFull:
                full = True
                assert _number(folder) == 1 and kept(folder) in ([1], [1, 2])
                assert not list(folder.glob(".*.tmp"))
            assert full or leave, "at least on a disk without any space, it fails"
            ballast.unlink()
        assert promote(bundles[1], folder).number == 2 == _number(folder)
        ballast = fill(disk)
        with pytest.raises(DiskFull):
            rollback(folder)
        assert _number(folder) == 2
        ballast.unlink()
        assert rollback(folder).number == 1


def test_the_commands(bundles: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert releases_of(bundles[0]) == tmp_path / "releases"
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    (bundles[2]).rename(run / "07-bundle")
    assert releases_of(run) == releases_of(run / "07-bundle") == tmp_path / "runs" / "releases"
    assert releases_of(run / "targets" / "gguf") == tmp_path / "runs" / "releases", "as of its run"
    assert call("releases", run) == 0 and "kept none; current none" in capsys.readouterr().out
    assert call("promote", run, "--why", "first\x1b[31m") == 0
    assert "release 1 is current (coder)" in capsys.readouterr().out
    place = ["--releases", tmp_path / "elsewhere"]
    assert call("promote", bundles[0], *place) == 0 == call("promote", bundles[1], *place)
    assert call("rollback", *place, "--why", "worse") == 0
    assert call("rollback", *place, "--to", "9") == 2
    iterate = write_bundle(tmp_path / "iterate", "x", verdicts={"coder": "iterate"})
    assert call("promote", iterate, *place) == 3
    assert call("promote", iterate, *place, "--override", " ") == 2
    capsys.readouterr()
    assert call("releases", *place) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and "rollback 1 (was 2): worse [coder deploy]" in lines[2]
    assert lines[3].endswith("elsewhere: kept 1, 2; current 1")
    assert call("releases", run, "--json") == 0
    assert json.loads(capsys.readouterr().out)["events"][0]["why"] == "first\x1b[31m"
