"""What the page is told when a request cannot be answered."""

from __future__ import annotations

from journeyman.errors import InputError, UsageError


class NotThere(InputError):
    """What was asked for does not exist."""

    code = "not_there"


class NotMade(InputError):
    """The stage whose files were asked for has not been run."""

    code = "not_made"


class BadRequest(UsageError):
    """A parameter or a body is not valid."""

    code = "bad_request"
