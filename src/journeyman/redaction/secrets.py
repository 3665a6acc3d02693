"""Secrets in text: kingfisher's rules for several hundred providers, and our own for what they leave out.

Kingfisher's scanner works offline; its classes that call providers are never used. Our rules are tried only
where a literal part of them stands, found by plain search: most texts hold none, and there may be gigabytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass(frozen=True, order=True)
class Span:
    """Characters `start` to `end` (exclusive) of a text, and what they are."""

    start: int
    end: int
    kind: str


_EDGE = r"(?<![A-Za-z0-9])"
_BY_LITERAL = [
    (literal, kind, re.compile(pattern, re.DOTALL))
    for literal, kind, pattern in (
        ("-----BEGIN ", "private_key", r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----.{0,20000}?"
         r"(?:-----END [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----|\Z)"),
        ("sk-", "api_key", _EDGE + r"sk-(?:[a-z]{2,8}-){0,2}[A-Za-z0-9_-]{20,}"),
        ("pk-lf-", "api_key", _EDGE + r"pk-lf-[A-Za-z0-9-]{20,}"),
        ("k_live_", "api_key", r"k_live_[A-Za-z0-9]{16,}"),
        ("k_test_", "api_key", r"k_test_[A-Za-z0-9]{16,}"),
        ("whsec_", "api_key", _EDGE + r"whsec_[A-Za-z0-9+/=]{20,}"),
        ("AKIA", "api_key", _EDGE + r"AKIA[A-Z0-9]{16}(?![A-Za-z0-9])"),
        ("ASIA", "api_key", _EDGE + r"ASIA[A-Z0-9]{16}(?![A-Za-z0-9])"),
        ("AIza", "api_key", _EDGE + r"AIza[A-Za-z0-9_-]{35}"),
        ("ghp_", "api_key", _EDGE + r"ghp_[A-Za-z0-9]{30,}"),
        ("gho_", "api_key", _EDGE + r"gho_[A-Za-z0-9]{30,}"),
        ("ghs_", "api_key", _EDGE + r"ghs_[A-Za-z0-9]{30,}"),
        ("ghu_", "api_key", _EDGE + r"ghu_[A-Za-z0-9]{30,}"),
        ("ghr_", "api_key", _EDGE + r"ghr_[A-Za-z0-9]{30,}"),
        ("github_pat_", "api_key", r"github_pat_[A-Za-z0-9_]{40,}"),
        ("glpat-", "api_key", r"glpat-[A-Za-z0-9_-]{20,}"),
        ("hf_", "api_key", _EDGE + r"hf_[A-Za-z0-9]{30,}"),
        ("xox", "api_key", _EDGE + r"xox[abeoprs]-[A-Za-z0-9-]{20,}"),
        ("npm_", "api_key", _EDGE + r"npm_[A-Za-z0-9]{36}(?![A-Za-z0-9])"),
        ("pypi-", "api_key", _EDGE + r"pypi-[A-Za-z0-9_-]{50,}"),
        ("dop_v1_", "api_key", r"dop_v1_[a-f0-9]{64}"),
        ("SG.", "api_key", _EDGE + r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),
        ("dckr_pat_", "api_key", r"dckr_pat_[A-Za-z0-9_-]{20,}"),
        ("gsk_", "api_key", _EDGE + r"gsk_[A-Za-z0-9]{40,}"),
        ("r8_", "api_key", _EDGE + r"r8_[A-Za-z0-9]{30,}"),
        ("SK", "api_key", _EDGE + r"SK[a-f0-9]{32}(?![A-Za-z0-9])"),
        ("shp", "api_key", _EDGE + r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"),
        ("lin_api_", "api_key", r"lin_api_[A-Za-z0-9]{40}"),
        ("eyJ", "token", _EDGE + r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"),
        ("earer ", "token", r"earer\s+(?P<value>[A-Za-z0-9._~+/-]{20,}=*)"),
        ("EARER ", "token", r"EARER\s+(?P<value>[A-Za-z0-9._~+/-]{20,}=*)"),
        ("asic ", "token", r"(?<=[Bb])asic\s+(?P<value>[A-Za-z0-9+/]{16,}=*)"),
        ("://", "password", r"://[^\s:/@\"'<>]{0,80}:(?P<value>[^\s:/@\"'<>{}$]{3,200})@"),
        (":AA", "api_key", r":AA[A-Za-z0-9_-]{32,34}(?![A-Za-z0-9_-])"),
    )
]  # fmt: skip
_NAMES = {
    "pass": ("password", "passwd", "passphrase"),
    "pwd": ("pwd",),
    "secret": ("secret",),
    "token": ("token",),
    "key": ("apikey", "api_key", "api-key", "accesskey", "access_key", "access-key", "accountkey", "account_key",
            "privatekey", "private_key", "authkey", "auth_key"),
    "credential": ("credential",),
}  # fmt: skip
_ASSIGNED = re.compile(
    r"""(?x) s?(?:[_-]\w+)*  \\?["']? \s{0,3} (?: := | => | = | : ) \s{0,3}
    (?: \\?(["'])(?P<quoted>[^"'\n\\]{6,200})\\?\1
      | (?P<bare>[^\s"'`,;(){}\[\]<>\\]{8,200})(?=[\s,;)}\]"'`]|$) )"""
)
_NOT_A_SECRET = re.compile(
    r"(?i)^(?:true|false|none|null|nil|undefined|required|optional|str|string|int|bool|bytes|any|self\..*|\w+\(.*"
    r"|os\..*|process\.env.*|env\..*|config\..*|settings\..*|getenv.*|\$.*|%.*|<.*|\{.*|\*+|x+|\.+|-+|pass|pwd"
    r"|(?:your|my|the|some|an?|test|fake|dummy|example|sample|placeholder|changeme|change[_-]me|insert|replace"
    r"|enter|todo|new|old|user|admin)(?:[ _-].*)?|.*(?:example|placeholder|redacted).*|[A-Z][A-Z_]*_[1-9]\d*)$"
)
_EXPRESSION = re.compile(
    r"[A-Za-z_]\w*(?:[./:][A-Za-z_]\w*)+|[A-Za-z_]+(?:-[A-Za-z_]+)+|[A-Za-z_]*[a-z]_?\d{1,2}|[\w.]+=[^=].*"
)
_TELEGRAM = re.compile(r"\d{8,10}$")


_SHORT_RUNS = ("-----BEGIN ", "SG.", "eyJ", "earer ", "EARER ", "asic ", "://")
"""Rules whose matches need not hold an unbroken run of word signs as long as a key's."""
_ALWAYS = [rule for rule in _BY_LITERAL if rule[0] in _SHORT_RUNS]
_RUNS = bytes(ord("a") if chr(i).isascii() and (chr(i).isalnum() or chr(i) in "_-") else ord(" ") for i in range(256))
_KEY_RUN = b"a" * 20


def find_secrets(text: str) -> Iterator[Span]:
    """Spans that hold a secret; they may overlap."""
    data = text.encode("utf-8", "replace")
    for literal, kind, pattern in _BY_LITERAL if _KEY_RUN in data.translate(_RUNS) else _ALWAYS:
        at = text.find(literal)
        while at >= 0:
            found = pattern.match(text, at)
            if found:
                yield from _known(text, literal, kind, found)
            at = text.find(literal, at + 1)
    yield from _assigned(text)
    yield from _kingfisher(data)


def _known(text: str, literal: str, kind: str, found: re.Match[str]) -> Iterator[Span]:
    group: str | int = "value" if "value" in found.re.groupindex else 0
    start, end = found.span(group)
    if literal == ":AA":  # a Telegram bot's number stands before the colon
        number = _TELEGRAM.search(text, max(0, start - 10), start)
        if number is None:
            return
        start = number.start()
    elif literal.startswith("k_"):  # sk_live_, pk_live_, rk_live_
        start = max(0, start - 1)
    value = text[start:end]
    if kind == "token" and not re.search(r"\d", value):  # "bearer authentication" is a phrase
        return
    if not (kind == "password" and _NOT_A_SECRET.match(value)):
        yield Span(start, end, kind)


def _assigned(text: str) -> Iterator[Span]:
    """Values that something named like a secret is set to: in code, JSON, YAML and environment files."""
    lower = text.lower()
    if len(lower) != len(text):  # a few letters have no lower case of one character
        lower = text
    for name in (name for stem, names in _NAMES.items() if stem in lower for name in names):
        at = lower.find(name)
        while at >= 0:
            found = _ASSIGNED.match(text, at + len(name))
            if found:
                group = "quoted" if found["quoted"] is not None else "bare"
                if _likely(found[group], quoted=group == "quoted"):
                    yield Span(*found.span(group), "password")
            at = lower.find(name, at + len(name))


def _likely(value: str, *, quoted: bool) -> bool:
    """Not a name, an expression or a sentence. What is quoted and holds blanks is a sentence."""
    if _NOT_A_SECRET.match(value) or _code(value):
        return False
    if quoted:
        return " " not in value and bool(re.search(r"\d|[^\w.:/-]", value))
    return bool(re.search(r"\d", value) and re.search(r"[A-Za-z]", value))


def _code(value: str) -> bool:
    """An expression rather than a literal: attribute access, a path, a type, a version."""
    return bool(_EXPRESSION.fullmatch(value))


@cache
def _scanner() -> Any:
    import kingfisher_sdk

    return kingfisher_sdk.Scanner(kingfisher_sdk.Rules(), base64=False)


def _kingfisher(data: bytes) -> Iterator[Span]:
    for finding in _scanner().scan(data):
        where = finding.location
        start = len(data[: where["start_offset"]].decode("utf-8", "ignore"))
        length = len(data[where["start_offset"] : where["end_offset"]].decode("utf-8", "ignore"))
        yield Span(start, start + length, "api_key")
