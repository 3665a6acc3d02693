"""Talks to a model hub through huggingface_hub: which commit a revision is, which files it has, and their bytes.

huggingface_hub finds the token and the endpoint, knows the URLs and opens the connections. The bytes are read here,
because `hf_hub_download` of version 2 removes an unfinished file, so that a killed download would start again at zero.
They come from the plain HTTP address of the file, also for repos with Xet storage, which serves them there as well.

This is the only module that imports huggingface_hub; it is imported when something has to be downloaded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import httpx
from huggingface_hub import HfApi, constants, get_hf_file_metadata, get_session, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import build_hf_headers, validate_repo_id  # type: ignore[attr-defined]

import journeyman
from journeyman.errors import InputError, UsageError
from journeyman.foreign import plain
from journeyman.http_client import DROPPED, Refused, Retry, with_retries
from journeyman.models.pins import HubFile, is_safe

_T = TypeVar("_T")
_HTTP_ERROR: type[Exception] = next(one for one in HfHubHTTPError.__mro__[1:] if issubclass(one, Exception))
"""`HTTPError` of the HTTP library in use: httpx for version 1 of huggingface_hub, httpx2 for version 2."""
_ON = {"1", "ON", "YES", "TRUE"}
_RESET_S = re.compile(r";\s*t\s*=\s*([0-9]{1,9})")
"""Seconds in the header `ratelimit: "api";r=0;t=55`."""


class HubRefused(Refused):
    """A status that is an error; `reason` is the hub's code for it, such as GatedRepo, or ""."""

    def __init__(self, response: Any) -> None:
        super().__init__(cast(httpx.Response, response), "")
        self.reason = str(response.headers.get("x-error-code", ""))
        reset = _RESET_S.search(response.headers.get("ratelimit", ""))
        if self.retry_after_s is None and self.status == 429 and reset is not None:
            self.retry_after_s = float(reset[1])


class Unreached(httpx.HTTPError):
    """No answer, or one that broke off; the text says why."""


class NotAHub(Exception):
    """An answer that is not what a model hub answers."""


RETRY = Retry(errors=(Unreached, *DROPPED))


@dataclass(frozen=True)
class Listing:
    """The files of a repo at a commit, by name."""

    commit: str
    files: Mapping[str, HubFile]


def is_offline() -> bool:
    """True if HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE, as in huggingface_hub) forbids requests."""
    asked = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return asked.upper() in _ON


def endpoint_of_hub() -> str:
    """The URL of the hub: HF_ENDPOINT, or Hugging Face's.

    Raises:
        UsageError: HF_ENDPOINT is not the URL of a server.
    """
    endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    try:
        url = urlsplit(endpoint)
        usable = url.scheme in ("http", "https") and bool(url.hostname) and (url.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or plain(endpoint) != endpoint:
        raise UsageError(f"HF_ENDPOINT={plain(endpoint, 200)!r}: not the URL of a server", "Set it to https://HOST")
    return endpoint


class Hub:
    """A hub and one of its repos.

    Attributes:
        endpoint: the URL of the hub.
        page: the URL of the repo's page.
        has_token: whether a token is sent.

    Every method raises HubRefused or Unreached after all tries, NotAHub, or OfflineModeIsEnabled; `look` is called
    several times a second while it waits between tries.
    """

    def __init__(self, repo: str, look: Callable[[], None]) -> None:
        self.endpoint = endpoint_of_hub()
        self.page = f"{self.endpoint}/{repo}"
        self._repo, self._look = repo, look
        try:
            validate_repo_id(repo)
        except HFValidationError as error:
            raise InputError(f"base.model: {repo}: not the name of a repo", "Write PUBLISHER/REPO") from error
        # Else the user agent names torch and coding agents, for which version 2 asks the hub for a list of agents.
        constants.HF_HUB_DISABLE_TELEMETRY = True
        try:
            self._headers = build_hf_headers(library_name="journeyman", library_version=journeyman.__version__)
        except Exception as error:  # of many kinds: a token file, a refresh of the token, a vault
            raise InputError(
                f"the Hugging Face token cannot be read ({plain(str(error), 200)})", "Set HF_TOKEN, or: hf auth login"
            ) from error
        self.has_token = "authorization" in self._headers
        if not all(value.isascii() and value.isprintable() for value in self._headers.values()):
            raise UsageError("HF_TOKEN: contains characters that no token has", "Copy the token again")
        self._api = HfApi(endpoint=self.endpoint, headers=self._headers, token=False)

    def listing(self, revision: str) -> Listing:
        """The commit that a revision is now, and its files; files with unsafe names are left out."""
        return self._tried(lambda: self._listing(revision))

    def check_access(self, commit: str, file: HubFile) -> str:
        """Asks whether a file may be read; returns the hash that the hub names for it, or ""."""
        url = hf_hub_url(self._repo, file.name, revision=commit, endpoint=self.endpoint)
        timeout = constants.HF_HUB_ETAG_TIMEOUT

        def asked() -> str:
            found = get_hf_file_metadata(url, token=False, timeout=timeout, headers=self._headers)
            return found.etag or ""

        return self._tried(asked)

    @contextmanager
    def opened(self, commit: str, file: HubFile, start: int) -> Iterator[Any]:
        """The response with a file's bytes from `start` on, once and without further tries; reading it raises as the
        other methods do. A redirect to another host is followed without the token."""
        url = hf_hub_url(self._repo, file.name, revision=commit, endpoint=self.endpoint)
        headers = {**self._headers, "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with (
            _translated(),
            get_session().stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response,
        ):
            if response.status_code >= 400:
                raise HubRefused(response)
            yield response

    def _tried(self, ask: Callable[[], _T]) -> _T:
        def once() -> _T:
            with _translated():
                return ask()

        return with_retries(once, RETRY, look=self._look)

    def _listing(self, revision: str) -> Listing:
        try:
            info = self._api.model_info(
                self._repo, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
            )
            files = [_file_of(one) for one in info.siblings or ()]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise NotAHub(f"{type(error).__name__} in the list of files") from error
        if re.fullmatch(r"[0-9a-f]{40}", info.sha or "") is None:
            raise NotAHub("no commit in the list of files")
        return Listing(info.sha or "", {file.name: file for file in files if file is not None})


def _file_of(sibling: Any) -> HubFile | None:
    if not is_safe(sibling.rfilename):
        return None
    if sibling.lfs is not None:
        return HubFile(name=sibling.rfilename, size=sibling.lfs.size, sha256=sibling.lfs.sha256)
    if sibling.blob_id is None or sibling.size is None:
        raise KeyError("size and hash")
    return HubFile(name=sibling.rfilename, size=sibling.size, git=sibling.blob_id)


@contextmanager
def _translated() -> Iterator[None]:
    """Turns the errors of huggingface_hub's connections into those of this module."""
    try:
        yield
    except (HubRefused, Unreached):  # in version 1 of huggingface_hub, they are of the kind that is caught below
        raise
    except HfHubHTTPError as error:
        raise HubRefused(error.response) from error
    except _HTTP_ERROR as error:
        raise Unreached(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__) from error
