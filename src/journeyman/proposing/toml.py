"""Writes the proposal as a commented journeyman.toml. Foreign text is escaped, in quoted strings or comments."""

from __future__ import annotations

import re
import textwrap
import tomllib
from collections.abc import Iterator

from journeyman.config import parse_config
from journeyman.foreign import plain
from journeyman.proposing.fields import Columns
from journeyman.proposing.lengths import quantile
from journeyman.proposing.proposal import Proposal
from journeyman.sources.table import FIELDS

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_MOST_ROLES = 20
_WIDTH = 116


def config_text(proposal: Proposal) -> str:
    """The text of the config file; it is parsed here once to prove that it loads."""
    lines = [
        "# Proposed from a sample of your logs: review the roles and their checks before you rely on them.",
        "# Every key is optional; docs/reference.md lists them all.",
        "",
        "[base]",
        'model = "embedded"            # a .gguf file, or "embedded" for SmolLM2-135M-Instruct',
        "",
        "[data]",
        *_sources(proposal),
        *_roles_from(proposal),
        *_columns(proposal),
        "",
        *_curate(proposal),
        "",
        *_roles(proposal),
        *_rest(proposal),
    ]
    text = "\n".join(lines) + "\n"
    parse_config(tomllib.loads(text), "the proposed config")
    return text


def toml_string(text: str) -> str:
    """The text as a TOML string, with control and invisible characters escaped.

    Raises:
        ValueError: the text contains a lone surrogate, which TOML cannot represent.
    """
    text.encode("utf-8")
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if plain(character) == character:
        return character
    return f"\\u{ord(character):04X}" if ord(character) < 0x10000 else f"\\U{ord(character):08X}"


def toml_key(name: str) -> str:
    return name if _BARE.fullmatch(name) else toml_string(name)


def _comment(text: str, indent: str = "# ") -> list[str]:
    return textwrap.wrap(plain(text), _WIDTH, initial_indent=indent, subsequent_indent="#   ", break_long_words=False)


def _sources(proposal: Proposal) -> Iterator[str]:
    yield f"sources = [{', '.join(map(toml_string, proposal.sources))}]"
    if proposal.data.encoding != "auto":
        yield f"encoding = {toml_string(proposal.data.encoding)}   # the sample is not UTF-8, but can be read with this"


def _roles_from(proposal: Proposal) -> Iterator[str]:
    chosen = proposal.role_field
    if chosen is not None:
        yield from _comment(f"the log names no role; {chosen.path} takes {_values(chosen.values)}")
        yield f"role_field = {toml_string(chosen.path)}"
    elif proposal.survey.kept and set(proposal.checks) == {proposal.data.default_role}:
        yield from _comment(f"the log names no role: every row has the role {proposal.data.default_role!r}")
        yield f"default_role = {toml_string(proposal.data.default_role)}"
    for one in proposal.role_candidates[:4]:
        yield f"# role_field = {toml_string(one.path)}" + plain(f"   # takes {_values(one.values)}")


def _values(values: dict[str, int]) -> str:
    shown = sorted(values.items(), key=lambda item: -item[1])
    more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
    return ", ".join(f"{plain(name, 40)!r} ({count})" for name, count in shown[:4]) + more


def _columns(proposal: Proposal) -> Iterator[str]:
    found = proposal.columns
    if found is None:
        return
    yield ""
    share = f"{found.rows} of {proposal.survey.sample.rows} sampled rows"
    yield from _comment(f"{share} are in no known format. Their fields: {_names(found)}")
    for name, shared in found.nearest.items():
        yield from _comment(f"nearest known format: {name}, which also has {', '.join(map(plain, shared))}")
    if proposal.columns_set:
        yield from _comment("This mapping is unambiguous and reads the sample; data.columns applies to all rows.")
    else:
        yield from _comment(
            "This mapping is a guess. Check it and remove the # characters; data.columns then applies to all rows, "
            "including those in known formats."
        )
    mark = "" if proposal.columns_set else "# "
    yield f"{mark}[data.columns]"
    for name in FIELDS:
        if name in found.columns:
            rest = found.others.get(name, [])
            also = plain(f"   # or {', '.join(rest[:4])}") if rest else ""
            yield f"{mark}{name} = {toml_string(found.columns[name])}{also}"
    for name in ("prompt", "answer"):
        if name not in found.columns:
            yield f'# {name} = "…"   # no field looks like it'


