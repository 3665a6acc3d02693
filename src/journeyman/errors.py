"""All errors that a user can see, in one tree by kind. Their codes stay the same from version to version.

JourneymanError
├── UsageError            exit 2    usage               a wrong flag, an unknown key, a missing file
├── InputError            exit 1    input               logs, weights or artifacts that cannot be used as they are
│   ├── InputChanged                input_changed       a file that was written while it was read
│   ├── ChangedMeanwhile            changed_meanwhile   what the user saw when they decided is no longer so
│   ├── StaleArtifact               stale_artifact      an artifact made from other inputs or settings
│   ├── ChangedArtifact             changed_artifact    an artifact that was changed after its stage made it
│   └── OutOfMemory                 out_of_memory       a GPU or the machine has too little memory
├── DiskError             exit 1    disk                a file could not be written or read
│   ├── DiskFull                    disk_full           no space is left, or a quota is used up
│   └── Unwritable                  unwritable          permissions, the path or a read-only disk prevent it
├── TrainingDiverged      exit 1    training_diverged   the loss became NaN or exploded
├── WorkerDied            exit 1    worker_died         a worker process was killed or ran out of memory
├── EngineError           exit 1    engine              the inference engine did not start, or failed
├── NotDeployable         exit 3    not_deployable      the verdict is not "deploy"
│   └── NoGo                        no_go               the plan does not fit on this machine
└── Interrupted           exit 130  interrupted         stopped on request; the same command resumes

An error says what is wrong, where (with the value), and which command or edit fixes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:  # `journeyman --help` imports this module, and must not load pydantic
    from journeyman.reasons import Reason


class JourneymanError(Exception):
    """The root of the tree. `what` includes place and value; `remedy` is what the user can do about it.

    `details` are additional lines for a terminal, such as files to choose from; they are not part of the message.
    """

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "error"

    def __init__(self, what: str, remedy: str = "", details: Sequence[str] = ()) -> None:
        self.what = what
        self.remedy = remedy
        self.details = tuple(details)
        super().__init__(f"{what}. {remedy}" if remedy else what)

    def as_json(self) -> dict[str, str | int]:
        """The error as `--json` prints it for scripts."""
        return {"code": self.code, "exit_code": self.exit_code, "what": self.what, "remedy": self.remedy}


class UsageError(JourneymanError):
    """The command or the config asks for something that does not exist."""

    exit_code = 2
    code = "usage"


class InputError(JourneymanError):
    """A file is missing, malformed or cannot be used as requested."""

    code = "input"


class InputChanged(InputError):
    """A file was written to while it was being read, so what was read is inconsistent."""

    code = "input_changed"


class ChangedMeanwhile(InputError):
    """What the user saw when they decided is no longer so."""

    code = "changed_meanwhile"


class StaleArtifact(InputError):
    """An artifact exists but was made from other inputs or settings."""

    code = "stale_artifact"


class ChangedArtifact(InputError):
    """A file of a run was changed after its stage made it, or its manifest cannot be used."""

    code = "changed_artifact"


class OutOfMemory(InputError):
    """A GPU, or the machine, has less memory than the work needs."""

    code = "out_of_memory"


class DiskError(JourneymanError):
    """The system refused to write or to read a file."""

    code = "disk"


class DiskFull(DiskError):
    """No space is left, or the user's quota is used up."""

    code = "disk_full"


class Unwritable(DiskError):
    """Permissions, the path or a read-only disk prevent writing."""

    code = "unwritable"


class TrainingDiverged(JourneymanError):
    """The loss became NaN or exploded."""

    code = "training_diverged"


class WorkerDied(JourneymanError):
    """A worker process was killed, or ran out of memory."""

    code = "worker_died"


class EngineError(JourneymanError):
    """The inference engine failed."""

    code = "engine"


class NotDeployable(JourneymanError):
    """The evidence does not support a deployment."""

    exit_code = 3
    code = "not_deployable"


class NoGo(NotDeployable):
    """The plan refuses before training starts, for a reason in reasons/planning.py."""

    def __init__(self, reason: Reason, remedy: str = "") -> None:
        self.reason = reason
        super().__init__(reason.sentence(), remedy)

    code = "no_go"


class Interrupted(JourneymanError):
    """The user stopped the run; everything so far is on disk."""

    exit_code = 130
    code = "interrupted"
