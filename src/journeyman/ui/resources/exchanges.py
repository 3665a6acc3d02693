"""The exchanges of a run: in short by page, newest first, and one in full with the answers that belong to it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from journeyman.foreign import named
from journeyman.reporting.differences import parts_of
from journeyman.sources.fields import mapping
from journeyman.ui.context import Context, context_of, run_of
from journeyman.ui.errors import NotThere
from journeyman.ui.finding import RunFolder
from journeyman.ui.requests import answer, choice, number, number_or_none
from journeyman.ui.traffic.buckets import KINDS
from journeyman.ui.traffic.contents import contents_of, reference_of
from journeyman.ui.traffic.exchanges import FAILED, MOST_LISTED, PLACES
from journeyman.ui.traffic.rows import MOST_SEARCHED, RowFinder
from journeyman.ui.traffic.state import RunTraffic

NAME = "exchanges"
_MOST_ROWS, _MOST_NUMBER = 200, 1 << 53
_SHOWN = (
    "seq", "of", "at", "conversation", "place", "arm", "mode", "share", "outcome", "status", "failed", "why", "said",
    "checked", "teacher_checked", "fallback", "first_ms", "duration_ms", "prompt_tokens", "answer_tokens", "model",
    "release",
)  # fmt: skip


def exchanges(request: Request) -> Response:
    """A page of exchanges, newest first.

    Parameters: `role` and `why` by number; `kind`: who answered; `place`; `failed`; `start`, `count`; `upto`: only
    those before this number, so that a list stays as it is while others come.
    """
    known, read = _known(request)
    one = known.exchanges
    upto = number(request, "upto", _MOST_NUMBER, _MOST_NUMBER)
    wanted = {
        "role": number_or_none(request, "role", 1 << 15), "why": number_or_none(request, "why", 1 << 15),
        "kind": _place(request, "kind", KINDS), "place": _place(request, "place", PLACES),
        "failed": _place(request, "failed", FAILED),
    }  # fmt: skip
    start, count = number(request, "start", 0, _MOST_NUMBER), number(request, "count", 50, _MOST_ROWS)
    with one.file.lock:
        chosen = one.chosen(upto, **wanted)
        page = chosen[start : start + count].tolist()
        rows = [{"number": at, **_short(row)} for at, row in zip(page, one.rows(page), strict=True)]
        total = len(one)
    return answer({"total": len(chosen), "start": start, "rows": rows, "whole": total, "read": read})


def _place(request: Request, name: str, values: tuple[str, ...]) -> int | None:
    found = choice(request, name, values)
    return None if found is None else values.index(found)


def _short(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**{name: row.get(name) for name in _SHOWN}, "role": named(str(row.get("role") or ""))}


def summary(request: Request) -> Response:
    """The names of the filters, by number; `all` is how many exchanges there are, of which `listed` are listed."""
    known, read = _known(request)
    one = known.exchanges
    if not read["of"]:
        raise NotThere("no exchange was judged in this run yet", "They are judged while: journeyman record")
    with one.file.lock:
        roles = [[at, named(name)] for at, name in enumerate(one.roles.all) if at]
        whys = [[at, name[:80]] for at, name in enumerate(one.whys.all) if at]
        return answer({
            "generation": one.file.generation, "roles": roles, "whys": sorted(whys, key=lambda found: found[1]),
            "kinds": KINDS, "places": PLACES, "whole": len(one), "listed": min(len(one), MOST_LISTED), "read": read,
            "searched_mib": MOST_SEARCHED >> 20,
        })  # fmt: skip


def exchange(request: Request) -> Response:
    """One exchange in full. Parameter: `seq`, its number in the ledger, as the list has it."""
    known, _ = _known(request)
    one, place = known.exchanges, int(request.path_params["number"])
    with one.file.lock:
        rows = one.rows([place]) if one.offset_of(place) is not None else []
        if not rows or rows[0].get("seq") != number(request, "seq", _MOST_NUMBER, 1 << 62):
            raise NotThere("there is no such exchange any more", "Load the list again")
        others = one.beside(place)
        beside = list(zip(others, one.rows(others), strict=True))
    ordered = sorted([(place, rows[0]), *beside], key=lambda pair: pair[1]["place"] != "delivered")
    parts = [_part(request, at, row) for at, row in ordered]
    told = _mark(parts)
    return answer({"number": place, "role": parts[0]["role"], "parts": parts, "marked_against": told})


def _part(request: Request, place: int, row: dict[str, Any]) -> dict[str, Any]:
    """An exchange with its recorded row."""
    context, root = context_of(request), run_of(request).root
    finder: RowFinder = context.traffic.rows(root, delivered=row["place"] == "delivered")
    found = finder.find(row["seq"])
    missing, contents, reference = found.why, None, None
    if found.line is not None:
        recorded = mapping(from_json(found.line))
        if recorded.get("time") != row["at"] or recorded.get("of") != row.get("of"):
            missing = "the row with its number is of another exchange: the recorder's folder was replaced"
        else:
            contents, reference = contents_of(recorded), reference_of(recorded)
    return {"number": place, **_short(row), "missing": missing, "contents": contents, "reference": reference}


def _mark(parts: list[dict[str, Any]]) -> bool:
    """Adds to each answer the pieces of which it consists: marked is what the first answer does not have."""
    first = parts[0]["contents"]
    for one in parts:
        contents = one["contents"]
        if contents is None:
            continue
        other = one["reference"] if one["reference"] is not None else first and first["answer"]
        if (one is parts[0] and one["place"] == "delivered") or other is None:
            contents["pieces"] = [[False, contents["answer"]]]
        else:
            contents["pieces"] = parts_of(other, contents["answer"])[1]
        if one is not parts[0] and first is not None:
            contents["messages"] = None  # they are the first one's
    return len(parts) > 1


def _known(request: Request) -> tuple[RunTraffic, dict[str, Any]]:
    known = context_of(request).traffic.of(run_of(request).root)
    return known, known.read()


def signature(context: Context, run: RunFolder) -> Hashable:
    return None  # it shows what `traffic` tells of


ROUTES = (
    Route("/api/runs/{run}/exchanges", exchanges),
    Route("/api/runs/{run}/exchanges/summary", summary),
    Route("/api/runs/{run}/exchanges/{number:int}", exchange),
)