def _names(found: Columns) -> str:
    shown = [f"{plain(name, 40)} ({count})" for name, count in found.seen.most_common(12)]
    return ", ".join(shown) + (", …" if len(found.seen) > 12 else "")


def _curate(proposal: Proposal) -> Iterator[str]:
    limits, lengths = proposal.lengths.limits(), proposal.lengths
    totals = [one.total for one in lengths.rows]
    yield "[curate]"
    if totals:
        how = f"tokens of {lengths.base}" if lengths.base else "tokens, estimated as characters / 3.5"
        shown = ", ".join(f"{name} {value:,}" for name, value in (
            ("median", quantile(totals, 0.5)), ("95 %", quantile(totals, 0.95)), ("longest", max(totals)),
        ))  # fmt: skip
        yield from _comment(f"sampled rows have {shown} {how}; {limits.over} of {len(totals)} exceed max_length")
        if limits.over > 0.01 * len(totals):
            yield from _comment(
                f"the base's context is {lengths.base_context:,} tokens; longer rows are dropped, or lose their oldest "
                'turns with too_long = "cut" in [curate.rules]'
            )
    for why, count in list(lengths.refused.items())[:3]:
        looked_at = lengths.counted + sum(lengths.refused.values())
        yield from _comment(f"{count} of {looked_at} rows that were rendered would be dropped: {why}")
    yield f"max_length = {limits.max_length}" + " " * 12 + "# tokens of prompt and answer"
    yield 'drop_providers = ["mock", "test"]'
    yield "# val_share = 0.1"
    yield "# test_share = 0.1"


def _roles(proposal: Proposal) -> Iterator[str]:
    yield "# One section for each role. `checks` decide whether an answer is a success; all must pass."
    yield '# `journeyman doctor` lists them; your own are named as "file.py:function".'
    if not proposal.checks:
        yield "# No row of the sample could be read, so no roles are known yet."
    rows = {role: len(found) for role, found in proposal.survey.by_role().items()}
    for role, found in list(proposal.checks.items())[:_MOST_ROLES]:
        yield ""
        for reason in (f"{rows[role]} sampled rows; {found.why[0]}", *found.why[1:], *found.hints):
            yield from _comment(reason)
        yield f"[roles.{toml_key(role)}]"
        yield f"checks = [{', '.join(map(toml_string, found.checks))}]"
    if len(proposal.checks) > _MOST_ROLES:
        yield ""
        yield f'# {len(proposal.checks) - _MOST_ROLES} less frequent roles have the default: checks = ["answered"]'
    yield ""


def _rest(proposal: Proposal) -> Iterator[str]:
    limits = proposal.lengths.limits()
    answers = [one.answer for one in proposal.lengths.rows]
    yield "[train]"
    yield 'preset = "default"'
    yield ""
    yield "[evaluate]"
    if answers:
        yield f"# sampled answers: median {quantile(answers, 0.5):,}, 99 % {quantile(answers, 0.99):,} tokens"
    yield f"max_new_tokens = {limits.max_new_tokens}"
    yield f"context = {limits.context}" + " " * 14 + "# tokens of prompt and answer per request"
    yield '# [evaluate.judge]            # for the check "judge": any OpenAI-compatible endpoint'
    yield '# url = "https://…/v1"'
    yield '# model = "…"'
    yield ""
    yield "[decide]                      # the rules; the plan fixes them before there are any results"
    yield "max_mean_latency_s = 12"
    yield "min_success = 0.98"
    yield "max_memory_gb = 10"
