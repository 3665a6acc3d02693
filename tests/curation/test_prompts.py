"""System prompts that vary: each row keeps its own, the same question under two documents is two tasks, serving too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import DOCUMENT_QUESTIONS, document_row
from journeyman.artifacts import read_rows
from journeyman.config import Config
from journeyman.curation.prompts import _frame
from journeyman.manifests import BundleManifest, DatasetManifest, RolePrompt
from journeyman.models.gguf_file import GgufFile
from journeyman.protocols import SilentReporter
from journeyman.reasons.dataset import TemplatedPrompts
from journeyman.records import Example, Finding, Message, split_system, system_text
from journeyman.redaction.redactor import Redactor
from journeyman.serving.preparing import differences_of, served_messages
from journeyman.sources.files import sources_of
from journeyman.stages.curate import curate
from journeyman.stages.ingest import ingest


@pytest.fixture(scope="module")
def tiny(tiny_gguf: Path) -> GgufFile:
    return GgufFile(tiny_gguf)


def curated(
    tmp_path: Path, base: GgufFile, rows: list[dict[str, Any]], **config: Any
) -> tuple[DatasetManifest, list[Example]]:
    made = Config.model_validate(config)
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    ingest(sources_of([tmp_path / "log.jsonl"]), made.data, made.redact, tmp_path, SilentReporter())
    manifest = curate(tmp_path / "interactions.jsonl.zst", made, base, tmp_path, SilentReporter())
    names = ("train.jsonl", "val.jsonl", "sealed/test.jsonl")
    return manifest, [row for name in names for row in read_rows(tmp_path / name, Example)]


def test_each_row_is_trained_under_its_own_document(tmp_path: Path, tiny: GgufFile) -> None:
    rows = [document_row(n, question) for n in range(12) for question in DOCUMENT_QUESTIONS]
    manifest, examples = curated(tmp_path, tiny, rows)
    assert manifest.kept == len(rows), manifest.dropped
    assert manifest.prompts["agent"].kind == "templated" and not manifest.system_prompts
    assert manifest.prompts["agent"].begins.startswith("Answer from this document only.")
    for row in examples:
        number = system_text(row.messages).split("pump P-")[1].split()[0]
        assert number in row.answer, (system_text(row.messages), row.answer)
    (note,) = [made for one in manifest.notes if isinstance(made := one.reason(), TemplatedPrompts)]
    assert (note.role, note.rows) == ("agent", len(rows)) and note.begins.startswith("Answer from this document only.")


def test_a_configured_prompt_is_fixed_and_every_replaced_one_is_told(tmp_path: Path, tiny: GgufFile) -> None:
    rows = [document_row(n, question) for n in range(12) for question in DOCUMENT_QUESTIONS]
    manifest, examples = curated(tmp_path, tiny, rows, roles={"agent": {"system_prompt": "Be brief."}})
    assert manifest.prompts["agent"].kind == "fixed"
    assert {system_text(row.messages) for row in examples} == {"Be brief."}
    noted = [one for one in read_rows(tmp_path / "noted.jsonl", Finding) if one.rule == "system_prompt"]
    assert len(noted) == manifest.kept == manifest.rules["system_prompt"].noted["agent"]


def test_a_few_strays_beside_a_fixed_prompt_change_nothing(tmp_path: Path, tiny: GgufFile) -> None:
    rows = [document_row(1, f"Question {n}: what is {n * 37 % 101} plus {n}?") for n in range(40)]
    stray = document_row(2, "What is the odd one?")
    manifest, _ = curated(tmp_path, tiny, [*rows, stray])
    assert manifest.prompts["agent"].kind == "fixed" and "P-1 " in manifest.system_prompts["agent"]


def test_later_system_turns_stay_in_their_place(tmp_path: Path, tiny: GgufFile) -> None:
    rows = []
    for n in range(30):
        row = document_row(1, f"Question {n}: what is {n * 37 % 101} plus {n}?")
        row["messages"][2:2] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Now."}]
        rows.append(row)
    _, examples = curated(tmp_path, tiny, rows)
    assert all([turn.role for turn in row.messages] == ["system", "user", "system", "user"] for row in examples)


def test_the_frame_ends_at_white_space() -> None:
    assert _frame(["Customer Ann Lee. Be kind.", "Customer Andy Lee. Be kind."]) == ("Customer ", " Lee. Be kind.")
    assert _frame(["same", "same"])[0] == "same"
    assert _frame(["abc", "xyz"]) == ("", "")


def _bundle(**changes: Any) -> BundleManifest:
    values: dict[str, Any] = {
        "roles": ["clerk"], "override": None, "base_sha256": "", "adapter_sha256": {}, "adapter_files": {},
        "base_file": "", "base_path": "", "system_prompts": {}, "redact": {}, "settings": {}, **changes,
    }  # fmt: skip
    return BundleManifest(**values)


def _contract(kind: Any, begins: str = "", ends: str = "") -> RolePrompt:
    return RolePrompt(kind=kind, text="", begins=begins, ends=ends, rows=9, distinct=9)


def test_serving_keeps_the_clients_prompt_where_the_role_was_trained_with_prompts_of_their_own() -> None:
    seen = Redactor(False, False).conversation()
    asked = [{"role": "system", "content": "Customer Ann. Be kind."}, {"role": "user", "content": "Hi"}]
    free = _bundle(prompts={"clerk": _contract("free")})
    assert served_messages(free, "clerk", asked, seen) == asked
    framed = _bundle(prompts={"clerk": _contract("templated", "Customer ", " Be kind.")})
    assert served_messages(framed, "clerk", asked, seen) == asked
    for other in ([{"role": "system", "content": "You are a pirate."}, asked[1]], asked[1:]):
        assert differences_of(framed, "clerk", other) == ("frame",)
    assert not differences_of(framed, "clerk", asked) and not differences_of(free, "clerk", asked)
    developer = [{"role": "developer", "content": "Customer Ann. Be kind."}, asked[1]]
    assert served_messages(framed, "clerk", developer, seen) == asked, "ingest makes it a system turn, too"


def test_serving_replaces_the_prompt_of_a_fixed_role_and_keeps_later_ones() -> None:
    seen = Redactor(False, False).conversation()
    fixed = _bundle(system_prompts={"clerk": "You are the clerk."}, prompts={"clerk": _contract("fixed")})
    later = {"role": "system", "content": "Now be brief."}
    asked = [{"role": "system", "content": "Pirate."}, {"role": "user", "content": "Hi"}, later]
    served = served_messages(fixed, "clerk", asked, seen)
    assert [turn["content"] for turn in served] == ["You are the clerk.", "Hi", "Now be brief."]


def test_leading_system_turns_are_one_prompt() -> None:
    turns = [Message(role=role, content=text) for role, text in (("system", "A"), ("system", "B"), ("user", "C"))]
    assert system_text(turns) == "A\n\nB" and split_system(turns)[1] == turns[2:]
