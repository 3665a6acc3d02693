"""Run folders with traffic, as the recorder and what judges its rows leave them; written without running either."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from journeyman.artifacts import row_bytes
from journeyman.gateway.row_files import compress
from journeyman.routing.canaries import RoleState, figures_of
from journeyman.routing.conversations import Conversation
from journeyman.routing.exchanges import Exchange
from journeyman.routing.modes import changed
from journeyman.stats.canary import Canary

CONFIG = '[route]\nstudent = "http://127.0.0.1:8011"\n'
_ROLES = ("coder", "tester", "planner")
_FALLBACKS = ("slow", "check_python_parses", "status_503")
BEGAN = datetime(2026, 11, 29, 8, tzinfo=UTC)


def write_traffic(
    root: Path, count: int = 300, *, text: str = "", config: str = CONFIG, recorded: str = "recorded",
    routing: str = "routing", rows: bool = True, gap_s: float = 60.0, per_file: int = 100,
) -> Path:  # fmt: skip
    """A run in which `coder` is in a canary, `tester` in shadow, and `planner` in fallback.

    Args:
        rows: write the recorded rows too; else only what was made of them.
        gap_s: seconds between two exchanges.
        per_file: rows of a file; all files but the last are compressed.
    """
    root.mkdir(parents=True, exist_ok=True)
    (root / "journeyman.toml").write_text(config)
    place = root / routing
    (place / "undelivered").mkdir(parents=True)
    (root / recorded).mkdir(parents=True)
    changed(place, "planner", "canary", share=0.5)
    routes = [
        changed(place, "planner", "fallback", why="shown to fail in at most 5 % more", action="promote"),
        changed(place, "tester", "shadow", why="a new bundle"),
        changed(place, "coder", "canary", share=0.5, why="looked good in shadow"),
    ]
    planner, tester, coder = (one.trial if one is not None else 0 for one in routes)
    trials = {"planner": planner, "tester": tester, "coder": coder}
    made = list(_exchanges(count, text, gap_s))
    with (place / "exchanges.jsonl").open("wb") as out:
        for line, _ in made:
            out.write(row_bytes(Exchange(**line)))
    delivered = [line for line, _ in made if line["place"] == "delivered"]
    with (place / "conversations.jsonl").open("wb") as out:
        for line in delivered:
            if line["mode"] != "shadow":
                out.write(row_bytes(Conversation(**_conversation(line))))
    (place / "canaries.json").write_text(json.dumps({"roles": _trials(made, trials)}))
    if rows:
        for folder, wanted in ((root / recorded, True), (place / "undelivered", False)):
            chosen = [row for line, row in made if (line["place"] == "delivered") == wanted]
            write_rows(folder, chosen, per_file)
    return root


def write_rows(folder: Path, rows: list[dict[str, Any]], per_file: int = 100) -> None:
    """Recorded rows in files of their own; all but the last are compressed."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(rows), per_file), 1):
        path = folder / f"rows-{number:06d}-2026-11-29.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in rows[start : start + per_file]))
        if start + per_file < len(rows):
            compress(path)


