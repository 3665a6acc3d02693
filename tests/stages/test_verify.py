"""Files are used as they were made: `verify` and the stage that reads a file find every changed byte."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import log_row
from journeyman.artifacts import MANIFEST, hash_of_file, read_json
from journeyman.cli.serve import serve_bundle
from journeyman.config import load_config
from journeyman.errors import ChangedArtifact, InputError
from journeyman.evidence import LOOKS, RESPONSES
from journeyman.inference.response_cache import ResponseCache
from journeyman.inference.sequential_testing import count_look
from journeyman.lineage import own_hash, result_hash
from journeyman.look_history import fewer_looks
from journeyman.pipeline import STAGES, Run, read_result
from journeyman.time_history import TIMES
from journeyman.verifying import NOT_COVERED, verify
from test_pipeline import call

TOML = (
    "[base]\nmodel = 'tiny.gguf'\n[data]\nsources = ['*.jsonl']\n[train]\nepochs = 1\nthreads = 1\n"
    "retention = { share = 0 }\n[train.lora]\nrank = 4\n[evaluate]\nmax_new_tokens = 4\ncontext = 512\n"
    "threads = 1\nparallel = 1\nprobes = false\n"
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Path:
    """A run with a bundle, with base and logs in its folder."""
    folder = tmp_path_factory.mktemp("verified") / "run"
    folder.mkdir()
    shutil.copyfile(tiny_gguf, folder / "tiny.gguf")
    (folder / "logs.jsonl").write_text("".join(json.dumps(log_row(i)) + "\n" for i in range(40)))
    (folder / "journeyman.toml").write_text(TOML)
    assert call("export", "--dir", folder, "--override", "a test") == 3
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "a copy"))


def _covered(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.relative_to(root).parts[0] not in NOT_COVERED:
            yield path


def _flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1]))


def test_a_finished_run_and_its_bundle_verify(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = verify(finished)
    assert found.findings == [] and found.notes == []
    assert found.files > 40 and all(name in "".join(found.not_covered) for name in ("journeyman.toml", ".lock"))
    assert call("verify", finished) == 0
    printed = capsys.readouterr().out
    assert "files compared: unchanged" in printed and "not covered: journeyman.toml" in printed
    assert call("verify", finished / "07-bundle") == 0
    assert call("verify", finished / "07-bundle" / "nothing") == 2


def test_one_byte_changed_in_any_file_is_found_and_only_that_file_is_named(run: Path) -> None:
    paths = list(_covered(run))
    named = {str(path.relative_to(run)) for path in paths}
    assert {f"{stage.folder}/{MANIFEST}" for stage in STAGES} <= named
    assert {RESPONSES, LOOKS, "logs.jsonl", "tiny.gguf", "04-adapter/metrics.jsonl"} <= named
    assert any("checkpoints" in name and name.endswith("state.json") for name in named)
    for number, path in enumerate(paths):
        whole, size = path.read_bytes(), path.stat().st_size
        for place in {0, size // 2, size - 1, (number * 7919) % size} if size else ():
            _flip(path, place)
            found = verify(run).findings
            assert len(found) == 1 and found[0].startswith(str(path)), (path, place, found)
            path.write_bytes(whole)
    assert verify(run).findings == []


def test_missing_and_unexpected_files_are_found(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("05-evaluation/scores.jsonl", "07-bundle/prompts.json"):
        (run / name).unlink()
        (run / f"{name}.old").write_text("x")
    (run / "03-plan" / "link").symlink_to(run)
    found = verify(run).findings
    assert len(found) == 5 and sum(": missing; " in one for one in found) == 2
    assert sum("not among the files" in one for one in found) == 3
    assert call("verify", run) == 1
    assert "5 findings" in capsys.readouterr().out
    shutil.rmtree(run / "03-plan")
    assert any("03-plan: missing; train was made from it" in one for one in verify(run).findings)


def test_removed_looks_are_found(run: Path) -> None:
    (run / LOOKS).unlink()
    assert ["contains 0 looks" in one for one in verify(run).findings] == [True]
    assert [str(run / LOOKS) in one for one in verify(run).findings] == [True]


def test_looks_of_another_history_are_found(run: Path) -> None:
    """The same number of looks at these rows, but different ones."""
    sealed = read_json(run / LOOKS)["sealed"]
    (run / LOOKS).unlink()
    count_look(run, sealed, {"another": "adapter"})
    assert ["its first 1 lines are not those" in one for one in verify(run).findings] == [True]


def test_kept_answers_that_are_gone_are_noted_and_others_are_found(run: Path) -> None:
    whole = (run / RESPONSES).read_bytes().splitlines(keepends=True)
    for left in (whole[1:], [whole[1], whole[0], *whole[2:]]):
        (run / RESPONSES).write_bytes(b"".join(left))
        assert [str(run / RESPONSES) in one for one in verify(run).findings] == [True], "each line is sound by itself"
    (run / RESPONSES).write_bytes(b"".join([*whole, whole[0]]))
    assert verify(run).findings == [], "it may grow"
    (run / RESPONSES).unlink()
    found = verify(run)
    assert found.findings == [] and ["asks everything again" in note for note in found.notes] == [True]


@pytest.mark.parametrize("command", ["evaluate", "decide"])
def test_fewer_looks_than_a_manifest_tells_of_are_refused(
    command: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copy without the record would count from 1 again, which would void the error rate."""
    look_again = ("evaluate", "--dir", run, "--redo", "--set", "evaluate.max_new_tokens=3")
    assert call(*look_again) == 0
    assert read_result(run, "evaluate")[1].model_dump(include={"look", "looks"}) == {"look": 2, "looks": 2}
    kept, settings = (run / LOOKS).read_bytes(), look_again[3:] if command == "evaluate" else look_again[4:]
    if command == "evaluate":
        settings = ("--redo", "--set", "evaluate.max_new_tokens=2")
        shutil.rmtree(run / "05-evaluation")
    for left, why in ((None, "contains 0 looks"), (kept.splitlines(keepends=True)[1], "not known")):
        (run / LOOKS).unlink() if left is None else (run / LOOKS).write_bytes(left)
        capsys.readouterr()
        assert call(command, "--dir", run, *settings) == 1
        said = capsys.readouterr().err
        assert str(run / LOOKS) in said and why in said and "curate.seed" in said, said
        assert left is not None or "manifest.json reports" in said
        assert (run / "06-decision" / MANIFEST).is_file(), "nothing is moved"
    (run / LOOKS).write_bytes(kept)
    assert call(command, "--dir", run, *settings, *(["--redo"] if command == "decide" else [])) != 1
    told = read_result(run, "evaluate")[1].model_dump(include={"look", "looks"})
    assert told == ({"look": 3, "looks": 3} if command == "evaluate" else {"look": 2, "looks": 2})


