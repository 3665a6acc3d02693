"""Error responses of the server: always an error object in the form of the API that was asked, never a path of this
machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from journeyman.foreign import plain

_PATH = re.compile(r"(?<![\w#:/.])(?:[A-Za-z]:\\|~?/)[^\s'\":;,(){}\[\]<>|]*[\w*]")
_LONGEST = 500
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {
    400: "invalid_value", 401: "invalid_api_key", 403: "forbidden", 404: "not_found", 405: "method_not_allowed",
    413: "request_too_large", 415: "unsupported_media_type", 429: "rate_limit_exceeded",
}  # fmt: skip
_ANTHROPIC = "/v1/messages"
_ANTHROPIC_TYPES = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large",
    429: "rate_limit_error", 503: "overloaded_error",
}  # fmt: skip
"""https://docs.anthropic.com/en/api/errors"""


LATE = "the answer took longer than serve.answer_s allows"


class RequestError(Exception):
    """A request that cannot be served.

    Attributes:
        param: the invalid field, such as `messages[2].content`; None if it is not about a field.
        code: machine-readable code; None: the default for the status.
        headers: of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status, self.message, self.param, self.code, self.headers = status, message, param, code, headers
        super().__init__(message)


class BrokenStream(Exception):
    """A streamed answer is not complete; the message, for the client, says why.

    Attributes:
        code: the reason for logs, which must not contain an engine's own words.
    """

    def __init__(self, message: str, code: str = "engine_ended") -> None:
        self.code = code
        super().__init__(message)


def error_object(message: str, code: str = "engine_error") -> dict[str, Any]:
    """An error of the engine in the form of OpenAI's API."""
    return {"error": {"message": message, "type": "server_error", "param": None, "code": code}}


def error_body(path: str, status: int, message: str, param: str | None = None, code: str | None = None) -> Any:
    """The error object in the form that clients of this path expect.

    Its message is one line, safe for terminals and of limited length.
    """
    shown = plain(without_paths(message), _LONGEST)
    if path.startswith(_ANTHROPIC):
        kind = _ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
        return {"type": "error", "error": {"type": kind, "message": shown}}
    kind = _TYPES.get(status, "invalid_request_error") if status < 500 else "server_error"
    code = code or (_CODES.get(status) if status < 500 else "engine_error")
    return {"error": {"message": shown, "type": kind, "param": param and plain(param, 200), "code": code}}


def error_response(
    path: str,
    status: int,
    message: str,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """An error for a client of this path."""
    return JSONResponse(error_body(path, status, message, param, code), status_code=status, headers=headers)


def without_paths(text: str) -> str:
    """The text with the machine's absolute paths replaced, so that clients do not learn about the engine's files."""
    return _PATH.sub("[path]", text[: 20 * _LONGEST])
