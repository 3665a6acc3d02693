"""The keys that clients send: named, several, revocable, kept as hashes in a file of the run folder.

A key is 256 random bits, so its SHA-256 tells nothing about it, and needs no salt.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from journeyman.artifacts import write_atomic
from journeyman.errors import InputError, UsageError
from journeyman.locking import waiting_lock

FILE = "keys.json"
_PREFIX = "jm-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Key(BaseModel):
    """A key without its secret."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=f"^{_NAME.pattern}$")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    created: str


class KeyFile:
    """The file. It is read again when it has changed, so that a revoked key ends at once.

    Args:
        path: the file, which need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state: tuple[int, int, int] | None = None
        self._keys: Sequence[Key] = ()

    @property
    def exists(self) -> bool:
        """Whether keys were ever added; after all of them were revoked, no request is let in."""
        try:
            self.path.lstat()
        except FileNotFoundError:
            return False
        except OSError:  # nobody knows, and a port must not open because of that
            return True
        return True

    def listed(self) -> Sequence[Key]:
        """The keys in the file.

        Raises:
            InputError: the file is damaged.
        """
        try:
            status = self.path.stat()
        except FileNotFoundError:
            self._keys, self._state = (), None
            return self._keys
        state = (status.st_mtime_ns, status.st_size, status.st_ino)
        if state != self._state:
            self._keys = _read(self.path)
            self._state = state
        return self._keys

    def add(self, name: str) -> str:
        """Adds a key and returns its secret, which is kept nowhere.

        Raises:
            UsageError: the name is taken or has other characters than letters, digits, dots, dashes and underscores.
            DiskError: the file cannot be written.
            InputError: the file is damaged.
        """
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r}: a key's name has 1 to 64 letters, digits, dots, dashes and underscores",
                "For example: journeyman keys add ci",
            )
        secret = _PREFIX + secrets.token_urlsafe(32)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        with waiting_lock(self.path):
            keys = self.listed()
            if any(key.name == name for key in keys):
                raise UsageError(f"there is a key {name!r} already", f"Revoke it first: journeyman keys revoke {name}")
            self._write([*keys, Key(name=name, sha256=_hash(secret), created=created)])
        return secret

    def revoke(self, name: str) -> None:
        """Removes a key; a running server refuses it from then on.

        Raises:
            UsageError: there is no such key.
            DiskError: the file cannot be written.
            InputError: the file is damaged.
        """
        with waiting_lock(self.path):
            keys = self.listed()
            left = [key for key in keys if key.name != name]
            if len(left) == len(keys):
                known = ", ".join(key.name for key in keys) or "none"
                raise UsageError(f"there is no key {name!r}; keys: {known}", "See them: journeyman keys list")
            self._write(left)

    def match(self, secret: str) -> str | None:
        """The name of a key, found in a time that says nothing about the keys; None if it is none of them."""
        sent, found = _hash(secret), None
        for key in self.listed():
            if hmac.compare_digest(sent, key.sha256):
                found = key.name
        return found

    def _write(self, keys: Sequence[Key]) -> None:
        document = {"keys": [key.model_dump() for key in keys]}
        write_atomic(self.path, (json.dumps(document, indent=2) + "\n").encode())
        self.path.chmod(0o600)


def _read(path: Path) -> Sequence[Key]:
    try:
        document: Any = json.loads(path.read_bytes())
        return [Key.model_validate(one) for one in document["keys"]]
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise InputError(
            f"{path}: not a file of keys ({type(error).__name__})", f"Remove it and add keys: rm {path}"
        ) from error


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


class Keys:
    """Every key that opens the port.

    Args:
        fixed: a key from the environment, under the name `env`; None: none.
        file: None: no file.
        required: a key is needed even if there is none. It is needed as well once there is a file, also if that
            is added later, and stays so if the file is removed: a running port may be closed, but never opened.
        own: the key of the program that runs the server, under the name `own`; it alone makes no key necessary.
    """

    def __init__(
        self,
        fixed: str | None = None,
        file: KeyFile | None = None,
        *,
        required: bool = False,
        own: str | None = None,
    ) -> None:
        self._fixed = {name: _hash(key) for name, key in (("env", fixed), ("own", own)) if key is not None}
        self._file = file
        self._required = required or fixed is not None

    @property
    def required(self) -> bool:
        """Whether requests need a key now."""
        self._required = self._required or (self._file is not None and self._file.exists)
        return self._required

    def match(self, secret: str) -> str | None:
        """The name of the key; None if it opens nothing. A damaged file opens nothing."""
        try:
            found = None if self._file is None else self._file.match(secret)
        except (InputError, OSError):
            found = None
        for name, digest in self._fixed.items():
            if hmac.compare_digest(_hash(secret), digest):
                found = name
        return found
