"""Files as people have them: encodings, layouts, archives, rotation, damage; and that every field is accounted for."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import random
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import zstandard

from conftest import SHARED
from journeyman.config import DataConfig, RedactConfig
from journeyman.errors import InputError, UsageError
from journeyman.protocols import SilentReporter
from journeyman.reasons.files import FileDamaged
from journeyman.records import Interaction, Rejected
from journeyman.sources.explain import NOT_KEPT, explained
from journeyman.sources.files import bare_name, log_sources, read_file, sources_of
from journeyman.sources.reader import Reader
from journeyman.stages.ingest import ingest

FIXTURES = Path(__file__).parents[1] / "fixtures"


def chat(number: int, answer: str = "Réponse.") -> dict[str, Any]:
    turns = [{"role": "user", "content": f"Question {number}?"}, {"role": "assistant", "content": answer}]
    return {"messages": turns}


def lines(count: int = 3) -> bytes:
    return "".join(json.dumps(chat(n), ensure_ascii=False) + "\n" for n in range(count)).encode()


def read(path: Path, **config: Any) -> list[Interaction | Rejected]:
    data = DataConfig(**config)
    reader = Reader(data)
    return [one for row, _ in read_file(path, 0, data.encoding) for one in reader.records(row, path.name)]


def asked(found: list[Interaction | Rejected]) -> list[str]:
    return [one.messages[-1].content if isinstance(one, Interaction) else f"! {one.reason.sentence()}" for one in found]


WHOLE = [f"Question {n}?" for n in range(3)]
PRETTY = "\n".join(json.dumps(chat(n), indent=2, ensure_ascii=False) for n in range(3)).encode()
LISTS = (json.dumps([chat(0)]) + "\n" + json.dumps([chat(1), chat(2)])).encode()
PAGE = {"data": [chat(1), chat(2)], "meta": {"cursor": "x"}}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", lines()),
        ("a.jsonl.1", lines()),
        ("a.log", lines()),
        ("a.txt", lines()),
        ("a.jsonl.2026-03-01.gz", gzip.compress(lines())),
        ("a.jsonl.bz2", bz2.compress(lines())),
        ("a.jsonl.xz", lzma.compress(lines())),
        ("two-frames.jsonl.zst", zstandard.compress(lines()[:40]) + zstandard.compress(lines()[40:])),
        ("two-members.jsonl.gz", gzip.compress(lines()[:40]) + gzip.compress(lines()[40:])),
        ("bom.jsonl", b"\xef\xbb\xbf" + lines().replace(b"\n", b"\r\n")),
        ("utf16.jsonl", lines().decode().encode("utf-16")),
        ("utf16-no-mark.jsonl", lines().decode().encode("utf-16-le")),
        ("utf32.json", lines().decode().encode("utf-32")),
        ("pretty.json", PRETTY),
        ("pretty.jsonl", PRETTY),
        ("lists.json", LISTS),
        ("list.jsonl", json.dumps([chat(n) for n in range(3)], indent=1).encode()),
        ("sequence.json", b"".join(b"\x1e" + line + b"\n" for line in lines().splitlines())),
        ("pages.jsonl", json.dumps({"data": [chat(0)]}).encode() + b"\n" + json.dumps(PAGE).encode()),
        ("deep.json", json.dumps({"export": {"rows": [chat(n) for n in range(3)]}}).encode()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_of_any_layout_are_read_whole(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    found = read(path)
    assert asked(found) == WHOLE
    assert len({one.id for one in found if isinstance(one, Interaction)}) == 3
    assert log_sources(tmp_path, ["."])[0].path.name == name


def test_a_first_line_longer_than_any_buffer(tmp_path: Path) -> None:
    path = tmp_path / "long.json"
    path.write_bytes(json.dumps(chat(0, "x" * 3_000_000)).encode() + b"\n" + lines())
    assert asked(read(path)) == ["Question 0?", *WHOLE]


def test_an_object_with_messages_and_a_list_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps({**chat(0), "data": [chat(1)], "runs": [1]}, indent=1))
    assert asked(read(path)) == ["Question 0?"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_another_encoding_is_named_and_never_guessed(tmp_path: Path, name: str) -> None:
    row = {"messages": [{"role": "user", "content": "Où?"}, {"role": "assistant", "content": "Là."}]}
    text = {
        "a.csv": "prompt;answer\r\nOù est la pièce?;Au café.\r\n",
        "a.json": json.dumps([row], ensure_ascii=False),
        "a.jsonl": json.dumps(row, ensure_ascii=False),
    }[name]
    (tmp_path / name).write_bytes(text.encode("cp1252"))
    (refused,) = read(tmp_path / name)
    assert (
        isinstance(refused, Rejected)
        and refused.reason.code == "not_utf8"
        and "data.encoding" in refused.reason.sentence()
    )
    (kept,) = read(tmp_path / name, encoding="cp1252")
    assert isinstance(kept, Interaction) and kept.output in ("Au café.", "Là.")


def test_an_encoding_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="no encoding is called 'klingon'"):
        DataConfig(encoding="klingon")


@pytest.mark.parametrize(
    ("suffix", "packed"),
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress), (".zst", zstandard.compress)],
)
def test_a_damaged_file_gives_what_it_holds_and_does_not_end_the_others(
    tmp_path: Path, suffix: str, packed: Any
) -> None:
    noise = random.Random(0)
    long = "".join(json.dumps(chat(n, f"{noise.random()} " * 200)) + "\n" for n in range(300)).encode()
    data = packed(long)
    (tmp_path / f"b.jsonl{suffix}").write_bytes(data[: len(data) * 2 // 3])
    (tmp_path / "a.jsonl").write_bytes(lines())
    (tmp_path / "c.jsonl").write_bytes(lines())
    found = ingest(log_sources(tmp_path, ["."]), DataConfig(), RedactConfig(), tmp_path / "out", SilentReporter())
    got = read(tmp_path / f"b.jsonl{suffix}")
    assert isinstance(got[-1], Rejected) and got[-1].reason.details["rows"] == len(got) - 1
    assert found.kept == 6 + sum(isinstance(one, Interaction) for one in got)
    assert "file_damaged" in found.rejected_by


def test_a_later_zstd_frame_that_is_cut_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zstandard.compress(lines()) + zstandard.compress(lines())[:-4])
    *_, last = read(path)
    assert isinstance(last, Rejected) and last.reason.reason() == FileDamaged("the compressed data is truncated", 3)


def test_a_broken_document_goes_on_at_the_next_bracket_and_a_cut_list_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps(chat(0), indent=1).encode() + b"\n{ broken,\n" + json.dumps(chat(1), indent=1).encode())
    first, broken, second = asked(read(path))
    assert (first, second) == ("Question 0?", "Question 1?") and "characters are skipped" in broken
    path.write_bytes(json.dumps([chat(0), chat(1)], indent=1).encode()[:-1])
    assert asked(read(path))[-1].startswith("! the file ends in the middle of a list")
    path.write_bytes(b"[" + json.dumps(chat(0)).encode() + b", {broken")
    assert "the rest of the file is lost (7 characters)" in asked(read(path))[-1] or "lost" in asked(read(path))[-1]


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_tables_with_any_separator(tmp_path: Path, sign: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"prompt{sign}answer\nWhich?{sign}K-17\n")
    assert asked(read(path)) == ["Which?"]


def test_columns_that_cannot_be_told_apart_are_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("prompt,answer,answer,\nWhich?,K-17,K-18,\nWhich?,K-17,K-18,\n")
    (reason,) = asked(read(path))
    assert "called 'answer'" in reason and "without a name: 4" in reason and "2 rows are not read" in reason


def test_archives(tmp_path: Path) -> None:
    path = tmp_path / "logs.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("2026-03-01/chat.jsonl", lines(2))
        archive.writestr("2026-03-02/chat.jsonl", lines(1))
        archive.writestr("notes.md", "no log")
    found = read(path)
    assert asked(found[:3]) == ["Question 0?", "Question 1?", "Question 0?"]
    sources = [one.source for one in found]
    assert sources[:3] == ["logs.zip/2026-03-01/chat.jsonl:1", "logs.zip/2026-03-01/chat.jsonl:2",
                           "logs.zip/2026-03-02/chat.jsonl:1"]  # fmt: skip
    assert "its name is not that of a log" in asked(found)[3]
    assert (
        asked([one for row, _ in read_file(path, 2) for one in Reader(DataConfig()).records(row, "z")])[0] == WHOLE[0]
    )
    path.write_bytes(path.read_bytes()[:-30])
    assert "damaged" in asked(read(path))[-1] or "not" in asked(read(path))[-1]


def test_files_of_one_name_in_several_folders_are_several_sources(tmp_path: Path) -> None:
    for day in ("01", "02", "03"):
        (tmp_path / "logs" / day).mkdir(parents=True)
        (tmp_path / "logs" / day / "chat.jsonl").write_bytes(lines())
    for entry in ("logs", "logs/*/chat.jsonl", "logs/**/*.jsonl"):
        assert [one.name for one in log_sources(tmp_path, [entry])] == [
            f"{day}/chat.jsonl" for day in ("01", "02", "03")
        ]
    several = log_sources(tmp_path, ["logs/01", "logs/02"])
    assert [one.name for one in several] == ["logs/01/chat.jsonl", "logs/02/chat.jsonl"]
    assert len(log_sources(tmp_path, ["logs", "logs/01/chat.jsonl"])) == 3
    ingest(log_sources(tmp_path, ["logs"]), DataConfig(), RedactConfig(), tmp_path / "out", SilentReporter())
    from journeyman.artifacts import read_rows

    rows = list(read_rows(tmp_path / "out" / "interactions.jsonl.zst", Interaction))
    assert len({row.id for row in rows}) == len(rows) == 9


def test_what_is_skipped_is_named_with_its_size(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.jsonl").write_bytes(lines())
    (tmp_path / "logs" / "a.docx").write_bytes(b"12345")
    from journeyman.sources.files import skipped_files

    found = ingest(
        log_sources(tmp_path, ["logs"]), DataConfig(), RedactConfig(), tmp_path / "out", SilentReporter(),
        skipped_files(tmp_path, ["logs"]),
    )  # fmt: skip
    assert found.skipped == {"a.docx": 5}


@pytest.mark.parametrize(
    ("name", "bare"),
    [("app.jsonl.1", "app.jsonl"), ("app.jsonl.2026-03-01.gz", "app.jsonl"), ("app.log-20260301", "app.log"),
     ("app.json.gz.3", "app.json"), ("v1.2.json", "v1.2.json"), ("app.jsonl.old", "app.jsonl")],
)  # fmt: skip
def test_names_without_packing_and_rotation(name: str, bare: str) -> None:
    assert bare_name(name) == bare


def test_batch_requests_are_joined_with_their_answers(tmp_path: Path) -> None:
    body = {"messages": [{"role": "user", "content": "Which?"}]}
    answer = {"choices": [{"message": {"role": "assistant", "content": "K-17."}, "finish_reason": "stop"}]}
    (tmp_path / "in.jsonl").write_text("".join(
        json.dumps({"custom_id": f"r{n}", "method": "POST", "url": "/v1/chat/completions", "body": body}) + "\n"
        for n in range(3)))  # fmt: skip
    (tmp_path / "out.jsonl").write_text("".join(
        json.dumps({"custom_id": f"r{n}", "response": {"status_code": 200, "body": answer}, "error": None}) + "\n"
        for n in (1, 0, 9)))  # fmt: skip
    claude = {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "K-18."}]}
    (tmp_path / "a-in.jsonl").write_text(json.dumps({"custom_id": "c", "params": {**body, "max_tokens": 9}}) + "\n")
    (tmp_path / "a-out.jsonl").write_text(
        json.dumps({"custom_id": "c", "result": {"type": "succeeded", "message": claude}}) + "\n"
    )
    found = ingest(log_sources(tmp_path, ["."]), DataConfig(), RedactConfig(), tmp_path / "made", SilentReporter())
    assert (found.read, found.kept, found.rejected) == (8, 3, 5)
    assert found.rejected_by["batch_request_joined"] == 3 and found.rejected_by["batch_request_unanswered"] == 1
    assert "no_request" in found.rejected_by


def test_an_unknown_format_says_what_it_resembles_and_how_to_read_it(tmp_path: Path) -> None:
    row = {"ticket": {"question": "Which?", "final_reply": "K-17."}, "spanId": "s"}
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(row) + "\n")
    (reason,) = asked(read(path))
    assert "'ticket', 'spanId'" in reason and "resembles otel" in reason
    assert (
        "data.columns.prompt = 'ticket.question'" in reason and "data.columns.answer = 'ticket.final_reply'" in reason
    )
    columns = {"prompt": "ticket.question", "answer": "ticket.final_reply"}
    assert asked(read(path, columns=columns)) == ["Which?"]
    path.write_text(json.dumps({"a": [chat(0)], "b": [chat(1)]}))
    assert "the lists a, b contain rows" in asked(read(path))[0]


def test_one_row_is_explained_field_by_field(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    row = {**chat(0), "status": "purple", "made_by": "\x1b[31mme"}
    path.write_text(json.dumps(row) + "\n")
    command = [sys.executable, "-m", "journeyman", "ingest", "--explain", str(path), "--dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "160"}, check=True)
    assert "read as openai_finetune, the only match" in done.stdout
    assert "status 'purple'" in done.stdout and "messages[0].content" in done.stdout
    assert "\x1b" not in done.stdout.replace("\\x1b", "") and "every field is kept" in done.stdout
    assert not (tmp_path / "01-interactions").exists()
    wrong = subprocess.run([*command, "--line", "9"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "no row 9" in wrong.stderr


IDS = ("id", "Id", "ID", "version")
"""Names of records in their own systems; LangChain's class names among them."""


