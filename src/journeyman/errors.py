"""Every error that a person can meet, in one tree.

JourneymanError
├── UsageError            exit 2: a wrong flag, an unknown config key, a missing file named by the person
├── InputError            exit 1: logs, weights or artifacts that cannot be used as they are
│   ├── StaleArtifact     exit 1: an artifact made from other inputs or another config
│   └── ChangedArtifact   exit 1: an artifact that is no longer as its stage left it
├── EngineError           exit 1: the inference engine did not start, stopped or answered nonsense
├── NotDeployable         exit 3: the verdict says no
│   └── NoGo              exit 3: the plan says that it cannot be done on this machine
└── Interrupted           exit 130: stopped on request; the same command goes on from there

An error says what is wrong, where (with the value) and the command or edit that mends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `journeyman --help` imports this module, and must not load pydantic
    from journeyman.reasons import Reason


class JourneymanError(Exception):
    """The root. `what` holds place and value; `remedy` is what the person can do about it.

    `details` are further lines for a terminal, such as files to choose from; they are no part of the message.
    """

    exit_code = 1

    def __init__(self, what: str, remedy: str = "", details: Sequence[str] = ()) -> None:
        self.what = what
        self.remedy = remedy
        self.details = tuple(details)
        super().__init__(f"{what}. {remedy}" if remedy else what)


class UsageError(JourneymanError):
    """The command or the config asks for something that does not exist."""

    exit_code = 2


class InputError(JourneymanError):
    """A file is missing, malformed or cannot be used for what was asked."""


class StaleArtifact(InputError):
    """An artifact exists but was made from other inputs or settings."""


class ChangedArtifact(InputError):
    """A file of a run is not the one that its stage made, or its manifest cannot be used."""


class EngineError(JourneymanError):
    """The inference engine failed."""


class NotDeployable(JourneymanError):
    """The evidence does not carry what was asked for."""

    exit_code = 3


class NoGo(NotDeployable):
    """The plan refuses before anything is spent, for a reason of reasons/planning.py."""

    def __init__(self, reason: Reason, remedy: str = "") -> None:
        self.reason = reason
        super().__init__(reason.sentence(), remedy)


class Interrupted(JourneymanError):
    """The person stopped the run; everything up to here is on disk."""

    exit_code = 130
