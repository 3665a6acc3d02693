"""Downloads one file of a repo: continues where an earlier try was killed, and compares the hash at the end.

The bytes so far are in `HASH.incomplete`, next to the place of the finished file. Each piece is handed to the system as
soon as it arrives, so that killing this process loses none of them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from journeyman.artifacts import disk_error, sync
from journeyman.errors import InputError
from journeyman.http_client import with_retries
from journeyman.models import hub_client
from journeyman.models.hub_client import Hub, HubRefused, NotAHub, Unreached
from journeyman.models.pins import HubFile, unfinished

_WORTH_ANOTHER_ROUND = 1 << 20
"""After the last try of a round, another round begins only if this one brought so many bytes: a server that breaks off
every connection ends in an error, and a bad line does not."""
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_BLOCK = 1 << 20


def fetch(
    hub: Hub, commit: str, file: HubFile, target: Path, tell: Callable[[int], None], look: Callable[[], None]
) -> None:
    """Downloads a file to `target`.

    Args:
        tell: called with the number of bytes that are there.
        look: called after every piece and several times a second while it waits; may raise to give up.

    Raises:
        InputError: the bytes are not those that the hub's hash describes.
        DiskError: the disk is full or the folder cannot be written to; what is there is kept.
        HubRefused, Unreached, NotAHub: as the methods of Hub.
    """
    part = unfinished(target)
    continued = _size(part) > 0
    _complete(hub, commit, file, part, tell, look)
    found = _hash_of(part, file)
    if found != file.blob and continued:  # the earlier bytes may be what is wrong
        _remove(part)
        _complete(hub, commit, file, part, tell, look)
        found = _hash_of(part, file)
    if found != file.blob:
        _remove(part)
        raise InputError(
            f"{hub.page}: {file.name} arrived with the hash {found[:16]}…, and the hub lists {file.blob[:16]}…",
            "Run it again to download this file again; if it stays so, a proxy or mirror (HF_ENDPOINT) alters files",
        )
    try:
        sync(part)
        part.replace(target)
    except OSError as error:
        raise disk_error(error, target) from error


def _complete(
    hub: Hub, commit: str, file: HubFile, part: Path, tell: Callable[[int], None], look: Callable[[], None]
) -> None:
    """Makes the unfinished file as long as the file is."""
    if _size(part) > file.size:
        _remove(part)
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    except OSError as error:
        raise disk_error(error, part) from error
    while (start := _size(part)) < file.size:
        try:
            with_retries(lambda: _receive(hub, commit, file, part, tell, look), hub_client.RETRY, look=look)
        except Unreached:
            if _size(part) - start < _WORTH_ANOTHER_ROUND:
                raise


def _receive(
    hub: Hub, commit: str, file: HubFile, part: Path, tell: Callable[[int], None], look: Callable[[], None]
) -> None:
    """Requests what is missing, once, and appends it."""
    start = _size(part)
    try:
        with hub.opened(commit, file, start) as response:
            at = start if _continues(response, start, file.size) else 0
            with _opened(part, "ab" if at else "wb") as out:
                for piece in response.iter_bytes():
                    at += len(piece)
                    if at > file.size:
                        raise NotAHub(f"more than the {file.size:,} bytes that it lists for {file.name}")
                    _write(out, piece, part)
                    tell(at)
                    look()
    except HubRefused as error:
        if error.status != 416:
            raise
        _remove(part)
        part.touch()
        raise Unreached(f"no bytes from {start:,} on") from error
    if at < file.size:
        raise Unreached(f"the connection ended after {at:,} of {file.size:,} bytes")


def _continues(response: Any, start: int, size: int) -> bool:
    """True if the response's bytes follow the first `start`; False if it has the whole file."""
    if response.status_code != 206:
        return False
    found = _RANGE.fullmatch(response.headers.get("content-range", ""))
    if found is None or int(found[1]) != start or found[3] not in ("*", str(size)):
        raise Unreached(f"another part of the file than the one from {start:,} on")
    return True


def _opened(part: Path, mode: str) -> Any:
    try:
        return part.open(mode)
    except OSError as error:
        raise disk_error(error, part) from error


def _write(out: Any, piece: bytes, part: Path) -> None:
    try:
        out.write(piece)
        out.flush()
    except OSError as error:
        raise disk_error(error, part) from error


def _hash_of(path: Path, file: HubFile) -> str:
    """The hash of the kind that the hub names for the file."""
    digest = hashlib.sha256()
    if not file.sha256:
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as content:
        while block := content.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(error, path) from error