def _exchanges(count: int, text: str, gap_s: float) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Lines of exchanges.jsonl, each with its recorded row."""
    chance, undelivered = random.Random(7), 0
    for seq in range(1, count + 1):
        role = _ROLES[seq % 3]
        mode = {"coder": "canary", "tester": "shadow", "planner": "fallback"}[role]
        arm = "teacher" if mode == "shadow" or (mode == "canary" and chance.random() < 0.5) else "student"
        fallback = chance.choice(_FALLBACKS) if arm == "student" and chance.random() < 0.12 else ""
        failed = bool(fallback) or chance.random() < (0.06 if arm == "teacher" else 0.08)
        at = (BEGAN + timedelta(seconds=gap_s * seq)).isoformat(timespec="milliseconds")
        took = int(chance.lognormvariate(6.2 if arm == "student" else 7.4, 0.4))
        line = {
            "seq": seq, "of": None, "at": at, "role": role, "conversation": f"c{seq}", "place": "delivered",
            "arm": arm, "mode": mode, "trial": 1, "share": 0.5, "release": "", "outcome": "complete", "status": 200,
            "failed": failed, "why": fallback or ("check_exact" if failed else ""),
            "said": f"not {text}" if failed else "",
            "checked": "fail" if failed else "pass", "teacher_checked": "", "fallback": fallback,
            "first_ms": took // 3, "duration_ms": took, "prompt_tokens": 900, "answer_tokens": 80, "model": "teacher-1",
        }  # fmt: skip
        yield line, row(seq, line, f"The teacher's answer {seq} {text}", text)
        if mode == "shadow" or fallback:
            undelivered += 1
            passed = chance.random() < 0.85
            beside = {
                **line, "seq": undelivered, "of": seq, "place": "shadow" if mode == "shadow" else "fallback",
                "arm": "student", "failed": not passed, "why": "" if passed else "check_exact",
                "said": "" if passed else "it says something else", "checked": "pass" if passed else "fail",
                "teacher_checked": "pass" if mode == "shadow" else "", "first_ms": None, "duration_ms": took // 3,
            }  # fmt: skip
            own = row(undelivered, beside, f"The student's answer {seq} {text}", text)
            if mode == "shadow":
                own["reference"] = answer(f"The teacher's answer {seq} {text}")
            yield beside, own


def answer(text: str) -> dict[str, Any]:
    """A chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"object": "chat.completion", "choices": [choice]}


def row(seq: int, line: dict[str, Any], said: str, text: str = "") -> dict[str, Any]:
    """The recorded row of an exchange."""
    asked = [
        {"role": "system", "content": "You are a coder."},
        {"role": "user", "content": f"question {line['of'] or seq} {text}"},
    ]
    found = {
        "recorded": 1, "seq": seq, "assigned": seq, "outcome": line["outcome"], "time": line["at"], "of": line["of"],
        "route": {
            "mode": line["mode"], "arm": line["arm"], "fallback": line["fallback"], "trial": 1,
            "why": line["fallback"] and f"it said {line['fallback']} {text}",
        },
        "role": line["role"], "conversation": line["conversation"],
        "model": line["model"], "method": "POST", "path": "/v1/chat/completions", "status": line["status"],
        "duration_ms": line["duration_ms"], "first_ms": line["first_ms"], "request": {"messages": asked},
        "response": answer(said),
    }  # fmt: skip
    return {name: value for name, value in found.items() if value is not None}


def _conversation(line: dict[str, Any]) -> dict[str, Any]:
    return {
        "role": line["role"], "conversation": line["conversation"], "mode": line["mode"], "trial": 1,
        "arm": line["arm"], "share": 0.5, "began": line["at"], "ended": line["at"], "exchanges": 1, "scored": 1,
        "fallbacks": int(bool(line["fallback"])), "failed": float(line["failed"]), "by": "checks",
        "first": line["seq"], "why": line["why"],
    }  # fmt: skip


def _trials(made: list[tuple[dict[str, Any], dict[str, Any]]], trials: dict[str, int]) -> dict[str, Any]:
    canary = Canary(0.05, 0.1, 20)
    seen = [line for line, _ in made if line["role"] == "coder" and line["place"] == "delivered"]
    said = None
    for line in seen:
        said = canary.observe(line["arm"], 0.5, float(line["failed"]))
    state = RoleState(trial=trials["coder"], mode="canary", conversations=len(seen), figures=figures_of(canary))
    if said is not None:
        state.verdict, state.reason = said.verdict, said.reason.record()
    shadow = RoleState(trial=trials["tester"], mode="shadow")
    for line, _ in made:
        if line["place"] == "shadow":
            shadow.pairs.both += line["checked"] == "pass"
            shadow.pairs.teacher_only += line["checked"] == "fail"
    watch = RoleState(
        trial=trials["planner"], mode="fallback", most_failed=0.3, conversations=40,
        figures={"scored": 40, "failed": 0.1, "most_failed": 0.3, "evidence": 1.4, "needed": 20},
    )  # fmt: skip
    return {
        name: {**one.model_dump(mode="json", exclude={"test"}), "why": one.why}
        for name, one in (("coder", state), ("tester", shadow), ("planner", watch))
    }
