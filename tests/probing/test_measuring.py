"""A whole probe on a tiny model: no held-out row is opened, nothing is asked twice, and changes make it stale."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import log_row
from journeyman.api.probing import compared_with_evaluation, last_probe, probe_run
from journeyman.artifacts import ADAPTER_FILE, hash_of_file
from journeyman.config import load_config
from journeyman.errors import InputError, Interrupted, NoGo
from journeyman.evidence import RESPONSES
from journeyman.pipeline import run_pipeline
from journeyman.probing import measuring
from journeyman.probing.recommending import COPY
from journeyman.probing.record import ProbeRecord
from journeyman.protocols import SilentReporter
from journeyman.records import BASE, EVERY_ROLE, FEW_SHOT, TEACHER
from journeyman.runs import SEALED, Run
from journeyman.trials.answering import tuned
from journeyman.trials.rows import TrialRows, rows_of

Make = Callable[..., Path]
TWO_ROLES = [log_row(number, role) for role in ("coder", "tester") for number in range(40)]


class Heard(SilentReporter):
    """Remembers what was said, and asks to stop at a line that begins like `until`."""

    def __init__(self, until: str = "") -> None:
        self.lines: list[str] = []
        self._until, self._stop = until, False

    def say(self, text: str) -> None:
        self.lines.append(text)
        self._stop = self._stop or (bool(self._until) and text.startswith(self._until))

    @property
    def stop_requested(self) -> bool:
        return self._stop


def _planned(folder: Path, *settings: str) -> Run:
    made = Run(folder, load_config(folder / "journeyman.toml", settings))
    list(run_pipeline(made, "plan", SilentReporter(), redo=True))
    return made


@pytest.fixture
def engine_starts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets an item for each engine that a probe starts."""
    starts: list[int] = []
    real = measuring.answer_rows

    def counted(*args: object, **more: object) -> object:
        starts.append(1)
        return real(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(measuring, "answer_rows", counted)
    return starts


@pytest.mark.slow
def test_a_probe_scores_every_arm_on_validation_rows_and_never_opens_the_held_out_ones(
    make_run: Make, tmp_path: Path, engine_starts: list[int]
) -> None:
    folder = make_run(TWO_ROLES)
    run = _planned(folder)
    (run.folder("curate") / SEALED).rename(tmp_path / "away")  # whoever opens it fails
    heard = Heard()
    record = probe_run(run, heard)
    parts = [tuned(name) for name in ("eighth", "quarter", "half")]
    assert list(record.roles) == [EVERY_ROLE, "coder", "tester"]
    assert list(record.roles[EVERY_ROLE].summary.arms) == [TEACHER, COPY, BASE, FEW_SHOT, *parts]
    assert all(arm.success is not None for arm in record.roles[EVERY_ROLE].summary.arms.values())
    assert record.shown == {"coder": 2, "tester": 2}
    sizes = [one.rows[EVERY_ROLE] for one in record.parts]
    assert sizes == sorted(set(sizes)) and record.parts[0].rows["coder"] >= 1
    assert record.rows == record.of_rows == record.roles[EVERY_ROLE].summary.rows
    predicted = record.roles[EVERY_ROLE].predicted
    assert predicted is not None and predicted.low <= predicted.likely <= predicted.high
    assert "an eighth about" in heard.lines[2] and "at most 600 s" in heard.lines[2]  # costs are said before

    assert ProbeRecord.model_validate_json((folder / "probe" / "probe.json").read_text()) == record
    page = (folder / "probe" / "probe.md").read_text()
    assert "## Should you tune at all?" in page and "held-out test rows were not opened" in page

    assert len(engine_starts) == 2  # one engine for the base, one with all adapters
    assert probe_run(run, SilentReporter()) == record and len(engine_starts) == 2
    assert last_probe(run) == (record, True)
    changed = Run(folder, load_config(folder / "journeyman.toml", ["train.learning_rate=2e-2"]))
    assert last_probe(changed) == (record, False)
    list(run_pipeline(changed, "plan", SilentReporter(), redo=True))
    again = probe_run(changed, SilentReporter(), budget_s=500)
    assert again.inputs != record.inputs and last_probe(changed) == (again, True)
    assert len(list(folder.glob("probe/half-*"))) == 2 and len(again.parts) == 3
    assert compared_with_evaluation(folder, record) == {}


@pytest.mark.slow
def test_an_interrupted_probe_goes_on_with_the_same_parts_and_asks_nothing_again(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(toml="[curate]\nval_share = 0.2\n")
    run = _planned(folder)
    with pytest.raises(Interrupted):
        probe_run(run, Heard(until="probe: tuning on half"))
    assert last_probe(run) is None
    kept = (folder / "probe" / "parts.json").read_bytes()
    [eighth] = folder.glob(f"probe/eighth-*/*/{ADAPTER_FILE}")
    before = hash_of_file(eighth)
    answers = next((folder / "probe").rglob(Path(RESPONSES).name)).read_bytes()

    monkeypatch.setattr(measuring, "affordable", None)  # whoever chooses again fails
    record = probe_run(run, SilentReporter())
    assert [one.name for one in record.parts] == ["eighth", "quarter", "half"]
    assert (folder / "probe" / "parts.json").read_bytes() == kept
    assert hash_of_file(eighth) == before and len(list(folder.glob("probe/eighth-*"))) == 1
    assert next((folder / "probe").rglob(Path(RESPONSES).name)).read_bytes().startswith(answers)


def test_a_role_without_an_adapter_has_no_tuned_figures(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(TWO_ROLES)
    run = _planned(folder, "train.adapters=per-role")
    found = rows_of(run)
    only = TrialRows([row for row in found.train if row.role == "coder"], found.val)
    monkeypatch.setattr(measuring, "rows_of", lambda _: only)
    record = probe_run(run, SilentReporter())
    half, coders = tuned("half"), sum(row.role == "coder" for row in found.val)
    tester = record.roles["tester"]
    assert tester.summary.arms[half].success is None and tester.predicted is None
    assert tester.recommendation.advice != "tune"
    every = record.roles[EVERY_ROLE].summary.arms[half].success
    assert every is not None and every.n == coders < record.rows


@pytest.mark.slow
def test_other_validation_rows_do_not_resume_the_adapters_of_the_old_ones(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run()
    run = _planned(folder)
    found = rows_of(run)
    probe_run(run, SilentReporter())
    monkeypatch.setattr(measuring, "rows_of", lambda _: TrialRows(found.train, found.val[1:]))
    again = probe_run(run, SilentReporter(), budget_s=599)  # another budget: nothing is fresh
    assert len(again.parts) == 3 and len(list(folder.glob("probe/half-*"))) == 2


def test_parts_beyond_the_budget_are_left_out_and_named(make_run: Make) -> None:
    run = _planned(make_run())
    record = probe_run(run, SilentReporter(), budget_s=1e-9)
    assert record.parts == [] and [one.details["part"] for one in record.left_out] == ["eighth", "quarter", "half"]
    every = record.roles[EVERY_ROLE]
    assert every.predicted is None and "predicted: not known" in (run.root / "probe" / "probe.md").read_text()
    assert every.recommendation.advice in ("cannot_tell", "prompt", "check")


def test_what_cannot_be_probed_is_refused_with_the_remedy(make_run: Make) -> None:
    without = _planned(make_run(toml="[curate]\nval_share = 0.0\n", name="none"))
    with pytest.raises(InputError, match=r"no validation rows.*val_share"):
        probe_run(without, SilentReporter())
    no_go = _planned(make_run(toml="", name="no-go"), "train.warmup_steps=500")
    with pytest.raises(NoGo):
        probe_run(no_go, SilentReporter())


def test_the_record_is_readable_by_programs(make_run: Make) -> None:
    folder = make_run()
    probe_run(_planned(folder), SilentReporter(), budget_s=1e-9)
    read = json.loads((folder / "probe" / "probe.json").read_text())
    assert read["roles"]["all"]["recommendation"]["advice"] and read["format"] == 1