def test_a_run_with_the_old_names_goes_on_and_its_looks_count(run: Path) -> None:
    _as_an_older_version_left_it(run)
    assert verify(run).findings == []
    away = (run / ".looks").rename(run / "elsewhere")
    assert any("contains 0 looks" in one for one in verify(run).findings)
    assert call("evaluate", "--dir", run, "--redo", "--set", "evaluate.max_new_tokens=3") == 1
    away.rename(run / ".looks")
    assert call("evaluate", "--dir", run, "--redo", "--set", "evaluate.max_new_tokens=3") == 0
    made = read_result(run, "evaluate")[1].model_dump()
    assert (made["look"], made["looks"]) == (2, 2) and not (run / ".looks").exists() and not (run / ".answers").exists()
    assert [one["file"] for one in made["evidence"]] == [LOOKS, RESPONSES]
    assert made["evidence"][0]["lines"] == 2 and made["evidence"][0]["sha256"] == hash_of_file(run / LOOKS)


@pytest.mark.parametrize("written", ["", "{", "[]", '{"stamp": {"stage": "evaluate", "inputs": {}}, "result": 3}'])
def test_a_superseded_manifest_that_cannot_be_read_stops_nothing(written: str, run: Path) -> None:
    """The manifest was set aside because it was damaged."""
    place = run / "superseded" / "05-evaluation-20260101T000000000000"
    place.mkdir(parents=True)
    (place / MANIFEST).write_text(written)
    assert verify(run).findings == [] and fewer_looks(run) == ""


