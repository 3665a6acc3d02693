"""Parameters of requests, and answers in JSON."""

from __future__ import annotations

import json
import math
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from journeyman.errors import ChangedMeanwhile, JourneymanError
from journeyman.foreign import plain_lines
from journeyman.ui.errors import BadRequest, NotMade, NotThere

_MOST_BODY = 64 << 10
_STATUS = {NotThere: 404, NotMade: 404, ChangedMeanwhile: 409, BadRequest: 400}


def answer(value: Any, status: int = 200) -> Response:
    """A value as JSON that a page can show: characters that act become visible, numbers that JSON lacks are null."""
    text = json.dumps(_shown(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text.encode(), status, media_type="application/json")


def refusal(error: JourneymanError) -> Response:
    """An error as the page shows it."""
    status = _STATUS.get(type(error), 422)
    return answer({"error": {**error.as_json(), "details": list(error.details)}}, status)


def _shown(value: Any) -> Any:
    match value:
        case str():
            return plain_lines(value)
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {plain_lines(str(key)): _shown(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_shown(inner) for inner in value]
    return value


def number(request: Request, name: str, default: int, most: int) -> int:
    """A parameter from 0 to `most`.

    Raises:
        BadRequest: it is none.
    """
    given = request.query_params.get(name)
    if given is None:
        return default
    if not (given.isascii() and given.isdecimal() and len(given) < 16 and int(given) <= most):
        raise BadRequest(f"{name}={given[:40]}: not a number from 0 to {most}")
    return int(given)


def number_or_none(request: Request, name: str, most: int) -> int | None:
    """Like `number`; None if it is not given, or empty."""
    return number(request, name, 0, most) if request.query_params.get(name) else None


def choice(request: Request, name: str, values: tuple[str, ...]) -> str | None:
    """A parameter that is one of these values; None if it is not given, or empty.

    Raises:
        BadRequest: it is another one.
    """
    given = request.query_params.get(name)
    if given and given not in values:
        raise BadRequest(f"{name}={given[:40]}: not one of {', '.join(values)}")
    return given or None


async def body_of(request: Request, **fields: type) -> dict[str, Any]:
    """The fields of a JSON body; every field is required, and no other is allowed.

    Raises:
        BadRequest: it is not JSON of that form.
    """
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > _MOST_BODY:
            raise BadRequest(f"the body is larger than {_MOST_BODY} bytes")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadRequest("the body is not valid JSON") from error
    if not isinstance(found, dict) or found.keys() != fields.keys():
        raise BadRequest(f"the body must have the fields {', '.join(fields) or 'of an empty object'}")
    for name, kind in fields.items():
        if type(found[name]) is not kind:
            raise BadRequest(f"{name}: must be {kind.__name__}")
    return found
