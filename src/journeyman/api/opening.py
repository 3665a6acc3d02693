"""journeyman.open: an existing run folder."""

from __future__ import annotations

from os import PathLike

from journeyman.api.run import Run
from journeyman.api.settings import RoleChecks, Settings


def open(
    folder: str | PathLike[str] = ".", *, settings: Settings | None = None, checks: RoleChecks | None = None
) -> Run:
    """Opens a run folder.

    Args:
        folder: the one with journeyman.toml.
        settings: keys of the config file that have other values in this program, {"train.epochs": 1}. The file
            stays as it is. A stage that was made with other settings is stale.
        checks: role → its checks, as roles.ROLE.checks: {"coder": ["answered", polite]}.

    Raises:
        UsageError: there is no config file, or it or a setting is not valid.
    """
    return Run(folder, settings=settings, checks=checks)
