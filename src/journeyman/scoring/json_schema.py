"""json_schema: the answer is a single JSON document that is valid under the row's `schema` (JSON Schema 2020-12)."""

from __future__ import annotations

import json

from jsonschema.exceptions import best_match

from journeyman.reasons.checking import DataMissing, SchemaEndless
from journeyman.reasons.scoring import AnswerNotJson, AnswerTooDeep, SchemaViolated
from journeyman.scoring.contracts import Answer, CheckResult
from journeyman.scoring.row_data import BadData, too_deep, validator_of


def json_schema(answer: Answer) -> CheckResult:
    if "schema" not in answer.data:
        return CheckResult("unscored", DataMissing("schema"))
    try:
        validator = validator_of(answer.data)
    except BadData as error:
        return CheckResult("unscored", error.reason)
    try:
        document = json.loads(_unfenced(answer.text))
    except (ValueError, RecursionError) as error:
        return CheckResult("fail", AnswerNotJson(str(error)))
    try:
        error_found = best_match(validator.iter_errors(document))
    except RecursionError:
        if too_deep(document):
            return CheckResult("fail", AnswerTooDeep())
        return CheckResult("unscored", SchemaEndless())
    if error_found is None:
        return CheckResult("pass")
    return CheckResult("fail", SchemaViolated(error_found.json_path, error_found.message))


def _unfenced(text: str) -> str:
    body = text.strip()
    if body.startswith("```") and body.endswith("```"):
        return body.partition("\n")[2].removesuffix("```")
    return body
