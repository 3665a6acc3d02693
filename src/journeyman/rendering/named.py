"""journeyman's own chat templates, for bases that have none: `base.chat_template = "chatml"`.

Each is in templates/NAME.jinja, written from the published format. A named template can be used if its tokens are in
the base's vocabulary as tokens: otherwise the markers of its turns would be ordinary text, which anybody can write, and
the engine would not stop at its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from journeyman.models.base import TokenizerData
from journeyman.rendering.token_types import special_tokens


@dataclass(frozen=True)
class NamedTemplate:
    """A chat template of journeyman.

    Attributes:
        tokens: what the base's vocabulary must contain as tokens. Without any, the template uses ordinary text and the
            base's own end token, and so fits every base.
        end: the token that ends a turn; "" for the base's own end token.
    """

    name: str
    tokens: tuple[str, ...] = ()
    end: str = ""

    @property
    def source(self) -> str:
        """In Jinja."""
        return _read(f"{self.name}.jinja")

    def for_ollama(self, end: str) -> str:
        """The same format as a Go template, for an Ollama Modelfile (https://docs.ollama.com/modelfile), without tools.

        It does not write the token that begins a text, which Ollama adds, and keeps white space around messages.

        Args:
            end: the base's end token.
        """
        return _read(f"{self.name}.gotmpl").rstrip("\n").replace(_END, end)

    def missing(self, data: TokenizerData) -> list[str]:
        """Its tokens that the base does not have."""
        special = set(special_tokens(data))
        return [token for token in self.tokens if token not in special]


def _read(file: str) -> str:
    return files(__package__).joinpath("templates", file).read_text(encoding="utf-8")


_END = "END"
"""Stands for the base's end token in Go templates, which do not know it."""
_IM = ("<|im_start|>", "<|im_end|>")
_ALL = (
    NamedTemplate("chatml", _IM, "<|im_end|>"),
    NamedTemplate("gemma", ("<start_of_turn>", "<end_of_turn>"), "<end_of_turn>"),
    NamedTemplate("granite", ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"), "<|end_of_text|>"),
    NamedTemplate("llama-3", ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), "<|eot_id|>"),
    NamedTemplate("mistral", ("[INST]", "[/INST]")),
    NamedTemplate("phi-3", ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), "<|end|>"),
    NamedTemplate("phi-4", (*_IM, "<|im_sep|>"), "<|im_end|>"),
    NamedTemplate("llama-2"),
    NamedTemplate("zephyr"),
)
NAMED: Mapping[str, NamedTemplate] = {one.name: one for one in _ALL}


def fitting(data: TokenizerData) -> list[str]:
    """The names of the templates that fit a base: those made for its tokens, or else those that fit every base."""
    own = [one.name for one in _ALL if one.tokens and not one.missing(data)]
    return own or [one.name for one in _ALL if not one.tokens]


def fits(data: TokenizerData) -> str:
    """A part of a sentence that names the templates that fit a base."""
    try:
        return f"{' or '.join(fitting(data))} would fit this base"
    except ValueError:  # its vocabulary is damaged, which is reported where it is used
        return "none is known to fit this base"
