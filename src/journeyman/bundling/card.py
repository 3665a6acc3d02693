"""The model card of a bundle: README.md, with the metadata that Hugging Face's hub reads at its top."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from journeyman.bundling.results import Results
from journeyman.bundling.scripts import adapter_hint
from journeyman.foreign import file_part, markdown, named
from journeyman.inference.server_bundle import HOW_TO_SERVE, card_line
from journeyman.manifests import BundleManifest, Target, TermsName
from journeyman.model_files import name_of_model
from journeyman.models.geometry import Geometry
from journeyman.records import EVERY_ROLE

_BY_THE_ENGINE = (
    "Serve it: `journeyman serve` in the run's folder, `sh llama-server.sh`, or for Ollama "
    "`ollama create NAME -f Modelfile.ROLE`."
)


def how_to_serve(bundle: BundleManifest) -> str:
    """The sentence about serving of the bundle that `export` makes without a target."""
    return _BY_THE_ENGINE if bundle.server is None else HOW_TO_SERVE


def model_card(
    bundle: BundleManifest,
    results: Results,
    license: str | None,
    serving: str,
    notes: Sequence[str],
    arm: str | None = None,
    deployed: Sequence[str] | None = None,
) -> str:
    """The whole page.

    Args:
        license: what the base says about its license; None: nothing.
        serving: how these files are served; see how_to_serve.
        notes: further lines, each a list item.
        arm: the evaluation's arm of these files; None: that of the file that ships.
        deployed: the roles of the bundle that a target was made of, which may have some of them; None: its own.
    """
    target = bundle.target
    warned = [] if target is None or target.why_not is None else _not_evaluated(target)
    stay = _stay(bundle.roles if deployed is None else deployed, results)
    override = [f"**Exported despite the verdict.** Reason: {markdown(bundle.override)}", ""] if bundle.override else []
    return "\n".join(
        [
            "---",
            f"library_name: {_library(bundle)}",
            "tags: [lora, journeyman]",
            "---",
            "# Model card",
            "",
            *warned,
            *override,
            f"Roles: {', '.join(map(_name, bundle.roles))}. {stay}",
            "",
            *_files(bundle, results, license),
            "",
            *_evaluated(results, arm),
            "",
            serving,
            "",
            *([*notes, ""] if notes else []),
            *_data(results),
            "",
            *_limits(bundle, results),
            "",
        ]
    )


def _not_evaluated(target: Target) -> list[str]:
    assert target.why_not is not None
    why = target.why_not.sentence()
    allowed = f" Served nevertheless, because: {markdown(target.allowed)}" if target.allowed else ""
    return [f"**NOT EVALUATED, NOT DEPLOYABLE.** {markdown(why[:1].upper() + why[1:])}.{allowed}", ""]


def _files(bundle: BundleManifest, results: Results, license: str | None) -> list[str]:
    plan, evaluation = results.plan, results.evaluation
    engine = markdown(evaluation.engine.line())
    evaluated = bundle.target is None or bundle.target.evaluated
    given = f"its license: {markdown(license)}, as its file says" if license else "its license: not known"
    return [
        f"- base: {_file_name(bundle.base_path)}, SHA-256 `{bundle.base_sha256}`; {given}; the adapter depends on it",
        *([card_line(bundle.server)] if bundle.server is not None else []),
        *(
            [f"- the adapter was trained on {_file_name(plan.base_path)}, SHA-256 `{plan.base_sha256}`"]
            if bundle.base_sha256 != plan.base_sha256
            else []
        ),
        *_template_line(bundle),
        *(_adapter_line(name, results, bundle) for name in bundle.adapter_files),
        f"- {'these files' if evaluated else 'base and adapter, not merged,'} were evaluated on {evaluation.rows} "
        f"held-out test rows with {engine}",
    ]


def _evaluated(results: Results, arm: str | None) -> list[str]:
    evaluation, decision = results.evaluation, results.decision
    verdicts = (
        decision.others[arm] if arm is not None else {role: made.verdict for role, made in decision.roles.items()}
    )
    rows, of_these = [], arm or decision.ships
    for role, summary in evaluation.roles.items():
        rates = [
            f"{one.success.passed} of {one.success.n} ({one.success.low:.0%} to {one.success.high:.0%})"
            if one.success
            else "not known"
            for one in (summary.base, summary.arms[of_these])
        ]
        rows.append(f"| {_name(role)} | {rates[0]} | {rates[1]} | {verdicts[role]} |")
    return ["| role | base | tuned | verdict |", "| --- | --- | --- | --- |", *rows]


def _data(results: Results) -> list[str]:
    dataset = results.dataset
    splits = [
        f"- {_name(role)}: {one.train} training, {one.val} validation and {one.test} held-out test rows"
        for role, one in dataset.splits.items()
    ]
    teachers = [
        f"- {_name(name)}: {_TERMS[one.terms]}; {one.rows} rows"
        for name, one in dataset.teacher_terms.items()
        if one.rows
    ]
    dropped = dataset.dropped.get("teacher_terms", 0)
    of_none = {one.terms for one in dataset.teacher_terms.values() if not one.rows} - {"allow"}
    return [
        "## Data",
        "",
        f"{dataset.kept} of {dataset.rows_in} logged answers were kept; training rows have {dataset.train_tokens:,} "
        "tokens.",
        "",
        *splits,
        "",
        "Teachers, and whether their terms allow to train a model on their answers, as `curate.teacher_terms` says:",
        "",
        *(teachers or ["- not known"]),
        *([f"- {dropped} rows of teachers whose terms {_left_out(of_none)} were left out"] if dropped else []),
    ]


def _limits(bundle: BundleManifest, results: Results) -> list[str]:
    evaluation = results.evaluation
    contract = [
        f"- {_name(role)}: {_PROMPTS[prompt.kind]}"
        for role, prompt in bundle.prompts.items()
        if prompt.kind in _PROMPTS
    ]
    return [
        "## Limits",
        "",
        f"- the rates hold for requests like those of the log, in these roles; their intervals are at "
        f"{evaluation.role_confidence:.2%} for a role; about other requests, nothing is known",
        f"- a request has at most {bundle.settings['context']} tokens, the answer included, which ends at "
        f"{bundle.settings['max_new_tokens']}; the temperature was {bundle.settings['temperature']}: "
        "where a program is not given these values, requests should have them",
        "- with another engine, quantization or chat template, answers may differ from those that were evaluated",
        *contract,
    ]


def _left_out(terms: Collection[TermsName]) -> str:
    """The terms of teachers none of whose rows are in the dataset: allowed ones have none for another reason."""
    if "unknown" not in terms:
        return "do not allow it"
    return "do not allow it or are not known" if "deny" in terms else "are not known"


_TERMS: Mapping[str, str] = {"allow": "allowed", "deny": "denied", "unknown": "terms not known"}
_PROMPTS: Mapping[str, str] = {
    "fixed": "trained with the one system prompt in prompts.json",
    "templated": "trained with system prompts of one form; others were not evaluated",
}


def _stay(deployed: Sequence[str], results: Results) -> str:
    others = [
        f"{_name(role)} ({made.verdict})"
        for role, made in results.decision.roles.items()
        if role not in (EVERY_ROLE, *deployed)
    ]
    return f"Roles that stay with the teacher: {', '.join(others)}." if others else "No role stays with the teacher."


def _library(bundle: BundleManifest) -> str:
    """What loads the files, in the terms of Hugging Face's hub."""
    if bundle.base_file or (bundle.target is None and bundle.server is None):
        return "gguf"
    return "peft" if bundle.adapter_files else "transformers"


