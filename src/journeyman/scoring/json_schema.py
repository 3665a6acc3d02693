"""json_schema: the answer is one JSON document that the row's `schema` accepts (JSON Schema 2020-12)."""

from __future__ import annotations

import json

from jsonschema.exceptions import best_match

from journeyman.scoring.contracts import Answer, Finding
from journeyman.scoring.row_data import BadData, too_deep, validator_of


def json_schema(answer: Answer) -> Finding:
    if "schema" not in answer.data:
        return Finding("unscored", "the row has no check.schema")
    try:
        validator = validator_of(answer.data)
    except BadData as error:
        return Finding("unscored", str(error))
    try:
        document = json.loads(_unfenced(answer.text))
    except (ValueError, RecursionError) as error:
        return Finding("fail", f"not JSON: {error}")
    try:
        error_found = best_match(validator.iter_errors(document))
    except RecursionError:
        if too_deep(document):
            return Finding("fail", "nested too deep to be compared with the schema")
        return Finding("unscored", "check.schema refers to itself without end")
    if error_found is None:
        return Finding("pass")
    return Finding("fail", f"{error_found.json_path}: {error_found.message}")


def _unfenced(text: str) -> str:
    body = text.strip()
    if body.startswith("```") and body.endswith("```"):
        return body.partition("\n")[2].removesuffix("```")
    return body
