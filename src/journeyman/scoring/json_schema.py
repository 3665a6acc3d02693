"""json_schema: the answer is one JSON document that the row's `schema` accepts (JSON Schema 2020-12)."""

from __future__ import annotations

import json

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from journeyman.scoring.checks import Answer, Finding


def json_schema(answer: Answer) -> Finding:
    schema = answer.data.get("schema")
    if not isinstance(schema, dict):
        return Finding("unscored", "the row has no check.schema")
    try:
        document = json.loads(_unfenced(answer.text))
    except (ValueError, RecursionError) as error:
        return Finding("fail", f"not JSON: {error}")
    error_found = best_match(Draft202012Validator(schema).iter_errors(document))
    if error_found is None:
        return Finding("pass")
    return Finding("fail", f"{error_found.json_path}: {error_found.message}"[:300])


def _unfenced(text: str) -> str:
    body = text.strip()
    if body.startswith("```") and body.endswith("```"):
        return body.partition("\n")[2].removesuffix("```")
    return body
