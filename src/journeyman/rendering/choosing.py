"""Gives a base the chat template that the config file chooses: one of journeyman's own, or the user's file."""

from __future__ import annotations

from pathlib import Path

from journeyman.artifacts import expanded
from journeyman.config import BaseConfig
from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.models.base import Base, TemplateChoice, TokenizerData
from journeyman.models.templated import TemplatedBase
from journeyman.rendering.bounded_jinja import MOST_SOURCE
from journeyman.rendering.named import NAMED, fits

SUFFIX = ".jinja"


def with_template(base: Base, config: BaseConfig, folder: Path) -> Base:
    """The base with the chat template, options and date of the config; the base itself if it sets none.

    Args:
        folder: what the path of a template file is relative to.

    Raises:
        InputError: there is no such template or file, or the base does not have the template's tokens.
    """
    source = None
    if config.chat_template:
        source = _source(config.chat_template, base.tokenizer, base.path.name, folder)
    if source is None and not config.template_options and config.template_date is None:
        return base
    choice = TemplateChoice(config.chat_template, source, config.template_options, config.template_date)
    return TemplatedBase(base, choice)


def _source(name: str, data: TokenizerData, base: str, folder: Path) -> str:
    if name.endswith(SUFFIX):
        return _read(folder / expanded(name))
    asked = f"base.chat_template = {plain(name, 80)!r}"
    if name not in NAMED:
        raise InputError(
            f"{asked}: there is no such template",
            f"Set it to one of {', '.join(NAMED)} ({fits(data)}), or to a {SUFFIX} file",
        )
    missing = NAMED[name].missing(data)
    if missing:
        raise InputError(
            f"{asked}: {base} has no token {', '.join(missing)}, so ordinary text would mark its turns",
            f"Set another one: {fits(data)}",
        )
    return NAMED[name].source


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(4 * MOST_SOURCE).decode("utf-8")
    except OSError as error:
        raise InputError(f"base.chat_template: {path}: {error.strerror}", "Set it to a file that exists") from error
    except UnicodeDecodeError as error:
        raise InputError(f"base.chat_template: {path}: not UTF-8: {error}", "Save it as UTF-8") from error
