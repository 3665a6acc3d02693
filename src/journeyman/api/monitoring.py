"""Looks at what a run folder's recorder has recorded, and sends alerts about it. Prints nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx

from journeyman.artifacts import MANIFEST
from journeyman.bundles import open_bundle
from journeyman.config import MOST_HOURS, Config, config_in
from journeyman.errors import InputError, JourneymanError, UsageError
from journeyman.http_client import client
from journeyman.keys import key_of
from journeyman.locking import is_at_work, locked, worker_in
from journeyman.manifests import BundleManifest, DatasetManifest
from journeyman.monitoring.alerts import Alerts, Send, Target
from journeyman.monitoring.looking import Inputs, Looker
from journeyman.monitoring.prompt_looks import Trained
from journeyman.monitoring.reading import seconds_of
from journeyman.monitoring.report import Recorder, Report
from journeyman.monitoring.sending import to_command, to_webhook
from journeyman.reasons.base import Reason
from journeyman.reasons.monitoring import FileNotUsable
from journeyman.runs import place_of, read_result
from journeyman.sources.fields import mapping

_ASK_S = 3.0
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
Told = Callable[[str], None]


class Monitor:
    """Looks at a run folder.

    Args:
        folder: of the run; without a config file, the defaults apply.
        hours: back from now; None: monitor.hours.
        role: only this one; None: all.

    Attributes:
        config: as the file said.

    Raises:
        UsageError: there is no such folder, the hours are out of range, or the config file is not valid.
    """

    def __init__(self, folder: Path, hours: float | None = None, role: str | None = None) -> None:
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder", "Name the run folder: journeyman monitor --dir RUN")
        if hours is not None and not 0 < hours <= MOST_HOURS:
            raise UsageError(f"hours = {hours:g}: must be above 0 and at most {MOST_HOURS:g}", "Choose a shorter span")
        self.folder, self.config = folder, config_in(folder)
        self._looker = Looker(self.config, self.config.monitor.hours if hours is None else hours, role)

    def look(self, now: float | None = None) -> Report:
        """What was recorded in the window that ends now.

        Args:
            now: seconds since 1970; None: the clock's.
        """
        return self._looker.look(inputs_of(self.folder, self.config), time.time() if now is None else now)

    @contextmanager
    def alerts(self, told: Told) -> Iterator[Alerts]:
        """The alerts of the folder, for one process at a time.

        Args:
            told: hears each alert, and what could not be delivered.

        Raises:
            UsageError: another process sends them, or a key is not set.
            InputError: their state is damaged.
            DiskError: the folder cannot be written to.
        """
        monitor = self.config.monitor
        place = self.folder / monitor.folder
        targets: dict[Target, Send] = {}
        if monitor.webhook:
            key = key_of(monitor.webhook_key_env)
            if monitor.webhook_key_env and key is None:
                raise UsageError(
                    f"monitor.webhook_key_env: ${monitor.webhook_key_env} is not set", "Set it: export NAME=KEY"
                )
            targets["webhook"] = partial(to_webhook, monitor.webhook, key, monitor.timeout_s)
        if monitor.command:
            targets["command"] = partial(to_command, monitor.command, self.folder, monitor.timeout_s)
        with locked(place):
            place.chmod(0o700)
            yield Alerts(place, self.folder.resolve().name, monitor, targets, told)


def inputs_of(folder: Path, config: Config) -> Inputs:
    """Where to look in a run folder, and how its recorder is; what cannot be used is in the notes."""
    notes: list[Reason] = []
    trained = _trained(folder, notes)
    rows = folder / config.record.folder
    return Inputs(rows, folder / config.route.folder, trained, recorder_of(rows, config), tuple(notes))


def recorder_of(rows: Path, config: Config) -> Recorder:
    """How the recorder of a folder is, by its lock and by what it says of itself.

    A lock without its holder's name, as a full disk leaves it, is taken to be of the recorder that answers.
    """
    if not is_at_work(rows):
        return Recorder(state="stopped")
    record = config.record
    if not record.port:
        return Recorder(state="unknown")
    host = _EVERY_ADDRESS.get(record.host, record.host)
    address = f"http://[{host}]:{record.port}" if ":" in host else f"http://{host}:{record.port}"
    try:
        with client({}, _ASK_S) as http:
            said = mapping(http.get(f"{address}/journeyman/health").json())
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return Recorder(state="silent", address=address)
    holder = worker_in(rows)
    if "rows_written" not in said or holder not in (None, (said.get("host"), said.get("pid"))):  # another's port
        return Recorder(state="silent", address=address)
    trouble, lost = str(said.get("trouble") or ""), said.get("lost")
    return Recorder(
        state="trouble" if trouble else "recording", address=address, trouble=trouble,
        lost=lost if isinstance(lost, int) else 0,
    )  # fmt: skip


def _trained(folder: Path, notes: list[Reason]) -> Trained:
    place = folder / place_of("curate").folder
    at, dataset, bundle = None, None, None
    if (place / MANIFEST).is_file():
        try:
            stamp, found = read_result(folder, "curate")
        except InputError as error:
            notes.append(FileNotUsable(error.what))
        else:
            at = seconds_of(stamp.created)
            dataset = found if isinstance(found, DatasetManifest) else None
    if (folder / place_of("export").folder / MANIFEST).is_file():
        bundle = _bundle(folder, notes)
    return Trained(place if (place / "train.jsonl").is_file() else None, at, dataset, bundle)


def _bundle(folder: Path, notes: list[Reason]) -> BundleManifest | None:
    try:
        return open_bundle(folder / place_of("export").folder).manifest
    except JourneymanError as error:
        notes.append(FileNotUsable(error.what))
        return None
