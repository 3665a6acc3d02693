"""The rows of an evaluation: in short by page, and one side by side with differences marked."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from journeyman.artifacts import MANIFEST, hash_of
from journeyman.foreign import named
from journeyman.manifests import DecisionManifest
from journeyman.records import BASE, TEACHER, TUNED, Prediction, Score
from journeyman.reporting.differences import parts_of
from journeyman.runs import PLACES
from journeyman.ui.answers import OUTCOMES, Answers, files_of
from journeyman.ui.context import Context, context_of, run_of
from journeyman.ui.errors import NotThere
from journeyman.ui.files import state_of
from journeyman.ui.finding import RunFolder
from journeyman.ui.requests import answer, choice, number, number_or_none
from journeyman.ui.row_files import state_of_files

NAME = "answers"
_MOST_ROWS, _MOST_NUMBER = 200, 1 << 31
_AGAINST_BASE = ("won", "lost")


def rows(request: Request) -> Response:
    """A page of rows in short.

    Parameters: `role` and `arm` by number; `outcome` of that arm; `text`; `start`, `count`.
    """
    index, _ = _index(request)
    chosen = index.chosen(
        number_or_none(request, "role", len(index.roles) - 1), number_or_none(request, "arm", len(index.arms) - 1),
        choice(request, "outcome", (*OUTCOMES, *_AGAINST_BASE)), request.query_params.get("text", "")[:200],
    )  # fmt: skip
    start, count = number(request, "start", 0, _MOST_NUMBER), number(request, "count", 50, _MOST_ROWS)
    page = index.rows(chosen[start : start + count])
    return answer({"total": len(chosen), "start": start, "rows": page})


def summary(request: Request) -> Response:
    """The names of arms and roles, which rows give by number; `ships` is the arm that may ship."""
    (index, state), context = _index(request), context_of(request)
    decided = context.manifests.of(run_of(request).root, "decide")
    ships = decided.result.ships if decided and isinstance(decided.result, DecisionManifest) else TUNED
    return answer({
        "state": state, "arms": [named(name) for name in index.arms], "roles": [named(name) for name in index.roles],
        "ships": index.arms.index(ships) if ships in index.arms else None,
        "total": len(index), "without_prompt": index.without_prompt,
    })  # fmt: skip


def row(request: Request) -> Response:
    """One row in full. Parameter: `against`, the number of the arm with which each answer is compared."""
    (index, _), place = _index(request), int(request.path_params["number"])
    if place >= len(index):
        raise NotThere(f"there is no row {place}", "Go back to the list")
    example, found = index.row(place)
    against = number_or_none(request, "against", len(index.arms) - 1)
    other = index.arms[against] if against is not None else next((one for one in (TEACHER, BASE) if one in found), None)
    told = None if other is None else found[other][0]
    return answer({
        "number": place, "id": index.id_of(place),
        "role": named(example.role) if example else None,
        "messages": [one.model_dump(mode="json") for one in example.messages] if example else None,
        "tools": example.tools if example else [], "check": example.check if example else {},
        "against": None if other is None else named(other),
        "arms": {named(arm): _arm(*one, told if arm != other else None) for arm, one in found.items()},
    })  # fmt: skip


def _arm(prediction: Prediction | None, score: Score | None, other: Prediction | None) -> Mapping[str, Any]:
    """An arm's answer as [marked, text] pieces: what the other answer does not have is marked."""
    pieces = None
    if prediction is not None:
        pieces = [[False, prediction.text]] if other is None else parts_of(other.text, prediction.text)[1]
    return {
        "pieces": pieces,
        **({} if prediction is None else prediction.model_dump(mode="json", exclude={"id", "role", "arm", "text"})),
        "outcome": score and score.outcome, "decided_by": score and score.check,
        "reason": score.why() if score else "", "checks": score.checks if score else {},
    }  # fmt: skip


def _index(request: Request) -> tuple[Answers, str]:
    """The index of a run's rows, and a name for the state of their files."""
    context, root = context_of(request), run_of(request).root
    context.manifests.made(root, "evaluate")
    files = files_of(root)
    state = state_of_files(files, context.manifests)
    return context.answers.get(root, state, lambda: Answers(files)), hash_of(state)


def signature(context: Context, run: RunFolder) -> Hashable:
    return tuple(state_of(run.root / PLACES[stage].folder / MANIFEST) for stage in ("curate", "evaluate", "decide"))


ROUTES = (
    Route("/api/runs/{run}/rows", rows),
    Route("/api/runs/{run}/rows/summary", summary),
    Route("/api/runs/{run}/rows/{number:int}", row),
)
