"""Which family of models a name belongs to, as people and programs write names of models.

Names are a claim, so what is found here is shown and never decides what is computed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class FamilyName:
    """A family of open models.

    Attributes:
        pattern: found in names of its models, in lower case.
        template: the one of journeyman's chat templates (rendering/templates) that its models were trained with.
    """

    name: str
    pattern: str
    template: str = ""


_MOST = 200
_SEP = r"[-_ .:]?"
FAMILY_NAMES = (
    FamilyName("Qwen3", rf"qwen{_SEP}3", "chatml"),
    FamilyName("Qwen2.5", rf"qwen{_SEP}2[._]?5|qwq", "chatml"),
    FamilyName("Qwen2", rf"qwen{_SEP}2(?![._]?5)", "chatml"),
    FamilyName("Code Llama", rf"code{_SEP}llama", "llama-2"),
    FamilyName("Llama 4", rf"llama{_SEP}4(?!\d)"),
    FamilyName("Llama 3", rf"llama{_SEP}3(?!\d)", "llama-3"),
    FamilyName("Llama 2", rf"(?<!code)(?<!code[-_ ])llama{_SEP}2(?!\d)", "llama-2"),
    FamilyName("Mixtral", r"mixtral", "mistral"),
    FamilyName("Ministral", r"ministral", "mistral"),
    FamilyName("Mistral", r"mistral|devstral|codestral|magistral", "mistral"),
    FamilyName("Gemma 3", rf"gemma{_SEP}3", "gemma"),
    FamilyName("Gemma 2", rf"gemma{_SEP}2(?!\d)", "gemma"),
    FamilyName("Phi-4", rf"phi{_SEP}4", "phi-4"),
    FamilyName("Phi-3", rf"phi{_SEP}3", "phi-3"),
    FamilyName("SmolLM3", rf"smollm{_SEP}3"),
    FamilyName("SmolLM2", rf"smollm{_SEP}2", "chatml"),
    FamilyName("Granite", r"granite", "granite"),
    FamilyName("OLMo", r"olmo"),
    FamilyName("gpt-oss", rf"gpt{_SEP}oss"),
    FamilyName("DeepSeek", r"deepseek(?!.*(qwen|llama))"),
    FamilyName("GLM", rf"\bglm{_SEP}\d"),
)  # fmt: skip
_KNOWN = [(one, re.compile(one.pattern)) for one in FAMILY_NAMES]


def family_of_name(name: str) -> FamilyName | None:
    """The family of open models whose name is part of this one; None: none of those above, such as a model that is
    only offered as a service."""
    lower = name[:_MOST].lower()
    return next((family for family, pattern in _KNOWN if pattern.search(lower)), None)
