"""What curate notes about the log and the dataset as a whole."""

from __future__ import annotations

from dataclasses import dataclass

from journeyman.foreign import named
from journeyman.reasons.base import Reason
from journeyman.reasons.of_role import OfRole


@dataclass(frozen=True)
class SeveralTeachers(Reason, code="several_teachers"):
    """`teachers`: each with its usable rows, separated by commas; the figures are in the table of teachers."""

    says = "several teachers are mixed: {teachers}; curate.teachers keeps some of them"
    teachers: str


@dataclass(frozen=True)
class SeveralWorkloads(OfRole, code="several_workloads"):
    says = "{role}: {prompts} very different system prompts; if these are several agents, set data.role_field"
    prompts: int


@dataclass(frozen=True)
class ToolChanged(Reason, code="tool_changed"):
    says = "tool {tool}: {definitions} definitions over time; the newest is trained and must be served"
    tool: str
    definitions: int


@dataclass(frozen=True)
class FewTrainingRows(OfRole, code="few_training_rows"):
    says = "{role}: few training rows ({rows}): below {least} a role learns little"
    rows: int
    least: int


@dataclass(frozen=True)
class ContradictoryAnswers(Reason, code="contradictory_answers"):
    says = "{inputs} inputs have short answers that contradict each other"
    inputs: int


@dataclass(frozen=True)
class RepeatedIds(Reason, code="repeated_ids"):
    says = "ids are not unique: {rows} rows repeat one; the place in the log tells them apart"
    rows: int


@dataclass(frozen=True)
class CommonId(Reason, code="common_id"):
    """`field` is the dotted path of a field that is named an id; `value` stands in `count` of the `rows`."""

    says = "{field} identifies nothing: {value!r} stands in {count} of {rows} rows"
    field: str
    value: str
    count: int
    rows: int


@dataclass(frozen=True)
class LargeGroup(Reason, code="large_group"):
    says = "one group holds {rows} rows: do all of them share a session? Such a log cannot be split well"
    rows: int


@dataclass(frozen=True)
class PromptReplaced(OfRole, code="prompt_replaced"):
    """`configured`: the prompt stands in roles.NAME.system_prompt; else it is the log's most frequent one."""

    replaced: int
    rows: int
    configured: bool

    def sentence(self) -> str:
        why = "as configured" if self.configured else "the log's most frequent one"
        role = named(self.role)
        return f"{role}: {self.replaced} of {self.rows} rows get another system prompt than logged ({why})"


@dataclass(frozen=True)
class PromptInjected(OfRole, code="prompt_injected"):
    """`prompt` is what the base's chat template puts where a conversation has no system prompt."""

    says = "{role}: no system prompt is logged or set, and the base's chat template adds its own: {prompt!r}"
    prompt: str


@dataclass(frozen=True)
class FreePrompts(OfRole, code="free_prompts"):
    says = (
        "{role}: {prompts} system prompts in {rows} rows: each row keeps its own, and serving takes any; "
        "roles.{role}.system_prompt trains all rows under one"
    )
    prompts: int
    rows: int


@dataclass(frozen=True)
class TemplatedPrompts(OfRole, code="templated_prompts"):
    """`begins` and `ends`: what all prompts begin and end with, at most 40 characters each."""

    says = (
        "{role}: {prompts} system prompts in {rows} rows: each row keeps its own, and serving takes prompts of the "
        "form {begins!r} … {ends!r}"
    )
    prompts: int
    rows: int
    begins: str
    ends: str


@dataclass(frozen=True)
class CutTrainingRows(Reason, code="cut_training_rows"):
    says = (
        "{cut} of {rows} training rows are cut answers without an end: the model may not learn to stop; "
        "curate.rules.truncated = 'drop' leaves them out"
    )
    cut: int
    rows: int


@dataclass(frozen=True)
class LimitCuts(Reason, code="limit_cuts"):
    """`limit` is the logged max_tokens of the `rows`."""

    says = (
        "max_tokens = {limit} cut {cut} of {rows} answers ({open_fences} leave a code fence open): raise it where the "
        "teacher is called"
    )
    limit: int
    cut: int
    rows: int
    open_fences: int


@dataclass(frozen=True)
class NoLeak(Reason, code="no_leak"):
    """`compared` of the `tests` test tasks were compared with all `others`."""

    compared: int
    tests: int
    others: int
    similarity: float

    def sentence(self) -> str:
        shown = f"all {self.tests}" if self.compared == self.tests else f"{self.compared} of {self.tests}"
        return (
            f"{shown} test tasks compared with all {self.others} others: none reaches a similarity of "
            f"{self.similarity:g}"
        )


# Why the check for misrouted rows flags nothing.


@dataclass(frozen=True)
class TooFewTasks(Reason, code="too_few_tasks"):
    says = "fewer than two roles have {least} tasks"
    least: int


@dataclass(frozen=True)
class PromptsAlike(Reason, code="prompts_alike"):
    says = "the roles' system prompts do not tell their tasks apart"


@dataclass(frozen=True)
class TasksAlike(Reason, code="tasks_alike"):
    """`agreement` and `guessing` are shares; agreement is None where no row could be compared."""

    agreement: float | None
    guessing: float

    def sentence(self) -> str:
        return (
            f"the tasks do not tell the roles apart (agreement {self.agreement or 0:.0%}, guessing gives "
            f"{self.guessing:.0%})"
        )
