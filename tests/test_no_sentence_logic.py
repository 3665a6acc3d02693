"""No code bases a decision on the English words of a sentence: reasons have codes and types for that."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src/journeyman"
_PHRASE = re.compile(r"[A-Za-z]{2,} [A-Za-z]{2,}")
_LOOKS = {"startswith", "endswith", "removeprefix", "removesuffix", "partition", "rpartition", "split", "rsplit"}
_LOOKS |= {"find", "rfind", "index", "count", "match", "search", "fullmatch"}


FOREIGN = {
    "GIT binary patch", "Binary files ", "rename to", "copy to", "new file mode", "deleted file mode",  # of git's diffs
    "for tool use",  # of a session of a coding agent
    "no error",  # of a log's status
    " starting at",  # of the messages of json.JSONDecodeError
    "did not end by itself",  # of a reason that older versions wrote as text
}  # fmt: skip
"""Words of formats that others define, which code has to compare."""


def _decides_by_words(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of each comparison with a phrase or with the sentence of a reason."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _LOOKS:
            operands = [node.func.value, *node.args]
        elif isinstance(node, ast.MatchValue):
            operands = [node.value]
        else:
            continue
        for operand in operands:
            parts = operand.elts if isinstance(operand, ast.Tuple | ast.List | ast.Set) else [operand]
            if any(map(_is_phrase, parts)) or any(map(_is_sentence, parts)):
                yield node.lineno, ast.unparse(node)
                break


def _is_phrase(node: ast.expr) -> bool:
    if isinstance(node, ast.JoinedStr):
        return any(map(_is_phrase, node.values))
    return (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and (node.value not in FOREIGN and bool(_PHRASE.search(node.value)))
    )


def _is_sentence(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "sentence"


def test_no_module_decides_by_a_sentence() -> None:
    found = [
        f"{path.relative_to(SOURCE)}:{line}: {code}"
        for path in sorted(SOURCE.rglob("*.py"))
        for line, code in _decides_by_words(ast.parse(path.read_text()))
    ]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        'if detail.startswith("nothing but"): pass',
        'if "did not end" in why: pass',
        'drop = reason == "no answer"',
        'if why in ("no answer", "no row"): pass',
        "if reason.sentence() == other: pass",
        'if reason.sentence().startswith("n"): pass',
        'if note.endswith(f"by itself: {name}"): pass',
        'match why:\n    case "no answer": pass',
        'text, _, code = detail.partition(" says that ")',
    ],
)
def test_such_code_is_found(code: str) -> None:
    assert list(_decides_by_words(ast.parse(code)))


@pytest.mark.parametrize(
    "code", ['if code == "too_long": pass', 'if name.endswith(".jsonl"): pass', 'say("no answer")']
)
def test_other_code_is_not(code: str) -> None:
    assert not list(_decides_by_words(ast.parse(code)))
