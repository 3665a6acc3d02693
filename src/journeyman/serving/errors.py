"""Error responses of the server: always an OpenAI error object, never a path of this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.responses import JSONResponse

from journeyman.foreign import plain

_PATH = re.compile(r"(?<![\w#:/.])(?:[A-Za-z]:\\|~?/)[^\s'\":;,(){}\[\]<>|]*[\w*]")
_LONGEST = 500
_TYPES = {401: "authentication_error", 403: "permission_error"}
_CODES = {
    400: "invalid_value", 401: "invalid_api_key", 403: "forbidden", 404: "not_found", 405: "method_not_allowed",
    413: "request_too_large", 415: "unsupported_media_type",
}  # fmt: skip


class RequestError(Exception):
    """A request that cannot be served.

    Attributes:
        param: the invalid field, such as `messages[2].content`; None if it is not about a field.
        code: machine-readable code; None: the default for the status.
    """

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        self.status, self.message, self.param, self.code = status, message, param, code
        super().__init__(message)


def error_response(
    status: int,
    message: str,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The error object; its message is one line, safe for terminals and of limited length."""
    kind = _TYPES.get(status, "invalid_request_error") if status < 500 else "server_error"
    code = code or (_CODES.get(status) if status < 500 else "engine_error")
    error = {"message": plain(without_paths(message), _LONGEST), "type": kind, "param": param and plain(param, 200)}
    return JSONResponse({"error": {**error, "code": code}}, status_code=status, headers=headers)


def without_paths(text: str) -> str:
    """The text with the machine's absolute paths replaced, so that clients do not learn about the engine's files."""
    return _PATH.sub("[path]", text[: 20 * _LONGEST])