def _name(role: str) -> str:
    return markdown(named(role))


def _file_name(path: str) -> str:
    return markdown(name_of_model(Path(path)))


def _adapter_line(name: str, results: Results, bundle: BundleManifest) -> str:
    one = results.adapter.adapters[name]
    return (
        f"- {'adapter' if name == EVERY_ROLE else f'adapter of {_name(name)}'}: `{bundle.adapter_files[name]}`, LoRA, "
        f"{results.adapter.trainable_parameters:,} parameters, SHA-256 `{bundle.adapter_sha256[name]}`; trained for "
        f"{one.steps} steps on {one.tokens:,} tokens, best step {one.best_step}"
    )


def _template_line(bundle: BundleManifest) -> list[str]:
    """The chat template, if programs must be told to use another one than the base's own, or to give it variables."""
    if bundle.template_file is None and not bundle.template_variables:
        return []
    name = markdown(bundle.chat_template) or "the base's own"
    file = "" if bundle.template_file is None else f", as `{bundle.template_file}` writes it"
    given = f"; its variables: {markdown(json.dumps(bundle.template_variables))}" if bundle.template_variables else ""
    return [f"- chat template: {name}{file}{given}"]


def adapter_lines(bundle: BundleManifest) -> list[str]:
    """How a request to llama.cpp's server gets its role's adapter."""
    return [f"- {markdown(line)}" for line in adapter_hint(bundle)]


def modelfile_lines(bundle: BundleManifest, without: Mapping[str, str]) -> list[str]:
    """Exceptions to mention: roles that have another name in file names, and roles that Ollama cannot serve."""
    other = [role for role in bundle.roles if file_part(role) != role]
    return [
        *(f"- {_name(role)} is `{file_part(role)}` in file names" for role in other),
        *(f"- {_name(role)} has no Modelfile: {why}" for role, why in without.items()),
    ]


def context_lines(geometry: Geometry | None, context: int) -> list[str]:
    """What another context would change."""
    factors = None if geometry is None else geometry.factors(context)
    if geometry is None or factors is None:
        return []
    original = geometry.rotary.long_above
    side = "at most" if factors == "short" else "more than"
    return [
        f"- llama.cpp must give a request a context of {side} {original} tokens: with another, it uses the other of "
        "the base's two sets of rotary factors, with which nothing was trained or evaluated"
    ]
