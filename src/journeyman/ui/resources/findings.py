"""What curate dropped, mended or noted: by rule and role, and row by row."""

from __future__ import annotations

from collections.abc import Hashable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from journeyman.artifacts import MANIFEST, hash_of
from journeyman.foreign import named
from journeyman.manifests import DatasetManifest
from journeyman.runs import PLACES
from journeyman.ui.context import Context, context_of, run_of
from journeyman.ui.errors import NotThere
from journeyman.ui.files import state_of
from journeyman.ui.finding import RunFolder
from journeyman.ui.findings import ACTIONS, INTERACTIONS, Findings, files_of, interaction_of
from journeyman.ui.requests import answer, choice, number, number_or_none
from journeyman.ui.row_files import state_of_files

NAME = "findings"
_MOST_ROWS, _MOST_NUMBER = 200, 1 << 31


def findings(request: Request) -> Response:
    """A page of findings, and how many there are.

    Parameters: `rule` and `role` by number, `action`, `text`; `start`, `count`.
    """
    index, _ = _index(request)
    chosen = index.chosen(
        number_or_none(request, "rule", len(index.rules) - 1), number_or_none(request, "role", len(index.roles) - 1),
        choice(request, "action", ACTIONS), request.query_params.get("text", "")[:200],
    )  # fmt: skip
    start, count = number(request, "start", 0, _MOST_NUMBER), number(request, "count", 50, _MOST_ROWS)
    return answer({"total": len(chosen), "start": start, "rows": index.rows(chosen[start : start + count])})


def summary(request: Request) -> Response:
    """The rules that found something, with counts by role, and the notes on the dataset as a whole."""
    (index, state), context = _index(request), context_of(request)
    made = context.manifests.result(run_of(request).root, "curate", DatasetManifest)
    return answer({
        "state": state, "rules": [{"name": name, "what": _what(made, name)} for name in index.rules],
        "roles": [named(name) for name in index.roles], "counts": index.counts(), "total": len(index),
        "rows_in": made.rows_in, "kept": made.kept, "dropped": sum(made.dropped.values()),
        "splits": {named(role): one.model_dump() for role, one in made.splits.items()},
        "notes": [made.leak_check.sentence(), *(one.sentence() for one in made.notes)],
    })  # fmt: skip


def _what(made: DatasetManifest, rule: str) -> str:
    return made.rules[rule].what if rule in made.rules else ""


def finding(request: Request) -> Response:
    """One finding, with the logged row as ingest wrote it; null if it is not there."""
    (index, _), place = _index(request), int(request.path_params["number"])
    if place >= len(index):
        raise NotThere(f"there is no finding {place}", "Go back to the list")
    found = index.rows([place])[0]
    logged, manifests, root = None, context_of(request).manifests, run_of(request).root
    if manifests.of(root, "ingest") is not None:
        manifests.checked(root, "ingest", [INTERACTIONS])
        logged = interaction_of(root, index.id_of(place))
    return answer({**found, "logged": None if logged is None else logged.model_dump(mode="json")})


def _index(request: Request) -> tuple[Findings, str]:
    """The index of a run's findings, and a name for the state of its files."""
    context, root = context_of(request), run_of(request).root
    files = files_of(root)
    state = state_of_files(files, context.manifests)
    return context.findings.get(root, state, lambda: Findings(files)), hash_of(state)


def signature(context: Context, run: RunFolder) -> Hashable:
    return state_of(run.root / PLACES["curate"].folder / MANIFEST)


ROUTES = (
    Route("/api/runs/{run}/findings", findings),
    Route("/api/runs/{run}/findings/summary", summary),
    Route("/api/runs/{run}/findings/{number:int}", finding),
)
