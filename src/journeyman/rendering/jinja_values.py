"""Methods and operators that chat templates may use; the work of each is counted before it is done.

A method or operator that can make a long text from short ones, by a width for example, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from string import Formatter
from types import BuiltinMethodType
from typing import Any

from jinja2 import TemplateError
from jinja2.runtime import Macro

from journeyman.rendering.jinja_work import Work, current_work

_STR_METHODS = {
    "capitalize", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii", "isdecimal", "isdigit",
    "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "lower", "lstrip", "partition", "removeprefix",
    "removesuffix", "replace", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines",
    "startswith", "strip", "swapcase", "title", "upper",
}  # fmt: skip
_DICT_METHODS = {"get", "items", "keys", "values"}
_SLOW = {"lstrip", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "strip"}
"""Methods whose work may be the product of the lengths of their text and their argument."""
_WIDE_PERCENT = re.compile(r"%[^a-zA-Z%]*(?:\d{3,}|\*)")
_WIDE_SPEC = re.compile(r"\d{3,}|\{")
_MOST_WIDTH = 99
_STEPS_OF_MACRO = 10
MOST_BITS = 128


def methods_of(value: Any) -> set[str] | None:
    """The methods of a value that templates may call; None: all public ones of a harmless type of Jinja's own."""
    if isinstance(value, str):
        return _STR_METHODS
    if isinstance(value, dict):
        return _DICT_METHODS
    return set() if isinstance(value, list | tuple | int | float | bytes | range) else None


def before_call(called: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """Counts the work of a call before it is made; returns its arguments, with a list in place of a generator."""
    work = current_work()
    work.step(_STEPS_OF_MACRO if isinstance(called, Macro) else 1)
    if isinstance(called, BuiltinMethodType) and isinstance(text := called.__self__, str):
        args = tuple(list(one) if isinstance(one, Generator) else one for one in args)
        work.text(len(text))
        work.value([args, kwargs])
        name = called.__name__
        if name == "replace":
            before_replace(work, text, *args, **kwargs)
        elif name == "join":
            work.text(len(text) * count_of(args[0] if args else ()))
        elif name in _SLOW:
            work.text(len(text) * max([len(one) for one in args if isinstance(one, str)], default=0))
        if name in ("split", "rsplit", "splitlines"):
            mark = args[0] if args else kwargs.get("sep")
            work.step(text.count(mark) if isinstance(mark, str) and mark else len(text) // 8)
    return args


def before_replace(work: Work, text: str, old: Any = "", new: Any = "", *_: Any, **__: Any) -> None:
    work.text(text.count(str(old)) * len(str(new)))


def count_of(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") else 1


def binary(operator: str, left: Any, right: Any, compute: Callable[[Any, Any], Any]) -> Any:
    """The value of `left operator right`; its size is counted before it is made."""
    work = current_work()
    if operator == "+":
        if isinstance(left, str):
            if isinstance(right, str):
                work.text(len(left) + len(right))
        elif isinstance(left, list | tuple):
            work.step(len(left) + (len(right) if isinstance(right, list | tuple) else 0))
    elif operator == "*":
        for one, times in ((left, right), (right, left)):
            if isinstance(one, str | list | tuple) and isinstance(times, int):
                (work.text if isinstance(one, str) else work.step)(len(one) * max(times, 0))
    elif operator == "%" and isinstance(left, str):
        before_percent(work, left, right)
    elif operator == "**" and not (isinstance(right, int | float) and abs(right) <= MOST_BITS):
        raise TemplateError("it computes a power that is too large")
    made = compute(left, right)
    if isinstance(made, int) and made.bit_length() > MOST_BITS:
        raise TemplateError("it computes a number that is too large")
    if isinstance(made, tuple) and made:
        raise TemplateError("it adds or multiplies tuples")
    return made


def before_percent(work: Work, form: str, values: Any) -> None:
    """Counts the text that `form % values` makes; refuses widths, with which a short form makes a long text."""
    if _WIDE_PERCENT.search(form):
        raise TemplateError("it formats text with a width")
    _write_often(work, values, form.count("%"))


def bounded_format(form: str, function: Callable[..., str]) -> Callable[..., str]:
    """`str.format` of `form`, whose work is counted; `function` is the sandbox's form of it."""

    def run(*args: Any, **kwargs: Any) -> str:
        if any(_WIDE_SPEC.search(spec or "") for _, _, spec, _ in Formatter().parse(form)):
            raise TemplateError("it formats text with a width")
        work = current_work()
        work.text(len(form))
        _write_often(work, [args, kwargs], form.count("{"))
        return function(*args, **kwargs)

    return run


def _write_often(work: Work, value: Any, times: int) -> None:
    before = work.chars + work.steps
    work.value(value)
    work.text((before - work.chars - work.steps + _MOST_WIDTH) * max(times, 1))
