"""Finds a model by the name that a hub gives it: on this machine, or else by downloading it from the hub, once.

What a name meant when it was downloaded is pinned (pins.py): later runs use the same commit without a network.
"""

from __future__ import annotations

from pathlib import Path

from journeyman.errors import InputError
from journeyman.models.caches import absence, find_in_caches
from journeyman.models.finding import SET_BASE
from journeyman.models.names import ModelName, NotDownloaded
from journeyman.models.pins import Shelf
from journeyman.protocols import Reporter


def find_model(model: str, name: ModelName, missing: str, reporter: Reporter | None) -> Path:
    """The model's file, the first one of a split model, or the folder with its original weights.

    Args:
        model: as the user wrote it.
        missing: what was not found before, for the error.
        reporter: receives the progress of a download; None: nothing is downloaded.

    Raises:
        NotDownloaded: it is not on this machine, and nothing may be downloaded, or it cannot be.
        InputError: several models could be meant, or the hub refuses; see hub_errors.py.
        DiskError: it does not fit on the disk, or the cache cannot be written to.
        Interrupted: asked to stop; the next call continues the download.
    """
    where = f"base.model = {model!r}"
    if not name.repo:
        found = find_in_caches(model, name)
        if found is None:
            raise InputError(f"{where}: {missing}, and {absence(name)}", SET_BASE)
        return found
    shelf = Shelf(name)
    pin = shelf.pin()
    found = (None if pin is None else shelf.model(pin)) or find_in_caches(model, name)
    if found is not None:
        return found
    if reporter is None:
        begun = "" if pin is None else f"; its download to {shelf.folder} is unfinished"
        raise NotDownloaded(
            f"{where}: {missing}, and {absence(name)}{begun}", f"journeyman run downloads it; or run: {name.command()}"
        )
    from journeyman.models.hub_download import download  # imports huggingface_hub

    try:
        return download(name, shelf, reporter)
    except NotDownloaded as error:
        raise NotDownloaded(f"{error.what}; on this machine, there is {missing}", error.remedy) from error
