"""JSON in files: one object per line, or concatenated documents (lists and objects) of any layout."""

from __future__ import annotations

import codecs
import dataclasses
import io
import json
from collections.abc import Iterator

from journeyman.reasons import files as why
from journeyman.sources import rows
from journeyman.sources.opening import CHUNK, DAMAGED
from journeyman.sources.rows import DECODER, Row, checked, refused

MAX_DOCUMENT_BYTES = 256 << 20
"""Limit of an object that is not an element of a list: some exports put all their rows into one."""
_LOOKED_AT = 8 << 10
_BLANK = " \t\r\n,\x1e\ufeff"
"""Characters between documents; \\x1e begins each text of a JSON text sequence (RFC 7464)."""


def is_document(stream: io.BufferedReader, name: str) -> bool:
    """Whether the stream has documents rather than lines: its first value spans several lines."""
    peeked = stream.peek(CHUNK)[:CHUNK]
    head = peeked.lstrip(b"\xef\xbb\xbf \t\r\n\x1e")
    line, ended, rest = head.partition(b"\n")
    if line[:1] not in (b"{", b"["):
        return False
    if not ended:
        return name.endswith(".json")
    if _is_value(line):
        return line[:1] == b"[" and (name.endswith(".json") or not rest.strip())
    if name.endswith(".json") or _is_value(head):
        return True
    # If the first document is longer than what can be peeked at, its layout decides.
    return (
        len(peeked) >= _LOOKED_AT and line.rstrip()[-1:] in (b"{", b"[", b",") and rest[:1] in (b" ", b"\t", b'"', b"{")
    )


def _is_value(head: bytes) -> bool:
    try:
        DECODER.raw_decode(head.decode("utf-8", "surrogateescape").lstrip())
    except (ValueError, RecursionError):
        return False
    return True


def lines_of(stream: io.BufferedReader, skip: int) -> Iterator[Row]:
    """Yields every non-blank line, unparsed."""
    for number, line in enumerate(_lines(stream), start=1):
        if not line.strip():
            continue
        if skip:
            skip -= 1
        elif len(line) > rows.MAX_ROW_BYTES:
            yield refused(number, why.RowTooLong(rows.MAX_ROW_BYTES >> 20), line)
        else:
            yield Row(number, None, None, "", line)


def _lines(stream: io.BufferedReader) -> Iterator[bytes]:
    """Yields the lines; of a line that is too long only the beginning, so that memory stays bounded.

    A stream that breaks yields all lines up to the break, including the broken one, and then raises its error.
    """
    rest, overlong, broken = b"", False, None
    while True:
        try:
            chunk = stream.read1(CHUNK)
        except DAMAGED as error:
            chunk, broken = b"", error
        if not chunk:
            break
        first, ended, others = chunk.partition(b"\n")
        if not overlong:
            rest += first
        if not ended:
            overlong = len(rest) > rows.MAX_ROW_BYTES
            continue
        yield rest
        *whole, rest = others.split(b"\n")
        overlong = False
        yield from whole
    if rest:
        yield rest
    if broken is not None:
        raise broken


def documents_of(stream: io.BufferedReader, skip: int) -> Iterator[Row]:
    """Yields the elements of lists and the standalone objects of every document in the file."""
    for place, row in enumerate(_Documents(stream)):
        if place >= skip:
            yield row


class _Documents:
    """Decodes values from the front of a buffer that is filled as needed."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self._broken: BaseException | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._buffer, self._place, self._number, self._in_list = "", 0, 0, False

    def __iter__(self) -> Iterator[Row]:
        while self._skip_blank():
            sign = self._buffer[self._place]
            if sign in "[]" and self._in_list == (sign == "]"):
                self._in_list, self._place = not self._in_list, self._place + 1
                continue
            self._number += 1
            yield self._value()
        if self._broken is not None:
            raise self._broken
        if self._in_list:
            self._number += 1
            yield refused(self._number, why.ListCutOff(), "")

    def _skip_blank(self) -> bool:
        """Moves to the next significant character; returns False at the end."""
        while True:
            while self._place < len(self._buffer) and self._buffer[self._place] in _BLANK:
                self._place += 1
            if self._place < len(self._buffer):
                return True
            if not self._more(CHUNK):
                return False

    def _more(self, count: int) -> bool:
        text = ""
        while len(text) < count and self._broken is None:
            try:
                chunk = self._stream.read1(CHUNK)
            except DAMAGED as error:
                chunk, self._broken = b"", error
            text += self._decoder.decode(chunk, final=not chunk)
            if not chunk:
                break
        self._buffer, self._place = self._buffer[self._place :] + text, 0
        return bool(text)

    def _value(self) -> Row:
        limit = rows.MAX_ROW_BYTES if self._in_list else MAX_DOCUMENT_BYTES
        while True:
            left = len(self._buffer) - self._place
            try:
                value, end = DECODER.raw_decode(self._buffer, self._place)
            except RecursionError:
                return self._skipped(why.NestedTooDeeply(rows.MAX_DEPTH))
            except ValueError as error:
                if left <= limit and self._more(max(CHUNK, left)):
                    continue
                if left > limit:
                    return self._skipped(why.RowTooLong(limit >> 20))
                message = error.msg if isinstance(error, json.JSONDecodeError) else rows.NO_NUMBER
                return self._skipped(why.NotJson(message))
            if end == len(self._buffer) and not isinstance(value, dict) and self._more(CHUNK):
                continue  # a number may continue in the next chunk
            text = self._buffer[self._place : end]
            self._place = end
            return checked(value, self._number, text)

    def _skipped(self, reason: why.PassedOver) -> Row:
        """Skips what cannot be read, up to the next line that begins with a bracket."""
        shown, lost = self._buffer[self._place : self._place + 400], 0
        self._place += 1
        while True:
            found = [at for sign in "{[" if (at := self._buffer.find("\n" + sign, self._place)) >= 0]
            if found:
                lost += min(found) - self._place + 1
                self._place = min(found)
                self._in_list, rest = False, False
                break
            lost += len(self._buffer) - self._place
            self._place = len(self._buffer)
            if not self._more(CHUNK):
                self._in_list, rest = False, True
                break
        return refused(self._number, dataclasses.replace(reason, lost=lost, rest=rest), shown)
