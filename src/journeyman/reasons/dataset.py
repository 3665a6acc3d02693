"""Notes of curate about the log and the dataset as a whole."""

from __future__ import annotations

from dataclasses import dataclass

from journeyman.foreign import named
from journeyman.reasons.base import Reason
from journeyman.reasons.of_role import OfRole


@dataclass(frozen=True)
class SeveralTeachers(Reason, code="several_teachers"):
    """`teachers`: each teacher with its number of usable rows, separated by commas."""

    says = "the log mixes several teachers: {teachers}; set curate.teachers to keep some of them only"
    teachers: str


@dataclass(frozen=True)
class TermsNotKnown(Reason, code="teacher_terms_not_known"):
    """`teachers`: each teacher with its number of rows in the dataset, separated by commas."""

    says = "curate.teacher_terms does not say whether these teachers' answers may train a model: {teachers}"
    teachers: str


@dataclass(frozen=True)
class DeniedNobody(Reason, code="denial_without_teacher"):
    """`patterns`: quoted, separated by commas."""

    says = (
        "curate.teacher_terms.deny: no teacher in these logs has such a name, so nothing was dropped for it: {patterns}"
    )
    patterns: str


@dataclass(frozen=True)
class SeveralWorkloads(OfRole, code="several_workloads"):
    says = "{role}: {prompts} very different system prompts; if they belong to different agents, set data.role_field"
    prompts: int


@dataclass(frozen=True)
class ToolChanged(Reason, code="tool_changed"):
    says = "tool {tool}: {definitions} definitions over time; training uses the newest, and serving must as well"
    tool: str
    definitions: int


@dataclass(frozen=True)
class FewTrainingRows(OfRole, code="few_training_rows"):
    fix = "Log more rows of this role before it is trained, or leave it to the teacher"
    says = "{role}: few training rows ({rows}): with fewer than {least} a role learns little"
    rows: int
    least: int


@dataclass(frozen=True)
class ContradictoryAnswers(Reason, code="contradictory_answers"):
    says = "{inputs} inputs have short answers that contradict each other"
    inputs: int


@dataclass(frozen=True)
class RepeatedIds(Reason, code="repeated_ids"):
    says = "ids are not unique: {rows} rows repeat one; rows are identified by their place in the log"
    rows: int


@dataclass(frozen=True)
class CommonId(Reason, code="common_id"):
    """`field` is the dotted path of a field that is called an id; `count` of the `rows` have `value`."""

    says = "{field} identifies nothing: {count} of {rows} rows have {value!r}"
    field: str
    value: str
    count: int
    rows: int


@dataclass(frozen=True)
class LargeGroup(Reason, code="large_group"):
    says = "one group contains {rows} rows: do they all share a session? Such a log cannot be split well"
    rows: int


@dataclass(frozen=True)
class PromptReplaced(OfRole, code="prompt_replaced"):
    """`configured`: the prompt is that of roles.NAME.system_prompt; otherwise the most frequent one in the log."""

    replaced: int
    rows: int
    configured: bool

    def sentence(self) -> str:
        why = "the configured one" if self.configured else "the most frequent one in the log"
        role = named(self.role)
        return f"{role}: {self.replaced} of {self.rows} rows get a different system prompt than logged ({why})"


@dataclass(frozen=True)
class PromptInjected(OfRole, code="prompt_injected"):
    """`prompt` is what the base's chat template inserts if a conversation has no system prompt."""

    says = "{role}: no system prompt is logged or configured, so the base's chat template adds its own: {prompt!r}"
    prompt: str


@dataclass(frozen=True)
class TemplateReplaced(Reason, code="template_replaced"):
    says = "the chat template {name} replaces the base's own, in training and serving"
    name: str


@dataclass(frozen=True)
class TemplateDate(Reason, code="template_date"):
    """`date` is as the template writes it."""

    says = (
        "the base's chat template writes today's date: it is always {date}, in training and serving; "
        "set base.template_date for another one"
    )
    date: str


@dataclass(frozen=True)
class ReasoningPrompt(Reason, code="reasoning_prompt"):
    """`opens`: the prompt begins a block of reasoning, which every answer then closes."""

    switch: str
    opens: bool

    def sentence(self) -> str:
        how = "begins a block of reasoning, which every answer closes" if self.opens else "lets the base reason"
        remedy = f"; to turn that off, set base.template_options = {{ {self.switch} = false }}" if self.switch else ""
        return f"the base's chat template {how}, but reasoning is taken out of the answers{remedy}"


@dataclass(frozen=True)
class FreePrompts(OfRole, code="free_prompts"):
    says = (
        "{role}: {prompts} system prompts in {rows} rows: each row keeps its own, and serving accepts any; "
        "set roles.{role}.system_prompt to train all rows with the same one"
    )
    prompts: int
    rows: int


@dataclass(frozen=True)
class TemplatedPrompts(OfRole, code="templated_prompts"):
    """`begins` and `ends`: the common start and end of all prompts, at most 40 characters each."""

    says = (
        "{role}: {prompts} system prompts in {rows} rows: each row keeps its own, and serving accepts prompts of the "
        "form {begins!r} … {ends!r}"
    )
    prompts: int
    rows: int
    begins: str
    ends: str


@dataclass(frozen=True)
class CutTrainingRows(Reason, code="cut_training_rows"):
    says = (
        "{cut} of {rows} training rows are truncated answers without an end: the model may not learn to stop; set "
        "curate.rules.truncated = 'drop' to leave them out"
    )
    cut: int
    rows: int


@dataclass(frozen=True)
class LimitCuts(Reason, code="limit_cuts"):
    """`limit` is the logged max_tokens of the `rows`."""

    says = (
        "max_tokens = {limit} truncated {cut} of {rows} answers ({open_fences} leave a code fence open): raise it in "
        "the code that calls the teacher"
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


# Why the misrouted rule finds nothing.


@dataclass(frozen=True)
class TooFewTasks(Reason, code="too_few_tasks"):
    says = "fewer than two roles have at least {least} tasks"
    least: int


@dataclass(frozen=True)
class PromptsAlike(Reason, code="prompts_alike"):
    says = "the roles' system prompts do not distinguish their tasks"


@dataclass(frozen=True)
class TasksAlike(Reason, code="tasks_alike"):
    """`agreement` and `guessing` are shares; `agreement` is None if no row could be compared."""

    agreement: float | None
    guessing: float

    def sentence(self) -> str:
        return (
            f"the tasks do not distinguish the roles (agreement {self.agreement or 0:.0%}, by guessing "
            f"{self.guessing:.0%})"
        )
