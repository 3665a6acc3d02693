"""The evaluation as JUnit XML, which CI systems show: a suite for each role, with its test rows and verdict as cases.

Source: the schema that the JUnit plugin of Jenkins reads. Unscored answers are skipped cases. The characters that
`plain` lets through are all allowed in XML 1.0 (section 2.2).
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, tostring

from journeyman.artifacts import either, read_rows, write_atomic
from journeyman.foreign import named, plain
from journeyman.manifests import DecisionManifest
from journeyman.records import Prediction, Score


def write_junit(decision: DecisionManifest, evaluation_folder: Path, out: Path) -> None:
    """Writes the cases of the arm that ships; the case "verdict" of a role fails unless the role is deployed."""
    scores = [
        one
        for one in read_rows(either(evaluation_folder, "scores.jsonl", "verdicts.jsonl"), Score)
        if one.arm == decision.ships
    ]
    seconds = {
        one.id: one.latency_s
        for one in read_rows(evaluation_folder / "predictions.jsonl", Prediction)
        if one.arm == decision.ships
    }
    suites = Element("testsuites", name="journeyman")
    for role, made in decision.roles.items():
        mine = [one for one in scores if one.role == role]
        failed = sum(one.outcome == "fail" for one in mine) + (made.verdict != "deploy")
        skipped = sum(one.outcome == "unscored" for one in mine)
        counts = {"tests": len(mine) + 1, "failures": failed, "skipped": skipped, "errors": 0}
        suite = SubElement(suites, "testsuite", {"name": named(role)} | {key: str(n) for key, n in counts.items()})
        for one in mine:
            taken = f"{seconds.get(one.id) or 0.0:.3f}"
            case = SubElement(suite, "testcase", classname=named(role), name=plain(one.id), time=taken)
            if one.outcome != "pass":
                kind = "failure" if one.outcome == "fail" else "skipped"
                SubElement(case, kind, message=plain(f"{one.check}: {one.why()}"))
        verdict = SubElement(suite, "testcase", classname=named(role), name="verdict")
        if made.verdict != "deploy":
            reasons = "\n".join(plain(f"{r.rule}: {r.outcome}: {r.reason.sentence()}") for r in made.reasons)
            SubElement(verdict, "failure", message=made.verdict).text = reasons
    write_atomic(out, tostring(suites, encoding="utf-8", xml_declaration=True))