@pytest.mark.parametrize(
    "listed", [None, 3, [{"file": LOOKS, "bytes": 1}], [{"file": RESPONSES, "lines": 1, "sha256": ""}]]
)
def test_a_superseded_manifest_counts_whatever_else_it_holds(listed: object, run: Path) -> None:
    data = read_json(run / "05-evaluation" / MANIFEST)
    data["result"] |= {"looks": 2, "evidence": listed}
    del data["stamp"]["sha256"]
    place = run / "superseded" / "05-evaluation-20260101T000000000000"
    place.mkdir(parents=True)
    (place / MANIFEST).write_text(json.dumps(data))
    assert "superseded/05-evaluation-20260101T000000000000/manifest.json reports 2" in fewer_looks(run)
    data["result"]["sealed_sha256"] = "0" * 64
    (place / MANIFEST).write_text(json.dumps(data))
    assert fewer_looks(run) == "", "other sealed rows"


def test_what_an_older_version_counted_beside_the_new_record_is_taken_over(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    count_look(tmp_path, "a", {"adapter": 1})
    for adapter in (1, 2):
        count_look(other, "a", {"adapter": adapter})
    (other / LOOKS).rename(tmp_path / ".looks")
    assert count_look(tmp_path, "a", {"adapter": 3}) == (3, 3)
    assert not (tmp_path / ".looks").exists() and count_look(tmp_path, "a", {"adapter": 2}) == (2, 3)


def _damage(name: str, place: int = -2) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        size = (run / name).stat().st_size
        _flip(run / name, place if place >= 0 else size + place)

    return damage


def _redone(folder: str) -> Callable[[Path], None]:
    return lambda run: shutil.rmtree(run / folder)


READ = {
    "02-dataset": ["01-interactions/interactions.jsonl.zst", f"01-interactions/{MANIFEST}"],
    "03-plan": [f"02-dataset/{MANIFEST}"],
    "04-adapter": ["02-dataset/train.jsonl", "02-dataset/val.jsonl", f"03-plan/{MANIFEST}"],
    "05-evaluation": ["02-dataset/sealed/test.jsonl", "04-adapter/adapter.gguf", f"04-adapter/{MANIFEST}"],
    "06-decision": ["05-evaluation/scores.jsonl", "05-evaluation/predictions.jsonl", "04-adapter/metrics.jsonl"],
    "07-bundle": ["04-adapter/adapter.gguf", f"06-decision/{MANIFEST}", f"05-evaluation/{MANIFEST}"],
}
"""Stage → the files that it reads."""


@pytest.mark.parametrize(("stage", "name"), [(stage, name) for stage, names in READ.items() for name in names])
def test_a_stage_refuses_what_changed_since_it_was_made(
    stage: str, name: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for later in STAGES:
        if later.folder >= stage:
            shutil.rmtree(run / later.folder)
    _damage(name)(run)
    until = next(one.name for one in STAGES if one.folder == stage)
    assert call("run", "--until", until, "--dir", run) == 1
    message = capsys.readouterr().err
    assert str(run / name) in message and "journeyman run --redo --dir" in message and "Traceback" not in message
    assert sum(line.startswith("journeyman:") for line in message.splitlines()) == 1
    assert not (run / stage / MANIFEST).exists()


def test_a_verdict_edited_by_hand_is_not_exported(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "06-decision" / MANIFEST
    data = read_json(path)
    data["result"]["verdict"] = data["result"]["roles"]["coder"]["verdict"] = "deploy"
    data["result"]["deployed_roles"] = ["coder"]
    path.write_text(json.dumps(data, indent=2))
    shutil.rmtree(run / "07-bundle")
    assert call("export", "--dir", run) == 1
    assert "changed after decide made it" in capsys.readouterr().err
    assert not (run / "07-bundle").exists()


@pytest.mark.parametrize("name", ["adapter.gguf", "base.gguf", "prompts.json", MANIFEST])
def test_serve_refuses_a_bundle_that_changed(name: str, run: Path) -> None:
    _damage(f"07-bundle/{name}")(run)
    with pytest.raises(ChangedArtifact, match=name):
        serve_bundle(run, 0)


def test_redo_makes_again_what_changed_and_keeps_the_rest(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = hash_of_file(run / "04-adapter" / MANIFEST)
    _damage("02-dataset/train.jsonl")(run)
    assert call("plan", "--dir", run) == 0, "what is not read again is not compared"
    assert call("plan", "--redo", "--dir", run) == 0
    told = capsys.readouterr().err
    assert "train.jsonl: changed after curate made it" in told and "03 plan      unchanged" in told
    assert verify(run).findings == [] and hash_of_file(run / "04-adapter" / MANIFEST) == before
    (run / "03-plan" / MANIFEST).write_text("")
    assert call("plan", "--redo", "--dir", run) == 0
    assert "it is empty" in capsys.readouterr().err


MANIFESTS = {
    "cut": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "no text": lambda text: "\udcff",
    "a list": lambda text: "[]",
    "a number": lambda text: "3",
    "nested": lambda text: "[" * 100_000,
    "no stamp": lambda text: '{"result": {}}',
    "a stamp of another type": lambda text: '{"stamp": [], "result": {}}',
    "another stage's": lambda text: text.replace('"stage": "plan"', '"stage": "train"'),
    "no files": lambda text: text.replace('"files"', '"fyles"'),
    "another version's": lambda text: json.dumps(_old(json.loads(text))),
}


def _old(data: dict[str, Any]) -> dict[str, Any]:
    data["stamp"] |= {"sha256": None, "journeyman": "9.1"}
    data["result"]["unheard_of"] = 1
    return data


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_cannot_be_used_is_one_sentence(
    name: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "03-plan" / MANIFEST
    path.write_text(MANIFESTS[name](path.read_text()), errors="surrogateescape")
    for verb in (("status",), ("show", "plan"), ("run",)):
        assert call(*verb, "--dir", run) == 1
        message = capsys.readouterr().err
        assert str(path) in message and "--redo" in message and "Traceback" not in message
        assert sum(line.startswith("journeyman:") for line in message.splitlines()) == 1
        assert "9.1" in message or name != "another version's"
    assert [one.startswith(str(path)) for one in verify(run).findings] == [True]


def _sign(path: Path, data: Any) -> None:
    """Writes a manifest with its own hash, as somebody would who forges it."""
    data["stamp"]["sha256"] = own_hash(data)
    path.write_text(json.dumps(data, indent=2, ensure_ascii="\\ud800" in json.dumps(data)) + "\n")


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b", "a" * 5000])
def test_a_file_name_that_cannot_be_one_is_one_finding(
    name: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "07-bundle" / MANIFEST
    data = read_json(path)
    data["stamp"]["files"][name] = "0"
    _sign(path, data)
    for place in (run, run / "07-bundle"):
        assert sum(str(path.parent) in one for one in verify(place).findings) == 1
    assert call("promote", run, "--releases", run.parent / "releases", "--override", "a test") == 1
    message = capsys.readouterr().err
    assert str(path.parent) in message and "Traceback" not in message


def test_what_is_not_a_target_is_one_finding_each(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    targets = run / "targets"
    for name in (".gguf.999.tmp", "releases"):
        (targets / name).mkdir(parents=True)
    (targets / "notes.txt").write_text("x")
    (targets / ".lock").write_text("x")
    (targets / "gone").symlink_to(run / "nowhere")
    (run / "07-bundle" / "checkpoints").touch()
    (run / "04-adapter" / "sub").mkdir()
    (run / "04-adapter" / "sub" / "checkpoints").symlink_to(run / "04-adapter")
    assert call("verify", run) == 1
    lines = {one.rpartition(": ")[0]: one for one in capsys.readouterr().out.splitlines() if ": " in one}
    for name, said in (
        ("targets/.gguf.999.tmp", "interrupted export"), ("targets/releases", "not a target"),
        ("targets/notes.txt", "not a target"), ("targets/gone", "a link to"),
        ("07-bundle/checkpoints", "not among the files"), ("04-adapter/sub/checkpoints", "a link"),
    ):  # fmt: skip
        assert [said in line for line in lines.values() if line.startswith(f"{run / name}:")] == [True], (name, lines)


def test_a_folder_that_is_a_file_is_one_finding(run: Path) -> None:
    shutil.rmtree(run / "07-bundle")
    (run / "07-bundle").touch()
    (finding,) = verify(run).findings
    assert finding.startswith(str(run / "07-bundle")) and "cannot be read (Not a directory)" in finding


def _as_an_older_version_left_it(run: Path) -> None:
    """Manifests without their own hashes and without a record of the evidence, whose files have their old names."""
    hashes: dict[str, str] = {}
    for stage in STAGES:
        path = run / stage.folder / MANIFEST
        data = read_json(path)
        del data["stamp"]["sha256"]
        if stage.name == "evaluate":
            for key in ("looks", "sealed_sha256", "evidence"):
                del data["result"][key]
        data["stamp"]["inputs"] |= {name: made for name, made in hashes.items() if name in data["stamp"]["inputs"]}
        hashes[stage.folder] = result_hash(data)
        path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    for new, old in ((LOOKS, ".looks"), (RESPONSES, ".answers")):
        (run / new).rename(run / old)
    (run / TIMES).unlink()
    (run / "evidence").rmdir()


def test_a_run_of_an_older_version_opens_and_is_said_to_hold_no_hashes(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _as_an_older_version_left_it(run)
    for name in (".answers", ".looks"):
        lines = [json.loads(line) for line in (run / name).read_text().splitlines()]
        (run / name).write_text("".join(json.dumps({k: v for k, v in x.items() if k != "sum"}) + "\n" for x in lines))
    assert call("export", "--dir", run, "--override", "a test") == 3
    found = verify(run)
    assert found.findings == [] and len(found.notes) == len(STAGES) + 2
    shutil.rmtree(run / "07-bundle")
    capsys.readouterr()
    assert call("export", "--dir", run, "--override", "a test") == 3
    assert "06-decision" in (told := capsys.readouterr().err) and "edits of them are not detected" in told
    assert all("did not record a hash" in note or "without checksums" in note for note in found.notes)


# --- response cache and looks --------------------------------------------------------------------------


def test_kept_answers_that_changed_are_dropped_and_counted(run: Path) -> None:
    path = run / RESPONSES
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    edited = lines[1].replace(b'"text": "', b'"text": "def good(): pass')
    path.write_bytes(
        lines[0] + edited + b"{}\nnull\n\xff\xfe\n" + b"[" * 99_999 + b"\n" + b"".join(lines[2:]) + b'{"ke'
    )
    answers = ResponseCache(run)
    assert answers.damaged == 5 and path.read_bytes() == lines[0] + b"".join(lines[2:])
    assert ResponseCache(run).damaged == 0


def test_answers_of_an_older_version_are_taken_once(run: Path) -> None:
    path = run / RESPONSES
    whole = path.read_bytes()
    lines = [json.loads(line) for line in whole.splitlines()]
    old = ["".join(json.dumps({k: v for k, v in one.items() if k != "sum"}) + "\n") for one in lines]
    path.write_text("".join(old))
    assert ResponseCache(run).damaged == 0 and path.read_bytes() == whole
    path.write_bytes(whole + old[0].encode())
    assert ResponseCache(run).damaged == 1 and path.read_bytes() == whole


def test_looks_that_changed_are_refused(tmp_path: Path) -> None:
    path = tmp_path / ".looks"
    old = '{"sealed": "a", "judged": "x"}\n'
    path.write_text(old)
    assert [count_look(tmp_path, "a", {"adapter": n}).number for n in (1, 2, 1)] == [2, 3, 2], "an old line counts"
    assert not path.exists()
    path = tmp_path / LOOKS
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 3
    for damaged in (
        [lines[0], lines[2]], [lines[1], lines[2]], [*lines, old], [*lines, "\n"], [*lines, "garbage\n"],
        [*lines, '{"sealed": 1}\n'], [lines[0], lines[1].replace('"a"', '"b"'), lines[2]], [*lines[:2], lines[2][:-1]],
    ):  # fmt: skip
        path.write_text("".join(damaged))
        with pytest.raises(ChangedArtifact, match=r"looks\.jsonl:\d: .*not known.*curate\.seed"):
            count_look(tmp_path, "a", {"adapter": 3})
    path.write_text("".join(lines))
    assert count_look(tmp_path, "a", {"adapter": 3}) == (4, 4)


def test_an_answer_edited_by_hand_is_asked_again_and_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / RESPONSES
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0].replace(b'"text": "', b'"text": "def good(): pass') + b"".join(lines[1:]))
    before = read_result(run, "evaluate")[1].model_dump()["roles"]["coder"]["arms"]["base"]["success"]
    for folder in ("05-evaluation", "06-decision", "07-bundle"):
        shutil.rmtree(run / folder)
    assert call("evaluate", "--dir", run) == 0
    assert "1 entries of the response cache were damaged or edited" in capsys.readouterr().err
    assert b"def good" not in path.read_bytes() and len(path.read_bytes().splitlines()) == len(lines)
    assert read_result(run, "evaluate")[1].model_dump()["roles"]["coder"]["arms"]["base"]["success"] == before
    assert b"def good" not in (run / "05-evaluation" / "predictions.jsonl").read_bytes()


# --- moved runs, links ---------------------------------------------------------------------------------


def test_a_moved_run_goes_on(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = tmp_path / "elsewhere" / "ein Läufer"
    moved.parent.mkdir()
    copied = shutil.copytree(finished, tmp_path / "first")
    copied.rename(moved)
    toml = moved / "journeyman.toml"
    gone = (tmp_path / "first").resolve()
    for stage in ("03-plan", "05-evaluation", "07-bundle"):
        text = (moved / stage / MANIFEST).read_text()
        assert str(finished) in text or stage == "07-bundle", "the old path stands in the manifest"
    toml.write_text(toml.read_text().replace("tiny.gguf", f"{gone}/tiny.gguf"))
    assert verify(moved).findings == []
    assert call("evaluate", "--dir", moved) == 0
    assert call("export", "--dir", moved, "--override", "a test") == 3
    assert capsys.readouterr().err.count("unchanged") == 5 + 7
    shutil.rmtree(moved / "07-bundle")
    original = finished / "tiny.gguf"
    aside = original.rename(original.with_suffix(".away"))
    try:
        assert call("export", "--dir", moved, "--override", "a test") == 3
        assert hash_of_file(moved / "07-bundle" / "base.gguf") == hash_of_file(moved / "tiny.gguf")
        assert verify(moved).findings == []
        (moved / "tiny.gguf").rename(tmp_path / "other.gguf")
        shutil.rmtree(moved / "07-bundle")
        capsys.readouterr()
        assert call("export", "--dir", moved, "--override", "a test") == 1
        message = capsys.readouterr().err
        assert f"{gone}/tiny.gguf" in message and "--set base.model=" in message
        setting = f"base.model={tmp_path / 'other.gguf'}"
        assert call("export", "--dir", moved, "--override", "a test", "--set", setting) == 3
    finally:
        aside.rename(original)
    assert read_result(moved, "export")[0].sha256


def test_a_linked_stage_folder_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "04-adapter").rename(run / "other")
    (run / "04-adapter").symlink_to(run / "other")
    for verb in ("train", "export", "status"):
        assert call(verb, "--dir", run) == 1
        assert "04-adapter: a link to" in capsys.readouterr().err
    with pytest.raises(ChangedArtifact, match="a link to"):
        Run(run, load_config(run / "journeyman.toml")).file("train", "adapter.gguf")
    assert any("a link to" in one for one in verify(run).findings)


def test_the_bundle_is_no_link_to_the_base(finished: Path) -> None:
    bundled = finished / "07-bundle" / "base.gguf"
    assert bundled.stat().st_nlink == 1 and not bundled.samefile(finished / "tiny.gguf")


def test_logs_of_one_name_are_told_apart(make_run: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(rows=[log_row(i) for i in range(4)])
    (folder / "s").mkdir()
    shutil.copyfile(folder / "logs.jsonl", folder / "s" / "logs.jsonl")
    both = ("--set", "data.sources=['logs.jsonl', 's']", "--dir", folder)
    assert call("ingest", *both) == 0
    for name in ("logs.jsonl", "s/logs.jsonl"):
        whole = (folder / name).read_text()
        (folder / name).write_text(whole + json.dumps(log_row(9)) + "\n")
        capsys.readouterr()
        assert call("ingest", *both) == 1
        assert f"source {name}:" in capsys.readouterr().err
        (folder / name).write_text(whole)
    assert call("ingest", *both) == 0
    assert verify(folder).findings == []
    (folder / "s" / "logs.jsonl").write_text("{}")
    assert [str(folder / "s" / "logs.jsonl") in one for one in verify(folder).findings] == [True]


def test_logs_may_move(make_run: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = make_run(rows=[log_row(i) for i in range(4)])
    (folder / "s").mkdir()
    (folder / "logs.jsonl").rename(folder / "s" / "logs.jsonl")
    assert call("ingest", "--set", "data.sources=['s']", "--dir", folder) == 0
    (folder / "s").rename(tmp_path / "t")
    assert call("ingest", "--set", f"data.sources=['{tmp_path / 't'}']", "--dir", folder) == 0
    assert "unchanged" in capsys.readouterr().err
    found = verify(folder)
    assert found.findings == [] and any("logs.jsonl: no longer there, not compared" in note for note in found.notes)


def test_a_base_that_cannot_be_used_is_refused_before_the_logs_are_read(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    assert call("curate", "--dir", folder, "--set", "base.model='logs.jsonl'") == 1
    assert not (folder / "01-interactions").exists()
    assert issubclass(ChangedArtifact, InputError)
