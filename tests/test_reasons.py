"""Reasons: codes on disk, sentences only when shown."""

from __future__ import annotations

from dataclasses import dataclass, fields

import pytest

from journeyman.reasons import Reason, ReasonRecord, Text, kinds


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
