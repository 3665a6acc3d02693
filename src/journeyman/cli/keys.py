"""`journeyman keys`: the keys that clients of `journeyman serve` send."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from journeyman.cli.say import say, say_json

if TYPE_CHECKING:
    from journeyman.serving.keyring import KeyFile

keys = typer.Typer(no_args_is_help=True, help="Add, list and revoke the keys that clients of `serve` send.")
Folder = Annotated[Path, typer.Option("--dir", "-d", help="the run folder, which contains journeyman.toml")]
Name = Annotated[str, typer.Argument(help="the key's name")]
HERE = Path()


@keys.command()
def add(name: Name, folder: Folder = HERE) -> None:
    """Make a key and print it; it is not shown again. From then on, also a running port needs a key."""
    say(_file(folder, new=True).add(name))


@keys.command("list")
def list_keys(
    folder: Folder = HERE, as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False
) -> None:
    """List the names of the keys and when they were made."""
    found = _file(folder).listed()
    if as_json:
        say_json([{"name": key.name, "created": key.created} for key in found])
        return
    for key in found:
        say(f"{key.name}  {key.created}")
    if not found:
        say("no keys")


@keys.command()
def revoke(name: Name, folder: Folder = HERE) -> None:
    """Remove a key; a running server refuses it at once."""
    _file(folder).revoke(name)
    say(f"revoked {name}", err=True)


def _file(folder: Path, *, new: bool = False) -> KeyFile:
    """The keys in a folder from which `serve` reads settings and keys.

    Raises:
        UsageError: it is another folder, where nothing would read a key.
    """
    from journeyman.config import CONFIG_NAME
    from journeyman.errors import UsageError
    from journeyman.runs import folder_with_config
    from journeyman.serving.keyring import FILE, KeyFile

    settled = folder_with_config(folder)
    file = KeyFile((settled or folder) / FILE)
    if settled is None and (new or not file.exists):
        raise UsageError(
            f"{folder.resolve()}: has no {CONFIG_NAME}, so serve does not use its keys",
            "Name the folder with which you serve, as in journeyman keys list --dir my-run",
        )
    return file
