"""Finds personal data with a recognizable form: email addresses, phone and card numbers, IBANs, IP addresses.

Checksums (Luhn for cards, ISO 7064 for IBANs) rule out ordinary numbers. Values that are reserved for documentation are
not replaced: RFC 2606 domains, private and reserved networks, the fictional 555-01xx numbers.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from journeyman.redaction.secrets import Span

_LOCAL_PART = re.compile(r"[A-Za-z0-9._%+-]{1,64}\Z")
_DOMAIN = re.compile(r"@(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24}\b")
_RESERVED = re.compile(r"(?i)@(?:.*\.)?(?:example\.(?:com|org|net)|[\w-]+\.(?:example|test|invalid|localhost|local))$")
_CODE = re.compile(r"(?i)\.(?:py|js|ts|go|rs|sh|md|txt|json|yaml|yml|toml)$")
_DIGITS = re.compile(r"\d[\d .()/-]{6,28}\d")
_IBAN = re.compile(r"[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b")
_IPV4 = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9a-fA-F]{1,4}:){2,7}(?::?[0-9a-fA-F]{1,4})(?::[0-9a-fA-F]{1,4}){0,6}(?![\w:])")
_INTERNATIONAL = re.compile(r"\+[1-9][\d .()/-]{5,24}\d\d")
_NATIONAL = re.compile(r"\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[.-]\d{3}[.-]\d{4}|0\d{2,4}[ /-]\d{3,4}[ -]?\d{3,6}")
_RUN = re.compile(r"\d[\d .()/-]{6}")
_COLONS = re.compile(r":[0-9a-fA-F]{0,4}:")


def find_personal(text: str) -> Iterator[Span]:
    """Yields spans of personal data; they may overlap."""
    yield from _emails(text)
    if _RUN.search(text):  # everything except IPv6 addresses contains such a run, which is found quickly
        yield from _numbers(text)
    if _COLONS.search(text):
        yield from (Span(*found.span(), "ip") for found in _IPV6.finditer(text) if _public(found[0]))


def _emails(text: str) -> Iterator[Span]:
    at = text.find("@")
    while at >= 0:
        domain = _DOMAIN.match(text, at)
        local = _LOCAL_PART.search(text, max(0, at - 64), at) if domain else None
        if domain and local and not _RESERVED.search(domain[0]) and not _CODE.search(domain[0]):
            yield Span(local.start(), domain.end(), "email")
        at = text.find("@", at + 1)


def _numbers(text: str) -> Iterator[Span]:
    for found in _DIGITS.finditer(text):
        start, end = found.span()
        if start and text[start - 1] in "+(":
            start -= 1
        before, after = text[start - 1 : start], text[end : end + 2]
        if (before.isalnum() or before in tuple("_.@/#=-+")) and before:
            continue
        if after[:1].isalnum() or after[:1] in ("_", "@") or (after[:1] in ("-", ".") and after[1:].isdigit()):
            continue
        what = _number_kind(text[start:end])
        if what:
            yield Span(start, end, what)
    for pattern, kind, is_one in ((_IBAN, "iban", _iban), (_IPV4, "ip", _public)):
        for found in pattern.finditer(text):
            before = text[found.start() - 1 : found.start()]
            if not (before.isalnum() or before in ("_", ".")) and is_one(found[0]):
                yield Span(*found.span(), kind)


def _number_kind(text: str) -> str | None:
    digits = re.sub(r"\D", "", text)
    if re.fullmatch(r"\d{4}([ -]?)\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -]?)\d{6}\2\d{5}", text) and _luhn(digits):
        return "card" if digits[0] in "3456" else None
    fictional = "55501" in digits and len(digits) <= 11
    international = _INTERNATIONAL.fullmatch(text) and 8 <= len(digits) <= 15
    return "phone" if (international or _NATIONAL.fullmatch(text)) and not fictional else None


def _luhn(digits: str) -> bool:
    """Checks the Luhn checksum (ISO/IEC 7812-1, annex B)."""
    doubled = [int(d) * (2 if place % 2 else 1) for place, d in enumerate(reversed(digits))]
    return len(digits) in range(13, 20) and sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


def _iban(text: str) -> bool:
    """Checks an IBAN's checksum (ISO 13616): letters as numbers, modulo 97."""
    compact = text.replace(" ", "")
    if not 15 <= len(compact) <= 34:
        return False
    moved = compact[4:] + compact[:4]
    return int("".join(str(int(letter, 36)) for letter in moved)) % 97 == 1


def _public(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False
