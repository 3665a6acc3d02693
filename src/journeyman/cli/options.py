"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Option("--dir", "-d", help="the run folder, which contains journeyman.toml")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="override a config key, e.g. --set train.lora.rank=16")
]
Redo = Annotated[bool, typer.Option("--redo", help="rerun stale stages; the old results move to superseded/")]
Override = Annotated[str | None, typer.Option("--override", help="export despite the verdict; the reason is recorded")]
OtherEngine = Annotated[
    bool,
    typer.Option("--allow-other-engine", help="export even if the installed engine is not the one that was evaluated"),
]
Detach = Annotated[bool, typer.Option("--detach", help="run in the background; see status and stop")]
Ray = Annotated[
    bool,
    typer.Option(
        "--ray", help="work on the Ray cluster that runs here or that RAY_ADDRESS names (cluster.address = 'auto')"
    ),
]
Fit = Annotated[
    bool,
    typer.Option("--fit", help="if it does not fit in memory, take the nearest settings with which it does, as --set"),
]
HERE = Path()
