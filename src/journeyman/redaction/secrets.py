"""Finds secrets in text, with kingfisher's rules for several hundred providers and additional rules of journeyman.

Kingfisher's scanner works offline; its classes that call providers are never used. The additional rules are tried only
where a literal part of them occurs, found by plain search: most texts contain none, and there may be gigabytes of them.
The time is linear in the length of any text: no rule reads a run of characters again for each place in it where a
secret could begin.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import chain
from typing import Any, NamedTuple


class Span(NamedTuple):
    """Characters `start` to `end` (exclusive) of a text, and the kind of value that they are."""

    start: int
    end: int
    kind: str


class _Run(NamedTuple):
    """A key: a prefix, then an unbroken run of at least `least` characters, then possibly a suffix.

    The literal may occur many times in one run (sk-sk-sk-…), so the end of the run is looked up only once.
    """

    literal: str
    kind: str
    head: re.Pattern[str]
    characters: re.Pattern[str]
    least: int
    rest: re.Pattern[str] | None = None

    def spans(self, text: str) -> Iterator[Span]:
        run_end, end = -1, -1
        for at in _places(text, self.literal):
            head = self.head.match(text, at)
            if head is None:
                continue
            if run_end < head.end():
                found = self.characters.match(text, head.end())
                run_end = end = found.end() if found else head.end()
                if self.rest:
                    rest = self.rest.match(text, run_end)
                    end = rest.end() if rest else -1
            if end >= 0 and run_end - head.end() >= self.least:
                yield Span(at - (at > 0 and self.literal.startswith("k_")), end, self.kind)  # sk_live_, pk_, rk_


def _places(text: str, literal: str) -> Iterator[int]:
    at = text.find(literal)
    while at >= 0:
        yield at
        at = text.find(literal, at + 1)


_EDGE = r"(?<![A-Za-z0-9])"
_WORD, _WORDS = "[A-Za-z0-9_-]", "[A-Za-z0-9-]"
_RUN_RULES = {
    literal: _Run(literal, kind, re.compile(head), re.compile(run + "*+"), least, re.compile(rest) if rest else None)
    for literal, kind, head, run, least, rest in (
        ("sk-", "api_key", _EDGE + "sk-", _WORD, 20, ""),
        ("pk-lf-", "api_key", _EDGE + "pk-lf-", _WORDS, 20, ""),
        ("k_live_", "api_key", "k_live_", "[A-Za-z0-9]", 16, ""),
        ("k_test_", "api_key", "k_test_", "[A-Za-z0-9]", 16, ""),
        ("whsec_", "api_key", _EDGE + "whsec_", "[A-Za-z0-9+/=]", 20, ""),
        ("ghp_", "api_key", _EDGE + "ghp_", "[A-Za-z0-9]", 30, ""),
        ("gho_", "api_key", _EDGE + "gho_", "[A-Za-z0-9]", 30, ""),
        ("ghs_", "api_key", _EDGE + "ghs_", "[A-Za-z0-9]", 30, ""),
        ("ghu_", "api_key", _EDGE + "ghu_", "[A-Za-z0-9]", 30, ""),
        ("ghr_", "api_key", _EDGE + "ghr_", "[A-Za-z0-9]", 30, ""),
        ("github_pat_", "api_key", "github_pat_", "[A-Za-z0-9_]", 40, ""),
        ("glpat-", "api_key", "glpat-", _WORD, 20, ""),
        ("hf_", "api_key", _EDGE + "hf_", "[A-Za-z0-9]", 30, ""),
        ("xox", "api_key", _EDGE + "xox[abeoprs]-", _WORDS, 20, ""),
        ("pypi-", "api_key", _EDGE + "pypi-", _WORD, 50, ""),
        ("dckr_pat_", "api_key", "dckr_pat_", _WORD, 20, ""),
        ("gsk_", "api_key", _EDGE + "gsk_", "[A-Za-z0-9]", 40, ""),
        ("r8_", "api_key", _EDGE + "r8_", "[A-Za-z0-9]", 30, ""),
        ("SG.", "api_key", _EDGE + r"SG\.", _WORD, 16, rf"\.{_WORD}{{16,}}+"),
        ("eyJ", "token", _EDGE + "eyJ", _WORD, 8, rf"\.eyJ{_WORD}{{8,}}+\.{_WORD}{{8,}}+"),
    )
}  # fmt: skip
_BY_LITERAL = {
    literal: (kind, re.compile(pattern))
    for literal, kind, pattern in (
        ("AKIA", "api_key", _EDGE + r"AKIA[A-Z0-9]{16}(?![A-Za-z0-9])"),
        ("ASIA", "api_key", _EDGE + r"ASIA[A-Z0-9]{16}(?![A-Za-z0-9])"),
        ("AIza", "api_key", _EDGE + r"AIza[A-Za-z0-9_-]{35}"),
        ("npm_", "api_key", _EDGE + r"npm_[A-Za-z0-9]{36}(?![A-Za-z0-9])"),
        ("dop_v1_", "api_key", r"dop_v1_[a-f0-9]{64}"),
        ("SK", "api_key", _EDGE + r"SK[a-f0-9]{32}(?![A-Za-z0-9])"),
        ("shp", "api_key", _EDGE + r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"),
        ("lin_api_", "api_key", r"lin_api_[A-Za-z0-9]{40}"),
        ("earer ", "token", r"earer\s+(?P<value>[A-Za-z0-9._~+/-]{20,}+=*)"),
        ("EARER ", "token", r"EARER\s+(?P<value>[A-Za-z0-9._~+/-]{20,}+=*)"),
        ("asic ", "token", r"(?<=[Bb])asic\s+(?P<value>[A-Za-z0-9+/]{16,}+=*)"),
        ("://", "password", r"://[^\s:/@\"'<>]{0,80}:(?P<value>[^\s:/@\"'<>{}$]{3,200})@"),
        (":AA", "api_key", r":AA[A-Za-z0-9_-]{32,34}(?![A-Za-z0-9_-])"),
    )
}
_KEY_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----")
_KEY_END = re.compile(r"-----END [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----")
_KEY_SIZE = 20_000
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
    r"""(?x) s?(?:_\w{1,64}+)?+(?:-\w{1,64}+){0,8}+  \\?["']? \s{0,3} (?: := | => | = | : ) \s{0,3}
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


_OUTSIDE_RUNS = ("SG.", "eyJ", "whsec_", ":AA", "earer ", "EARER ", "asic ", "://")
"""Rules whose matches need not be in an unbroken run of word characters as long as a key."""
_INSIDE_RUNS = tuple(literal for literal in (*_RUN_RULES, *_BY_LITERAL) if literal not in _OUTSIDE_RUNS)
_RUNS = bytes(ord("a") if chr(i).isascii() and (chr(i).isalnum() or chr(i) in "_-") else ord(" ") for i in range(256))
_KEY_RUN = b"a" * 20


def find_secrets(text: str) -> Iterator[Span]:
    """Yields spans of secrets; they may overlap."""
    data = text.encode("utf-8", "replace")
    runs = _long_runs(data)
    yield from _private_keys(text)
    literals = [literal for literal in _OUTSIDE_RUNS if literal in text]
    if runs:
        literals += [literal for literal in _INSIDE_RUNS if literal in runs]
    for literal in literals:
        if rule := _RUN_RULES.get(literal):
            yield from rule.spans(text)
        else:
            kind, pattern = _BY_LITERAL[literal]
            group: str | int = "value" if "value" in pattern.groupindex else 0
            for found in filter(None, (pattern.match(text, at) for at in _places(text, literal))):
                yield from _known(text, literal, kind, found.span(group))
    yield from _assigned(text)
    yield from _kingfisher(data)


def _long_runs(data: bytes) -> str:
    """The runs of word characters that can contain a key: a small part of most texts."""
    marked = data.translate(_RUNS)
    found = []
    at = marked.find(_KEY_RUN)
    while at >= 0:
        start = marked.rfind(b" ", 0, at) + 1
        end = marked.find(b" ", at)
        end = len(data) if end < 0 else end
        found.append(data[start:end])
        at = marked.find(_KEY_RUN, end)
    return b" ".join(found).decode("ascii")


def _private_keys(text: str) -> Iterator[Span]:
    """Yields private keys from the first to the last line; a truncated key extends to the end of the text."""
    ends = chain((found.span() for found in _KEY_END.finditer(text)), [(len(text) + _KEY_SIZE, 0)])
    begins, last = _places(text, "-----BEGIN "), (-1, 0)
    for begin in filter(None, (_KEY_BEGIN.match(text, at) for at in begins)):
        while last[0] < begin.end():
            last = next(ends)
        if last[0] - begin.end() <= _KEY_SIZE and last[1]:
            yield Span(begin.start(), last[1], "private_key")
        elif len(text) - begin.end() <= _KEY_SIZE:
            yield Span(begin.start(), len(text), "private_key")


def _known(text: str, literal: str, kind: str, span: tuple[int, int]) -> Iterator[Span]:
    start, end = span
    if literal == ":AA":  # a Telegram bot's number comes before the colon
        number = _TELEGRAM.search(text, max(0, start - 10), start)
        if number is None:
            return
        start = number.start()
    value = text[start:end]
    if kind == "token" and not re.search(r"\d", value):  # "bearer authentication" is a phrase
        return
    if not (kind == "password" and _NOT_A_SECRET.match(value)):
        yield Span(start, end, kind)


def _assigned(text: str) -> Iterator[Span]:
    """Yields values assigned to names that suggest a secret, in code, JSON, YAML and environment files."""
    lower = text.lower()
    if len(lower) != len(text):  # the lower case of a few letters has several characters
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
    """Whether the value is not a name, an expression or a sentence. Quoted text with blanks counts as a sentence."""
    if _NOT_A_SECRET.match(value) or _code(value):
        return False
    if quoted:
        return " " not in value and bool(re.search(r"\d|[^\w.:/-]", value))
    return bool(re.search(r"\d", value) and re.search(r"[A-Za-z]", value))


def _code(value: str) -> bool:
    """Whether the value is an expression rather than a literal: attribute access, a path, a type, a version."""
    return bool(_EXPRESSION.fullmatch(value))


@cache
def _scanner() -> Any:
    import kingfisher_sdk

    return kingfisher_sdk.Scanner(kingfisher_sdk.Rules(), base64=False)


def _kingfisher(data: bytes) -> Iterator[Span]:
    where = [finding.location for finding in _scanner().scan(data)]
    spans = [(place["start_offset"], place["end_offset"]) for place in where]
    at = dict(zip(offsets := sorted({o for span in spans for o in span}), _characters(data, offsets), strict=True))
    yield from (Span(at[start], at[end], "api_key") for start, end in spans)


def _characters(data: bytes, offsets: list[int]) -> Iterator[int]:
    """Yields the number of characters before each byte offset of UTF-8 data; `offsets` must be ascending."""
    done = count = 0
    for offset in offsets:
        while offset < len(data) and data[offset] & 0xC0 == 0x80:  # in the middle of a character
            offset -= 1
        count += len(data[done:offset].decode("utf-8"))
        done = offset
        yield count
