"""`journeyman ask-again`: a skin over api/asking.py."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import typer

from journeyman.api.asking import AskAgain, AskedAgain, ToAsk
from journeyman.asking.choosing import ANSWERED, DONE, EMPTY_TASK, NO_ROOM, NOT_AGAIN, SAME_QUESTION
from journeyman.asking.kinds import KIND_OF, kinds_of
from journeyman.asking.rows import COMPLETE
from journeyman.asking.teacher import REFUSED, UNREADABLE
from journeyman.cli.progress import terminal_reporter
from journeyman.cli.say import say, say_json
from journeyman.config import Config
from journeyman.durations import spelled
from journeyman.errors import Interrupted, UsageError
from journeyman.foreign import plain
from journeyman.ruleset import RULESET

_LEFT_OUT = {
    SAME_QUESTION: "another row that is asked has the same question",
    ANSWERED: "another row has a complete answer to the same question",
    EMPTY_TASK: "the prompt asks nothing",
    NO_ROOM: "no longer answer fits (ask_again.max_tokens, evaluate.context or the base's context)",
    DONE: "asked before, with a complete answer",
    NOT_AGAIN: "asked before without success; --retry-failed asks again",
}
_OUTCOMES = {
    COMPLETE: "complete",
    REFUSED: "the endpoint refuses the request",
    UNREADABLE: "the answer cannot be read",
    "truncated": "cut again",
}


@dataclass(frozen=True)
class Flags:
    """The flags of the command."""

    endpoint: str | None = None
    model: str | None = None
    key_env: str | None = None
    only: str | None = None
    yes: bool = False
    dry_run: bool = False
    retry_failed: bool = False
    as_json: bool = False


def run(folder: Path, settings: list[str], flags: Flags) -> None:
    """Says what will be asked and what that costs, has it confirmed, and asks.

    Raises:
        JourneymanError: as AskAgain does.
    """
    kinds = kinds_of(flags.only)
    asking = AskAgain(folder, [*settings, *_overrides(flags)])
    if not flags.dry_run:
        asking.require_endpoint()
    found = asking.look(kinds, retry_failed=flags.retry_failed)
    if asking.config.ask_again.url:
        asking.require_wanted_teacher(found)
    if flags.as_json and flags.dry_run:
        say_json(_as_json(found))
        return
    for line in told_before(found, asking.config):
        say(line, err=True)
    if flags.dry_run:
        say("nothing was asked (--dry-run)", err=True)
        return
    if found.wanted:
        _confirm(flags.yes)
    with terminal_reporter(folder, _line(folder, settings, flags)) as reporter:
        try:
            done = asking.ask(found, reporter)
        except Interrupted as stop:
            raise Interrupted(stop.what, "Run the same command again: answers so far are kept") from stop
    if flags.as_json:
        say_json({**_as_json(found), "outcomes": dict(done.outcomes), "answers": done.rows, "file": str(done.path)})
        return
    for line in told_after(done):
        say(line)


def told_before(found: ToAsk, config: Config) -> list[str]:
    """What is known before anything is asked."""
    chosen, cost, settings = found.chosen, found.cost, config.ask_again
    lines = [
        f"{count} rows: {RULESET[rule].what} ({KIND_OF[rule]}, rule {rule})"
        for rule, count in chosen.found.most_common()
    ] or ["no rows of these kinds"]
    for why, count in chosen.left_out.most_common():
        lines.append(f"{count} not asked: {_LEFT_OUT.get(why) or RULESET[why].what}")
    if found.damaged:
        lines.append(f"warning: {found.damaged} lines of earlier answers were changed; their questions are asked again")
    if not found.wanted:
        return lines
    limits = [one.limit for one in found.wanted]
    lines.append(
        f"{cost.rows} to ask: about {cost.prompt_tokens:,} tokens of prompts (counted with the base's tokenizer), at "
        f"most {cost.answer_tokens:,} of answers (limits {min(limits)} to {max(limits)})"
    )
    price = "not known (set [ask_again.prices])" if cost.dollars is None else f"at most about ${cost.dollars:,.2f}"
    pace = (
        "not known before the first answers"
        if cost.seconds is None
        else f"about {spelled(cost.seconds)} if the answers that were cut take twice as long as logged"
    )
    lines += [f"price: {price}", f"time: {pace}, {settings.parallel} at a time"]
    where = f"{plain(settings.url, 200)} as {plain(settings.model, 100)}" if settings.url else "the endpoint"
    lines.append(f"these prompts and their tools leave this machine, redacted as ingest stored them, for {where}")
    off = [name for name in ("secrets", "personal") if not getattr(config.redact, name)]
    lines += [f"warning: redact.{name} is off, so ingest left them in the prompts" for name in off]
    if config.curate.rules.action("duplicate") == "keep":
        lines.append("warning: curate.rules.duplicate = 'keep': old answers will be trained on beside the new ones")
    return lines


def told_after(done: AskedAgain) -> list[str]:
    """What came of it, and how to train on it."""
    lines = [
        f"{count} answers: {_OUTCOMES.get(why) or RULESET[why].what}" for why, count in done.outcomes.most_common()
    ]
    lines.append(f"{done.rows} complete answers in {plain(str(done.path), 300)}")
    if done.rows:
        lines.append(
            f"train on them with: journeyman run --from-asked-again --redo, or add {done.path.parent.name}/"
            f"{done.path.name} to data.sources"
        )
    return lines


def asked_again_source(folder: Path, settings: list[str]) -> str:
    """Writes the rows anew, says how many they are, and returns the setting that trains on them too.

    Raises:
        UsageError: there are none.
    """
    from journeyman.proposing.toml import toml_string

    asking = AskAgain(folder, settings)
    rows, path = asking.gather()
    say(f"{rows} rows of answers that were asked again", err=True)
    names = dict.fromkeys([*asking.config.data.sources, f"{path.parent.name}/{path.name}"])
    return f"data.sources=[{', '.join(map(toml_string, names))}]"


def _overrides(flags: Flags) -> list[str]:
    from journeyman.proposing.toml import toml_string

    given = (("url", flags.endpoint), ("model", flags.model), ("key_env", flags.key_env))
    return [f"ask_again.{name}={toml_string(value)}" for name, value in given if value is not None]


def _confirm(yes: bool) -> None:
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError("nothing was asked: it was not confirmed", "Give --yes, or --dry-run to look only")
    if not typer.confirm("Ask?", err=True):
        raise typer.Exit(1)


def _line(folder: Path, settings: list[str], flags: Flags) -> str:
    given = {"--endpoint": flags.endpoint, "--model": flags.model, "--key-env": flags.key_env, "--only": flags.only}
    parts = ["journeyman", "ask-again", "--dir", str(folder)]
    parts += [part for one in settings for part in ("--set", one)]
    parts += [part for name, value in given.items() if value is not None for part in (name, value)]
    return shlex.join([*parts, *["--retry-failed"] * flags.retry_failed, "--yes"])


def _as_json(found: ToAsk) -> dict[str, object]:
    return {
        "found": dict(found.chosen.found),
        "left_out": dict(found.chosen.left_out),
        "to_ask": [
            {"id": one.row.id, "kind": one.kind, "rule": one.rule, "max_tokens": one.limit} for one in found.wanted
        ],
        "prompt_tokens": found.cost.prompt_tokens,
        "answer_tokens_at_most": found.cost.answer_tokens,
        "dollars_at_most": found.cost.dollars,
        "seconds": found.cost.seconds,
    }
