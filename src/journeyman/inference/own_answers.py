"""The base's own answers to general prompts, which are trained beside the rows: see journeyman.retention.

They are made once by the serving engine, without a role's system prompt, and kept in the response cache. An answer that
is cut off at the limit is trained without its end, as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from journeyman.config import EvaluateConfig, RetentionConfig
from journeyman.errors import InputError
from journeyman.foreign import plain
from journeyman.inference.dispatch import DispatchProgress, dispatch
from journeyman.inference.engines import evaluated_server, running_engine
from journeyman.inference.response_cache import ResponseCache
from journeyman.protocols import EngineSettings, EvaluatedEngine, Question, Reporter
from journeyman.records import BASE, Example, Prediction
from journeyman.rendering.renderer import Renderer
from journeyman.retention import ROLE, GeneralPrompt, read_prompts, shuffled

_CONTEXT_STEP, _LOAD = 512, 4
"""The number of requests at a time can change an answer, so it is no setting: none of [evaluate] changes a training."""


def prompts_to_ask(
    retention: RetentionConfig, count: int, seed: int, renderer: Renderer, root: Path
) -> list[GeneralPrompt]:
    """Up to `count` prompts, chosen by the seed among those that the base's chat template supports.

    Args:
        root: the run's folder, where the user's own prompts are.

    Raises:
        InputError: the user's file is missing or empty, or a prompt of it contains a control token of the base or is
            refused by the template, as one with tools is where the template supports none. Such prompts of those that
            are shipped are left out.
    """
    own = root / retention.prompts if retention.prompts else None
    found: list[GeneralPrompt] = []
    for one in shuffled(read_prompts(own), seed):
        if len(found) == count:
            break
        if not (why := _refusal(one, renderer)):
            found.append(one)
        elif own is not None:
            raise InputError(f"{retention.prompts}: prompt {plain(one.id, 80)}: {why}", "Remove it from the file")
    return found


def _refusal(prompt: GeneralPrompt, renderer: Renderer) -> str:
    """Why the base cannot be asked this; "" if it can."""
    try:
        renderer.prompt_text(prompt.messages, prompt.tools)
    except InputError as error:
        return error.what
    token = renderer.control.find([turn.as_chat() for turn in prompt.messages], prompt.tools)
    return str(token) if token else ""


def longest_rows(
    prompts: Sequence[GeneralPrompt], retention: RetentionConfig, renderer: Renderer
) -> list[Example]:  # fmt: skip
    """Rows with a made-up answer of about as many tokens as one may have, which is what each is counted with."""
    return [
        Example(
            id=f"general/{one.id}", role=ROLE, messages=one.messages, tools=one.tools, group=one.id, ends=False,
            answer=" word" * retention.max_tokens, answer_tokens=retention.max_tokens,
            prompt_tokens=renderer.prompt_tokens(one.messages, one.tools),
        )
        for one in prompts
    ]  # fmt: skip


def tokens_at_most(prompt: GeneralPrompt, retention: RetentionConfig, renderer: Renderer) -> int:
    """Tokens of the prompt with the longest answer that it can get."""
    return renderer.prompt_tokens(prompt.messages, prompt.tools) + retention.max_tokens


def own_answers(
    prompts: Sequence[GeneralPrompt], retention: RetentionConfig, config: EvaluateConfig, served: Path,
    renderer: Renderer, root: Path, reporter: Reporter,
    running_engine: Callable[[EngineSettings], AbstractContextManager[EvaluatedEngine]] = running_engine,
) -> list[Example]:  # fmt: skip
    """The base's greedy answers as rows, in the order of the prompts. Answers that cannot be trained are left out: all,
    perhaps.

    Args:
        served: the base's file that answers.
        root: the run's folder, with the response cache.

    Raises:
        Interrupted: asked to stop; the answers so far are cached.
        EngineError: the engine failed.
    """
    template, longest = renderer.served_template, max(tokens_at_most(one, retention, renderer) for one in prompts)
    settings = EngineSettings(
        served, {}, -(-longest // _CONTEXT_STEP) * _CONTEXT_STEP, config.threads, 0.0, _LOAD,
        None if template.own else template.source, template.variables, evaluated_server(config, root),
    )  # fmt: skip
    asked = [
        Question(f"general/{one.id}", ROLE, BASE, one.messages, retention.max_tokens, one.tools) for one in prompts
    ]
    reporter.say(
        f"the base answers {len(asked)} general prompts, with up to {retention.max_tokens} tokens each, for "
        "train.retention; answers in the response cache are used again"
    )
    cache = ResponseCache(root)
    if told := cache.damage():
        reporter.say(told)
    with running_engine(settings) as engine:
        reporter.begin("the base's own answers", len(asked), "answers")
        progress = DispatchProgress(reporter, len(asked))
        answered = dispatch(asked, engine, cache, _LOAD, progress).predictions
    made = [_row(prompt, answer, renderer) for prompt, answer in zip(prompts, answered, strict=True)]
    rows = [row for row in made if row is not None]
    cut, left_out = sum(not row.ends for row in rows), len(made) - len(rows)
    reporter.say(
        f"{len(rows)} of the base's own answers are trained, {cut} of them cut off at the limit and without their end"
        + (f"; {left_out} are empty or contain what cannot be trained, and are left out" if left_out else "")
    )
    return rows


def _row(prompt: GeneralPrompt, answer: Prediction, renderer: Renderer) -> Example | None:
    """None: there is nothing in the answer that could be trained."""
    ends = answer.finish_reason != "length"
    text = answer.text if ends else answer.text.rstrip("\N{REPLACEMENT CHARACTER}")  # of a character that was cut
    if not (text.strip() or answer.calls) or answer.finish_reason == "error":
        return None
    row = Example(
        id=answer.id, role=ROLE, messages=prompt.messages, answer=text, answer_calls=answer.calls, tools=prompt.tools,
        group=answer.id, prompt_tokens=0, answer_tokens=0, ends=ends,
    )  # fmt: skip
    try:
        renderer.example(row)
        written = renderer.answer_text(row.messages, row.answer, row.answer_calls, row.tools)
    except InputError:
        return None
    return row.model_copy(
        update={
            "prompt_tokens": renderer.prompt_tokens(row.messages, row.tools),
            "answer_tokens": renderer.count(written) + ends,
        }
    )
