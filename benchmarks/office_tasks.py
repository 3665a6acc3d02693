"""A set of tasks that differs in kind from the demo's, made by a seed: extraction to JSON, rewriting, and labels.

    python benchmarks/office_tasks.py [--rows 280] [--seed 0] [--out office.jsonl]

    extractor   an order in free words → JSON with the number, the customer, the articles and whether it is urgent
    rewriter    a name, a date and a time in free words → `BERG, Anna | 2024-03-03 | 16:00`
    sorter      a ticket → a label in a house style, such as `[P2] billing -> Mara`, by rules that no prompt states

Each row has what its check needs, so that success is decided without a judge. The rules are hidden in the answers: a
model that was not trained on them cannot follow them.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

FIRST = ("Anna", "Boris", "Chloe", "David", "Elif", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kira", "Leon")
LAST = ("Berg", "Castro", "Dietrich", "Eklund", "Fischer", "Gomez", "Hansen", "Ivanova", "Jansen", "Kowalski", "Lang")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November")
ARTICLES = (
    "bolt",
    "bracket",
    "cable",
    "filter",
    "gasket",
    "hinge",
    "lamp",
    "motor",
    "pump",
    "sensor",
    "valve",
    "wheel",
)
AREAS = {
    "billing": ("invoice", "refund", "credit note", "payment"),
    "access": ("password", "login", "locked account", "two-factor code"),
    "delivery": ("parcel", "shipment", "courier", "tracking number"),
    "hardware": ("screen", "keyboard", "battery", "printer"),
}
OWNERS = {"billing": "Mara", "access": "Otis", "delivery": "Pia", "hardware": "Quinn"}
SYSTEM = {
    "extractor": "You extract orders.",
    "rewriter": "You rewrite appointments in the house format.",
    "sorter": "You label tickets in the house format.",
}
CONFIG = """
[roles.extractor]
checks = ["answered", "json_schema"]
[roles.rewriter]
checks = ["exact"]
[roles.sorter]
checks = ["exact"]
"""


def extractor(made: random.Random) -> tuple[str, str, dict[str, Any]]:
    number, name = made.randint(1000, 9999), f"{made.choice(FIRST)} {made.choice(LAST)}"
    articles = [(made.choice(ARTICLES), made.randint(2, 40)) for _ in range(made.randint(1, 3))]
    urgent = made.random() < 0.4
    listed = " and ".join(f"{count} {name}s" for name, count in articles)
    hurry = made.choice((" We need them by tomorrow.", " Please hurry.")) if urgent else ""
    text = made.choice(
        (
            f"Hello, this is {name}. For order {number} please send {listed}.{hurry}",
            f"{name} wrote: order no. {number}, {listed}, thank you.{hurry}",
            f"Order {number}: {listed}. Regards, {name}.{hurry}",
        )
    )
    answer = {
        "order": f"A-{number}",
        "customer": name.split()[1].upper(),
        "lines": [{"article": name, "pieces": count} for name, count in articles],
        "urgent": urgent,
    }
    schema = {
        "type": "object",
        "properties": {key: {"const": value} for key, value in answer.items()},
        "required": list(answer),
        "additionalProperties": False,
    }
    return text, json.dumps(answer), {"schema": schema}


def rewriter(made: random.Random) -> tuple[str, str, dict[str, Any]]:
    first, last = made.choice(FIRST), made.choice(LAST)
    day, month, year = made.randint(1, 28), made.randrange(len(MONTHS)), made.randint(2021, 2027)
    hour, minute = made.randint(7, 18), made.choice((0, 15, 30, 45))
    clock = f"{(hour - 1) % 12 + 1}:{minute:02} {'am' if hour < 12 else 'pm'}"
    text = made.choice(
        (
            f"{first} {last} comes on {day} {MONTHS[month]} {year} at {clock}.",
            f"On {MONTHS[month]} {day}, {year}, {clock}, we meet {first} {last}.",
            f"Appointment with {first} {last}: {clock}, {day} {MONTHS[month]} {year}",
        )
    )
    answer = f"{last.upper()}, {first} | {year}-{month + 1:02}-{day:02} | {hour:02}:{minute:02}"
    return text, answer, {"expected": answer}


def sorter(made: random.Random) -> tuple[str, str, dict[str, Any]]:
    area = made.choice(list(AREAS))
    thing, who = made.choice(AREAS[area]), made.choice(FIRST)
    several, since = made.random() < 0.4, made.choice(("today", "yesterday", "last week"))
    scope = "All of my team have" if several else "I have"
    text = made.choice(
        (
            f"{scope} had a problem with the {thing} since {since}. {who}",
            f"Hi, {who} here. {scope} had trouble with the {thing}, it began {since}.",
            f"{who}: {scope.lower() if several else scope} been without a working {thing} since {since}",
        )
    )
    level = 3 - several - (since == "last week")
    answer = f"[P{level}] {area} -> {OWNERS[area]}"
    return text, answer, {"expected": answer}


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows in the format that ingest reads; no task occurs twice."""
    made, found, seen = random.Random(seed), [], set()
    makers = {"extractor": extractor, "rewriter": rewriter, "sorter": sorter}
    while len(found) < count:
        role = list(makers)[len(found) % 3]
        text, answer, check = makers[role](made)
        if text in seen:
            continue
        seen.add(text)
        turns = [{"role": "system", "content": SYSTEM[role]}, {"role": "user", "content": text}]
        found.append(
            {
                "id": f"office-{len(found):03}",
                "agent": {"role": role},
                "llm": {"provider": "scripted", "config": {"max_tokens": 200}},
                "execution": {"status": "success", "input_messages": turns, "output": answer, "errors": []},
                "check": check,
            }
        )
    return found


def write(path: Path, count: int = 280, seed: int = 0) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(count, seed)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=280)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("office.jsonl"))
    given = parser.parse_args()
    write(given.out, given.rows, given.seed)
