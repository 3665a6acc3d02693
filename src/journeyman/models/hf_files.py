"""The files of a Hugging Face folder that describe its tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from journeyman.errors import InputError
from journeyman.foreign import plain

_MOST_BYTES, _MOST_TOKENS = 1 << 28, 1 << 21
COMPLETE = "Download the model's folder again, with all of its tokenizer files"
"""What to do if a file is damaged."""


class TokenizerFiles:
    """The JSON files of a folder, as objects; a missing one is empty.

    Raises:
        InputError: a file is no JSON object.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tokenizer = self._json("tokenizer.json")
        self.settings = self._json("tokenizer_config.json")
        self.config = self._json("config.json")
        self.generation = self._json("generation_config.json")
        self.names = self._json("special_tokens_map.json")

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        if not path.is_file():
            return {}
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: {path.stat().st_size:,} bytes", COMPLETE)
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: not JSON: {plain(str(error), 200)}", COMPLETE) from error
        if not isinstance(value, dict):
            raise InputError(f"{path}: not a JSON object", COMPLETE)
        return value

    def size(self, least: int) -> int:
        """The number of tokens: that of the embeddings, which may have more rows than there are tokens."""
        text = self.config.get("text_config")
        found = self.config.get("vocab_size", text.get("vocab_size") if isinstance(text, dict) else None)
        size = least if found is None else found
        if not isinstance(size, int) or not 0 < size <= _MOST_TOKENS:
            raise InputError(f"{self.path / 'config.json'}: vocab_size is {plain(repr(size), 40)}", COMPLETE)
        return size

    def special_id(self, name: str, tokens: Sequence[str]) -> int | None:
        """The id of the token with this role, such as `eos_token`."""
        for source in (self.settings, self.names):
            value = source.get(name)
            text = value.get("content") if isinstance(value, dict) else value
            if isinstance(text, str) and text in tokens:
                return tokens.index(text)
        text_config = self.config.get("text_config")
        for source in (self.config, text_config if isinstance(text_config, dict) else {}, self.generation):
            number = source.get(f"{name}_id")
            if isinstance(number, int) and 0 <= number < len(tokens):
                return number
        return None

    def added(self) -> Iterator[tuple[int, str, bool]]:
        """(id, text, special) of each added token; later ones replace earlier ones."""
        older = self._json("added_tokens.json")
        listed = self.tokenizer.get("added_tokens")
        decoder = self.settings.get("added_tokens_decoder")
        entries: list[tuple[Any, Any, Any]] = [(number, token, False) for token, number in older.items()]
        for number, token in decoder.items() if isinstance(decoder, dict) else ():
            entries.append((number, *_content(token)))
        for token in listed if isinstance(listed, list) else ():
            entries.append((token.get("id") if isinstance(token, dict) else None, *_content(token)))
        for number, text, special in entries:
            if isinstance(number, str) and number.isdecimal() and len(number) < 10:
                number = int(number)
            if not isinstance(number, int) or not isinstance(text, str):
                raise InputError(f"{self.path}: an added token is damaged: {plain(repr((number, text)), 80)}", COMPLETE)
            yield number, text, bool(special)


def _content(token: Any) -> tuple[Any, Any]:
    return (token.get("content"), token.get("special")) if isinstance(token, dict) else (None, None)
