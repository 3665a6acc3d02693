"""What the model card says about data and roles."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from journeyman.bundling.card import _data, _stay
from journeyman.bundling.results import Results


@pytest.mark.parametrize(
    ("teachers", "said"),
    [
        ({"acme": ("deny", 0), "own": ("allow", 9)}, "whose terms do not allow it were left out"),
        ({"nobody": ("unknown", 0), "own": ("allow", 0)}, "whose terms are not known were left out"),
        ({"nobody": ("unknown", 0), "acme": ("deny", 0)}, "whose terms do not allow it or are not known were left out"),
        ({"nobody": ("unknown", 5), "acme": ("deny", 0)}, "whose terms do not allow it were left out"),
    ],
)
def test_rows_of_unknown_teachers_are_not_called_denied(teachers: dict[str, tuple[str, int]], said: str) -> None:
    terms = {name: SimpleNamespace(terms=word, rows=rows) for name, (word, rows) in teachers.items()}
    dataset: Any = SimpleNamespace(
        splits={}, teacher_terms=terms, dropped={"teacher_terms": 7}, kept=9, rows_in=16, train_tokens=1
    )
    lines = _data(cast(Results, SimpleNamespace(dataset=dataset)))
    assert [line for line in lines if "left out" in line] == [f"- 7 rows of teachers {said}"]


def test_a_role_that_another_target_has_does_not_stay_with_the_teacher() -> None:
    roles = {"coder": "deploy", "tester": "deploy", "poet": "iterate"}
    decision = SimpleNamespace(roles={role: SimpleNamespace(verdict=verdict) for role, verdict in roles.items()})
    said = _stay(["coder", "tester"], cast(Results, SimpleNamespace(decision=decision)))
    assert said == "Roles that stay with the teacher: poet (iterate)."
