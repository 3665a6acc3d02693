"""Reasons: codes on disk, sentences only for display."""

from __future__ import annotations

from dataclasses import dataclass, fields

import pytest

from journeyman.cli.show import with_sentences
from journeyman.manifests import DatasetManifest, PlanManifest, RoutingQuality
from journeyman.reasons import Reason, ReasonRecord, Text, curation, dataset, kinds, planning
from journeyman.reasons.files import NotJson, RowTooLong
from journeyman.reasons.sources import HISTORY_CAUSES, HistoryBroken, WrongType


@dataclass(frozen=True)
class _Example(Reason, code="test_example"):
    says = "{tokens:,} tokens, more than {limit:,}"
    tokens: int
    limit: int


def test_a_reason_survives_disk_and_keeps_its_type():
    record = _Example(1200, 1000).record()
    read = ReasonRecord.model_validate_json(record.model_dump_json())
    assert read.code == "test_example"
    assert read.reason() == _Example(1200, 1000)
    assert read.sentence() == "1,200 tokens, more than 1,000"


def test_text_of_older_runs_opens_as_it_was():
    assert ReasonRecord.model_validate("no answer {here}").sentence() == "no answer {here}"


def test_a_code_of_a_newer_version_is_shown_with_its_details():
    assert ReasonRecord(code="not_known_yet", details={"rows": 3}).sentence() == "not_known_yet (rows = 3)"
    assert ReasonRecord(code="test_example", details={"tokens": 3}).sentence() == "test_example (tokens = 3)"


def test_details_of_other_types_are_shown_as_they_are():
    """A file that was edited by hand must not crash the command that shows it."""
    record = ReasonRecord(code="test_example", details={"tokens": "many", "limit": None})
    assert record.sentence() == "test_example (tokens = many, limit = None)"


def test_a_reason_within_a_row_names_every_place_on_the_way():
    reason = WrongType("output", "list", "text").within("spans[3]").within("element 0")
    assert reason.sentence() == "element 0: spans[3]: output is list, not text"
    assert reason.record().reason() == reason and "at" not in WrongType("x", "list", "text").record().details


def test_what_a_damaged_document_cost_is_said_with_its_reason():
    assert NotJson("cut", 4).sentence() == "not JSON: cut at column 4"
    assert NotJson("Unterminated string starting at", 7).sentence() == "not JSON: Unterminated string at column 7"
    assert NotJson("cut", lost=1_200).sentence() == "not JSON: cut; 1,200 characters are skipped"
    assert RowTooLong(16, lost=7, rest=True).sentence().endswith("the rest of the file is lost (7 characters)")


@pytest.mark.parametrize("cause", HISTORY_CAUSES)
def test_every_cause_of_a_broken_history_names_its_place(cause: str):
    told = HistoryBroken(cause, "line 33").sentence()
    assert ("line 33" in told) == ("{place}" in HISTORY_CAUSES[cause]) and "{" not in told


def test_a_code_names_one_reason():
    with pytest.raises(AssertionError, match="two reasons"):
        type("Other", (Reason,), {"says": ""}, code="test_example")


_SAMPLE = {"str": "x", "int": 2, "float": 0.5, "bool": True}


@pytest.mark.parametrize("code", sorted(kinds()))
def test_every_reason_makes_its_sentence_from_its_own_details(code):
    kind = kinds()[code]
    values = {one.name: _SAMPLE[str(one.type).split(" |")[0]] for one in fields(kind)}
    sentence = kind(**values).sentence()
    assert sentence
    assert kind is Text or not sentence.endswith(".")
    assert kind(**values).record().reason() == kind(**values)


def test_manifests_of_older_runs_open() -> None:
    """Their notes, warnings and the note of the routing check are sentences; an empty one means none."""
    routing = {"method": "", "tasks": 3, "flagged": 0, "agreement": None, "guessing": None, "found": None}
    assert RoutingQuality.model_validate({**routing, "note": ""}).note is None
    note = RoutingQuality.model_validate({**routing, "note": "fewer than two roles have 5 tasks"}).note
    assert note is not None and note.sentence() == "fewer than two roles have 5 tasks"
    assert PlanManifest.model_fields["warnings"].annotation == list[ReasonRecord]
    assert DatasetManifest.model_fields["notes"].annotation == list[ReasonRecord]


def test_show_prints_sentences_and_json_codes() -> None:
    made = RoutingQuality(
        method="", tasks=3, flagged=0, agreement=None, guessing=None, found=None, note=dataset.TooFewTasks(5).record()
    )
    assert with_sentences({"a": [made]})["a"][0]["note"] == "fewer than two roles have at least 5 tasks"
    assert made.model_dump()["note"] == {"code": "too_few_tasks", "details": {"least": 5}}


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        (dataset.NoLeak(3, 3, 9, 0.7), "all 3 test tasks compared with all 9 others: none reaches a similarity of 0.7"),
        (
            dataset.NoLeak(2, 3, 9, 0.7),
            "2 of 3 test tasks compared with all 9 others: none reaches a similarity of 0.7",
        ),
        (
            planning.TooFewTestRows("a\nb", 4, 4.0, 0.98, 189),
            r'"a\nb": 4 test rows cannot prove a success of 98% even if all pass; 189 would',
        ),
        (
            planning.TooFewTestRows("coder", 4, 2.5, 0.98, None),
            "coder: 4 test rows, which count as 2.5 because some belong together, cannot prove a success of 98% even "
            "if all pass",
        ),
        (
            planning.TrainingDoesNotFit(3.0, None, 5.25, None),
            "training does not fit in 3.0 GB (GB needed: recompute 5.2)",
        ),
        (curation.SecretsReplaced(token=2, password=1), "token 2, password 1"),
        (curation.PlantedTrigger(None), "a rare trigger that always has the same answer (?)"),
    ],
)
def test_sentences_with_a_choice_in_them(reason: Reason, sentence: str) -> None:
    assert reason.sentence() == sentence