SESSIONS = {"claude_code", "codex", "openhands", "swe_agent", "inspect_log"}
"""Files that are one session or one evaluation: they hold more than turns, and have tests of their own."""


@pytest.mark.parametrize("name", sorted({path.stem for path in FIXTURES.glob("*.jsonl")} - SESSIONS))
def test_no_field_of_any_fixture_disappears(name: str) -> None:
    """Every text that a row holds stands in its records, or the row is rejected."""
    checked = 0
    for line in (FIXTURES / f"{name}.jsonl").read_bytes().splitlines()[1:]:
        value = json.loads(line)
        records = Reader(DataConfig()).records(next(iter(_rows(line)))[0], "log.jsonl")
        if not any(isinstance(one, Interaction) for one in records) or any(
            isinstance(one, Rejected) for one in records
        ):
            continue
        checked += 1
        noted = any(
            note.code.endswith("not_kept") for one in records if isinstance(one, Interaction) for note in one.notes
        )
        lost = [
            became
            for became in explained(value, records)
            if became.where == NOT_KEPT and isinstance(became.value, str) and len(became.value) > 3
            and not became.value.startswith("gen_ai.")  # what OpenTelemetry calls its events
            and not became.path.rsplit(".", 1)[-1].split("[")[0].endswith(IDS)
        ]  # fmt: skip
        assert noted or not lost, lost
    assert checked, "no row of the fixture was read whole"


def _rows(line: bytes) -> Any:
    from journeyman.sources.documents import lines_of

    return ((row, 0) for row in lines_of(io.BufferedReader(io.BytesIO(line + b"\n")), 0))


def test_missing_files_and_folders_say_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        list(read_file(tmp_path / "none.jsonl"))
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(InputError, match="no usable interaction"):
        ingest(sources_of([tmp_path / "empty.jsonl"]), DataConfig(), RedactConfig(), tmp_path, SilentReporter())


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
def test_the_shared_cases_are_read_or_refused_with_a_reason(tmp_path: Path) -> None:
    cases = [case for case in sorted((SHARED / "cases").iterdir()) if case.is_dir()]
    assert cases
    for case in cases:
        try:
            found = ingest(
                log_sources(case, ["."]), DataConfig(), RedactConfig(), tmp_path / case.name, SilentReporter()
            )
        except InputError as error:
            assert "cannot be read" not in str(error), (case.name, str(error))
            continue
        assert "unreadable" not in found.rejected_by, (case.name, found.reasons)
