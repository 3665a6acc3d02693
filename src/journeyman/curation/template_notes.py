"""Notes on a chat template that is not used as the base's file has it."""

from __future__ import annotations

from journeyman.config import CurateConfig
from journeyman.reasons import Reason, dataset
from journeyman.rendering.renderer import Renderer


def template_notes(renderer: Renderer, config: CurateConfig) -> list[Reason]:
    """What a reader of the dataset's report must know about the chat template; mostly nothing."""
    template, notes = renderer.served_template, list[Reason]()
    if template.replaces:
        notes.append(dataset.TemplateReplaced(template.name))
    if template.date:
        notes.append(dataset.TemplateDate(template.date))
    switch = "enable_thinking" if template.variables.get("enable_thinking") is True else ""
    opens = renderer.opens_reasoning()
    if (switch or opens) and config.rules.action("reasoning") == "strip":
        notes.append(dataset.ReasoningPrompt(switch, opens))
    return notes
