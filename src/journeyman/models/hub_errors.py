"""What a hub's refusal means for the user: one sentence and a remedy for each kind."""

from __future__ import annotations

import httpx

from journeyman.errors import InputError, JourneymanError
from journeyman.foreign import plain
from journeyman.models.hub_client import Hub, HubRefused, NotAHub
from journeyman.models.names import MAIN, ModelName, NotDownloaded

_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
_ELSEWHERE = "or download the model on another machine and set base.model to its path"


def explained(error: Exception, hub: Hub, name: ModelName, file: str = "") -> JourneymanError:
    """The error to show for one that the hub's client raised.

    Args:
        file: the file that was asked for; "": the repo.
    """
    where = f"base.model: {name.repo_id}"
    if isinstance(error, HubRefused):
        return _refused(error, hub, name, file, where)
    if isinstance(error, NotAHub):
        return InputError(
            f"{where}: {hub.endpoint} does not answer as a model hub: {error}", "Check HF_ENDPOINT and your proxy"
        )
    if isinstance(error, httpx.HTTPError):
        return NotDownloaded(
            f"{where}: {hub.endpoint} cannot be reached ({plain(str(error), 200)})",
            f"Check the network, the proxy (HTTPS_PROXY) and HF_ENDPOINT, and run it again, {_ELSEWHERE}",
        )
    return offline(name)


def offline(name: ModelName) -> JourneymanError:
    """The model would have to be downloaded, which the environment forbids."""
    return NotDownloaded(
        f"base.model: {name.repo_id}: not on this machine, and HF_HUB_OFFLINE forbids downloading it",
        f"Unset HF_HUB_OFFLINE (and TRANSFORMERS_OFFLINE) for this run, {_ELSEWHERE}",
    )


def _refused(error: HubRefused, hub: Hub, name: ModelName, file: str, where: str) -> JourneymanError:
    revision = name.revision or MAIN
    if error.reason == "GatedRepo":
        if hub.has_token and error.status == 403:
            return InputError(
                f"{where}: a gated model, to which the account of your token has no access",
                f"Ask for access on {hub.page}, and run it again when it is granted",
            )
        if not hub.has_token:
            return InputError(f"{where}: a gated model", f"Ask for access on {hub.page}; then {_LOG_IN}")
    match error.status, error.reason:
        case 401, _ if hub.has_token:
            return InputError(
                f"{where}: {hub.endpoint} rejects your token",
                f"Make a new one on {hub.endpoint}/settings/tokens; then {_LOG_IN} (public repos need no token)",
            )
        case 404, "RevisionNotFound":
            return InputError(
                f"{where}: {hub.endpoint} has this repo, but no revision {revision!r}",
                f"Name a branch, tag or commit that {hub.page} lists",
            )
        case 404, _ if file:
            return InputError(
                f"{where}: {hub.endpoint} has no file {plain(file, 160)!r} at {revision!r}",
                f"See {hub.page}/tree/{revision}",
            )
        case ((401 | 404), _):
            private = "that your token may read" if hub.has_token else "that can be read without a token"
            remedy = "Check the spelling" + ("" if hub.has_token else f"; if the repo is private, {_LOG_IN}")
            return NotDownloaded(f"{where}: {hub.endpoint} has no repo of this name {private}", remedy)
        case 403, _:
            return InputError(
                f"{where}: {hub.endpoint} forbids access to this repo",
                f"See {hub.page}; a token with limited permissions needs read access to this repo",
            )
        case 429, _:
            asked = "" if error.retry_after_s is None else f" and asks to wait {error.retry_after_s:.0f} s"
            return InputError(
                f"{where}: {hub.endpoint} limits the rate of requests{asked}",
                "Run it again later; the limit is higher with a token" + ("" if hub.has_token else f": {_LOG_IN}"),
            )
        case status, _:
            return InputError(
                f"{where}: {hub.endpoint} answers with status {status}",
                "Run it again later" if status >= 500 else f"See {hub.page}",
            )
