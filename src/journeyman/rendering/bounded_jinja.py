"""Jinja as `transformers` runs it for chat templates, with limits: sandboxed, immutable, and ending in bounded work.

A chat template comes from a stranger's file. jinja2's sandbox keeps it away from Python's internals, but not from
loops in loops, texts that double, and macros that call themselves. Here every loop, call and operation that can make
something large is counted: see jinja_work.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from itertools import islice
from types import BuiltinMethodType, MethodType
from typing import Any

from jinja2 import Template, TemplateError, nodes, pass_eval_context
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from journeyman.rendering import jinja_filters as filters
from journeyman.rendering import jinja_values as values
from journeyman.rendering.jinja_compiler import CountingGenerator
from journeyman.rendering.jinja_work import counted, current_work, limited_work

MOST_SOURCE = 1 << 17
"""Characters. Templates of published models have up to 30,000."""
_AT_A_TIME = 1 << 10
"""Parts of the output that are collected before their size is counted."""
_MOST_ATTRIBUTES = 1 << 10
_METHODS = (MethodType, BuiltinMethodType)
_REFUSED: dict[type[nodes.Node], str] = {
    nodes.Extends: "extends", nodes.Include: "include", nodes.Import: "import", nodes.FromImport: "from … import",
    nodes.Block: "block",
}  # fmt: skip


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """The environment of chat templates. Compile and render within `limited_work`."""

    code_generator_class = CountingGenerator
    intercepted_binops = frozenset({"+", "*", "%", "**"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_GenerationBlock, loopcontrols],
            finalize=_printable,
            optimized=False,
            auto_reload=False,
        )
        self.filters = dict(filters.COUNTED_FILTERS)
        self.tests = dict(filters.COUNTED_TESTS)
        self.globals = dict(filters.FUNCTIONS)
        self._safe: dict[tuple[type, str], bool] = {}
        self.each = counted
        self.joined, self.added = _joined, self._added
        self.sliced, self.measured, self.held = _sliced, _measured, _held

    def concat(self, parts: Iterable[str]) -> str:
        """The parts of the output, or of a macro's, as one text."""
        text, parts, kept = current_work().text, iter(parts), []
        while some := list(islice(parts, _AT_A_TIME)):
            text(sum(map(len, some)))
            kept += some
        return "".join(kept)

    def _added(self, parts: tuple[Any, ...]) -> Any:
        """The sum of several operands, from left to right; mostly they are texts."""
        size = 0
        for part in parts:
            if type(part) is not str:
                return reduce(lambda left, right: values.binary("+", left, right, self.binop_table["+"]), parts)
            size += len(part)
        current_work().text(size)
        return "".join(parts)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        return values.binary(operator, left, right, self.binop_table[operator])

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        args = values.before_call(__obj, args, kwargs)
        return super().call(__context, __obj, *args, **kwargs)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        key = type(obj), attr
        safe = self._safe.get(key)
        if safe is None:
            allowed = values.methods_of(obj)
            safe = (allowed is None or attr in allowed) and super().is_safe_attribute(obj, attr, value)
            if isinstance(obj, LoopContext) and attr == "changed":  # compares values as large as a template likes
                safe = False
            if len(self._safe) < _MOST_ATTRIBUTES:
                self._safe[key] = safe
        return safe

    def wrap_str_format(self, value: Any) -> Any:
        made = super().wrap_str_format(value) if type(value) in _METHODS else None
        return None if made is None else values.bounded_format(value.__self__, made)

    def _generate(self, source: nodes.Template, name: Any, filename: Any, defer_init: bool = False) -> str:
        _check(source, self)
        return super()._generate(source, name, filename, defer_init)


class _GenerationBlock(Extension):
    """`{% generation %}`, with which transformers marks the assistant's text: its body is written as it is."""

    tags = frozenset({"generation"})  # type: ignore[assignment]

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_written"), [], [], body).set_lineno(line)

    @pass_eval_context
    def _written(self, context: nodes.EvalContext, caller: Any) -> str:
        return str(caller())


def compiled(source: str) -> Template:
    """The template, ready to be rendered within `limited_work`.

    Raises:
        TemplateError: it does not compile, is too long, or uses what chat templates have no need of.
    """
    if len(source) > MOST_SOURCE:
        raise TemplateError(f"it has {len(source):,} characters, more than {MOST_SOURCE:,}")
    with limited_work():
        try:
            return BoundedEnvironment().from_string(source)
        except TemplateError:
            raise
        except Exception as error:  # nested too deep: for Jinja's parser or for Python's compiler
            raise TemplateError(f"it is nested too deep ({type(error).__name__})") from error


def _check(template: nodes.Template, environment: BoundedEnvironment) -> None:
    """Refuses statements, filters and tests that are not supported, and makes loops count their passes."""
    for node in template.find_all(nodes.Node):
        name = _REFUSED.get(type(node))
        if name is not None:
            raise TemplateError(f"it uses {{% {name} %}}")
        if isinstance(node, nodes.Filter) and node.name not in environment.filters:
            raise TemplateError(f"it uses the filter {node.name!r}")
        if isinstance(node, nodes.Test) and node.name not in environment.tests:
            raise TemplateError(f"it uses the test {node.name!r}")
    for loop in list(template.find_all(nodes.For)):
        if loop.recursive:
            raise TemplateError("it uses a recursive loop")
        loop.iter = nodes.Call(nodes.EnvironmentAttribute("each"), [loop.iter], [], None, None)


def _joined(parts: tuple[Any, ...]) -> str:
    work = current_work()
    for part in parts:
        if isinstance(part, str):
            work.text(len(part))
        else:
            work.value(part)
    return "".join(map(str, parts))


def _sliced(value: Any, start: Any, stop: Any, step: Any) -> Any:
    made = value[start:stop:step]
    if isinstance(made, str):
        current_work().text(len(made))
    elif isinstance(made, list | tuple):
        current_work().step(len(made))
    return made


def _measured(value: Any) -> Any:
    """A value that is compared with another; comparing takes as long as what is in it."""
    if isinstance(value, str):
        current_work().text(len(value))
    elif isinstance(value, list | tuple | dict):
        current_work().value(value)
    return value


def _held(value: Any) -> Any:
    """A new list, tuple or dict: counted with all that is in it, which bounds how often values can hold each other."""
    current_work().value(value)
    return value


def _printable(value: Any) -> Any:
    """A value that the template writes; texts are counted when the output is put together."""
    if type(value) is str:
        return value
    if not isinstance(value, filters.PRINTABLE):
        raise TemplateError(f"it writes a {type(value).__name__}")
    if isinstance(value, list | tuple | dict) or (isinstance(value, int) and value.bit_length() > 64):
        current_work().value(value)
    return value
