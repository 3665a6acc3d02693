"""Shared by the verbs that run stages."""

from __future__ import annotations

import shlex
from pathlib import Path

from journeyman.cli.progress import terminal_reporter
from journeyman.cli.tables import print_log_table, print_verdict_table, result_console, summary_line
from journeyman.config import CONFIG_NAME, load_config
from journeyman.errors import Interrupted
from journeyman.manifests import DecisionManifest, EvaluationManifest, IngestManifest
from journeyman.pipeline import STAGES, Run, run_pipeline


def run_stages(
    folder: Path,
    until: str,
    overrides: list[str],
    *,
    redo: bool = False,
    override: str | None = None,
    command: str = "",
) -> Run:
    """Runs the pipeline in `folder` up to `until`, with progress on stderr."""
    run = Run(folder, load_config(folder / CONFIG_NAME, overrides), override)
    with terminal_reporter() as reporter:
        try:
            for outcome in run_pipeline(run, until, reporter, redo=redo):
                number = next(s.folder for s in STAGES if s.name == outcome.stage)[:2]
                took = "unchanged" if outcome.action == "fresh" else f"{outcome.action} in {outcome.seconds:.1f} s"
                reporter.say(f"{number} {outcome.stage:<9} {took}: {summary_line(outcome.result)}")
                for warning in getattr(outcome.result, "warnings", []):
                    reporter.say(f"   warning: {warning}")
        except Interrupted as stop:
            again = command or f"journeyman run --until {until} --dir {shlex.quote(str(folder))}"
            raise Interrupted(stop.what, f"The same command goes on from here: {again}") from stop
    return run


def print_results(run: Run, until: str) -> None:
    """On stdout: the logs' figures after ingest, the verdict table after decide."""
    console = result_console()
    if until == "ingest":
        print_log_table(console, run.result("ingest", IngestManifest))
    if until in ("decide", "export"):
        print_verdict_table(console, run.result("evaluate", EvaluationManifest), run.result("decide", DecisionManifest))
        console.print(f"report: {run.folder('decide') / 'report.html'}", soft_wrap=True, highlight=False)
