"""Filters, tests and functions that chat templates may use; each one's work is counted before it is done.

They are those of Jinja that models' templates use and that cannot make a large result from small input. What is missing
here, such as `random` and `wordwrap`, no chat template needs: a template with it is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from functools import wraps
from typing import Any, cast

from jinja2 import TemplateError, pass_context
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS
from jinja2.runtime import Context, Undefined
from jinja2.tests import TESTS
from jinja2.utils import Namespace

from journeyman.rendering.jinja_values import MOST_BITS, before_percent, before_replace, count_of
from journeyman.rendering.jinja_work import Work, current_work

_SHALLOW = {
    "attr", "count", "d", "default", "first", "items", "last", "length", "list", "map", "reject", "rejectattr",
    "reverse", "select", "selectattr", "slice",
}  # fmt: skip
"""Filters that look at the first level of their value only; all others may write or compare everything in it."""
_FILTERS = _SHALLOW | {
    "abs", "capitalize", "dictsort", "float", "format", "groupby", "indent", "int", "join", "lower", "max", "min",
    "replace", "round", "safe", "sort", "string", "sum", "title", "tojson", "trim", "truncate", "unique", "upper",
    "wordcount",
}  # fmt: skip
_COMPARING = {"!=", "<", "<=", "==", ">", ">=", "eq", "equalto", "ge", "greaterthan", "gt", "in", "le", "lessthan",
              "lt", "ne"}  # fmt: skip
_MOST_INDENT = 64


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as `transformers` writes it for chat templates: not escaped for HTML, with the options of json.dumps."""
    if (indent if isinstance(indent, int) else len(indent or "")) > _MOST_INDENT or len(str(separators)) > _MOST_INDENT:
        raise TemplateError("it indents JSON too far")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class TemplateNamespace(Namespace):
    """Jinja's `namespace`, without attributes that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # `self` is a name that a template may use
        self, *given = args
        made = dict(*given, **kwargs)
        for name in made:
            _check_name(name)
        Namespace.__init__(self, made)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or name.startswith("_"):
        raise SecurityError("it sets an attribute that begins with an underscore")


def _dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    current_work().value([*args, kwargs])
    return dict(*args, **kwargs)


def _range(*args: int) -> range:
    made = range(*args)
    current_work().step(len(made))
    return made


def _raise(message: Any = "") -> None:
    raise TemplateError(str(message))


FUNCTIONS: Mapping[str, Any] = {
    "dict": _dict, "namespace": TemplateNamespace, "raise_exception": _raise, "range": _range,
}  # fmt: skip


def _counted_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    kind = getattr(function, "jinja_pass_arg", None)

    # A filter that takes the context is never computed while the template is compiled.
    @pass_context
    @wraps(function, updated=())
    def run(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        work = current_work()
        work.step()
        if name in _SHALLOW:
            work.step(
                count_of(value) if name not in ("attr", "d", "default", "first", "last", "length", "count") else 0
            )
        else:
            value = list(value) if isinstance(value, Generator) else value
            work.value(value)
            work.value([args, kwargs])
        if name in _GROWING:
            _GROWING[name](work, value, *args, **kwargs)
        first = {"context": context, "eval_context": context.eval_ctx, "environment": context.environment}
        given = () if kind is None else (first[kind.name],)
        return function(*given, value, *args, **kwargs)

    return run


def _replaced(work: Work, value: Any, old: Any = "", new: Any = "", *_: Any, **__: Any) -> None:
    before_replace(work, str(value), old, new)


def _joined(work: Work, value: Any, d: Any = "", attribute: Any = None) -> None:
    work.text(len(str(d)) * count_of(value))


def _formatted(work: Work, value: Any, *args: Any, **kwargs: Any) -> None:
    before_percent(work, str(value), kwargs or args)


def _indented(work: Work, value: Any, width: Any = 4, *_: Any, **__: Any) -> None:
    size = width if isinstance(width, int) else len(str(width))
    if size > _MOST_INDENT:
        raise TemplateError("it indents text too far")
    work.text(size * (str(value).count("\n") + 1))


def _rounded(work: Work, value: Any, precision: Any = 0, *_: Any, **__: Any) -> None:
    if not isinstance(precision, int) or abs(precision) > MOST_BITS:
        raise TemplateError("it rounds a number to too many digits")


def _trimmed(work: Work, value: Any, chars: Any = "", *_: Any, **__: Any) -> None:
    work.text(len(str(value)) * len(str(chars or "")))


def _cut(work: Work, value: Any, slices: Any = 1, *_: Any, **__: Any) -> None:
    work.step(max(int(slices), 0))


_GROWING: Mapping[str, Callable[..., None]] = {
    "replace": _replaced, "join": _joined, "format": _formatted, "indent": _indented, "round": _rounded, "slice": _cut,
    "trim": _trimmed,
}  # fmt: skip
"""Filters with a result that may be larger than what they read → what counts its size, or refuses it."""


def _counted_test(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @pass_context
    @wraps(function, updated=())
    def run(context: Context, value: Any, *args: Any) -> Any:
        current_work().value([value, *args])
        return function(value, *args)

    return run if name in _COMPARING else function


def _safe(value: Any) -> str:
    """Nothing is escaped for HTML, so nothing needs to be exempt from it."""
    return str(value)


_OWN: Mapping[str, Callable[..., Any]] = {"tojson": to_json, "safe": _safe}
COUNTED_FILTERS: Mapping[str, Callable[..., Any]] = {
    name: _counted_filter(name, _OWN.get(name, FILTERS[name])) for name in sorted(_FILTERS)
}
COUNTED_TESTS: Mapping[str, Callable[..., Any]] = {
    name: _counted_test(name, cast("Callable[..., Any]", function)) for name, function in TESTS.items()
}
PRINTABLE = (str, int, float, type(None), list, tuple, dict, Undefined)
"""Types of which a template may write a value."""
