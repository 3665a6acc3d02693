"""Compiles chat templates so that their environment sees every operation: see bounded_jinja."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame


class CountingGenerator(CodeGenerator):
    """Compiles the operations that Jinja does without asking its environment into calls of it."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self._call("joined", node.nodes, frame)

    def visit_Add(self, node: nodes.BinExpr, frame: Frame) -> None:
        parts: list[nodes.Expr] = [node.right]
        left = node.left
        while isinstance(left, nodes.Add):
            parts.append(left.right)
            left = left.left
        self._call("added", [left, *reversed(parts)], frame)

    def visit_List(self, node: nodes.List, frame: Frame) -> None:
        self._held(node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        if node.ctx == "load":
            self._held(node, frame)
        else:
            super().visit_Tuple(node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        self._held(node, frame)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        if not isinstance(node.arg, nodes.Slice):
            super().visit_Getitem(node, frame)
            return
        self.write("environment.sliced(")
        self.visit(node.node, frame)
        for part in (node.arg.start, node.arg.stop, node.arg.step):
            self.write(", ")
            if part is None:
                self.write("None")
            else:
                self.visit(part, frame)
        self.write(")")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:
        sides = [node.expr, *(operand.expr for operand in node.ops)]
        searches = any(one.op in ("in", "notin") for one in node.ops)
        if searches or not any(isinstance(side, nodes.Const) for side in sides):  # comparing with a constant is fast
            node = nodes.Compare(node.expr, [nodes.Operand(one.op, _measure(one.expr)) for one in node.ops])
            node.expr = _measure(node.expr)
        super().visit_Compare(node, frame)

    def _held(self, node: Any, frame: Frame) -> None:
        plain = getattr(CodeGenerator, f"visit_{type(node).__name__}")
        if all(isinstance(one, nodes.Const) for one in node.items):
            plain(self, node, frame)
            return
        self.write("environment.held(")
        plain(self, node, frame)
        self.write(")")

    def _call(self, name: str, parts: Sequence[nodes.Expr], frame: Frame) -> None:
        self.write(f"environment.{name}((")
        for part in parts:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


def _measure(value: nodes.Expr) -> nodes.Expr:
    return nodes.Call(nodes.EnvironmentAttribute("measured"), [value], [], None, None)
