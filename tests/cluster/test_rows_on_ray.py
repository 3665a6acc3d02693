"""ingest and curate on a Ray cluster: the same files, byte for byte, as on this machine, whatever dies meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

from ray.cluster_utils import Cluster

import journeyman
from conftest import StopsAfter, log_row
from file_hashes import file_hashes
from journeyman.cluster.nodes import check_nodes
from journeyman.cluster.ray_executor import RayExecutor
from journeyman.config import Config
from journeyman.errors import Interrupted, UsageError
from journeyman.models.gguf_file import GgufFile
from journeyman.parallel import HERE, Executor
from journeyman.protocols import Reporter, SilentReporter
from journeyman.sources.files import sources_of
from journeyman.stages.curate import curate
from journeyman.stages.ingest import ingest
from ray_cluster import add_node, ray_cluster

pytestmark = pytest.mark.slow
ROWS, CONFIG = 600, Config()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ray_cluster(nodes=2) as made:
        yield made


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    smaller_batches(monkeypatch)


def smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some dozens of batches, all for workers."""
    for stage in ("journeyman.stages.ingest", "journeyman.curation.passes"):
        monkeypatch.setattr(f"{stage}._WORTH_WORKERS", 0)
    for name in ("stages.ingest._BATCH_BYTES", "curation.row_batches.BATCH_BYTES"):
        monkeypatch.setattr(f"journeyman.{name}", 20_000)
    monkeypatch.setattr("journeyman.curation.comparing._WORTH_WORKERS", 0)
    monkeypatch.setattr("journeyman.curation.near_duplicates._MOST_PAIRS", 20)
    monkeypatch.setattr("journeyman.curation.duplicates._CHUNK", 500)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Repeated and nearly repeated tasks, failures, secrets, and lines that are rejected."""
    lines = []
    for number in range(ROWS):
        row = log_row(number % 450, ["coder", "tester", "writer"][number % 3])
        row["execution"]["output"] += f" see amy.{number}@corp.com, {'x y z ' * (number % 40)}"
        row["execution"]["status"] = "failure" if number % 31 == 0 else "success"
        lines.append("{" if number % 50 == 7 else json.dumps(row))
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def run(
    log: Path, out: Path, base: Path, executor: Executor, reporters: tuple[Reporter, Reporter] | None = None
) -> Path:
    """Both stages; each again after it was interrupted."""
    for stage in ("ingest", "curate"):
        (out / stage).mkdir(parents=True, exist_ok=True)
    rows = out / "ingest" / "interactions.jsonl.zst"
    first, second = reporters or (SilentReporter(), SilentReporter())
    for reporter in (first, SilentReporter()):
        try:
            read = ingest(sources_of([log]), CONFIG.data, CONFIG.redact, out / "ingest", reporter, executor=executor)
            break
        except Interrupted:
            assert (out / "ingest" / ".progress.json").is_file()
    for reporter in (second, SilentReporter()):
        try:
            made = curate(rows, CONFIG, GgufFile(base), out / "curate", reporter, executor)
            break
        except Interrupted:
            assert (out / "curate" / "scratch").is_dir()
    (out / "ingest.json").write_text(read.model_dump_json())
    (out / "curate.json").write_text(made.model_dump_json())
    return out


@pytest.fixture(scope="module")
def local(log: Path, tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with pytest.MonkeyPatch.context() as patch:  # the bytes of compressed rows depend on where batches end
        smaller_batches(patch)
        yield reference(log, tiny_gguf, tmp_path_factory)


def reference(log: Path, tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    made = file_hashes(run(log, tmp_path_factory.mktemp("local"), tiny_gguf, HERE))
    assert {"ingest/rejected.jsonl", "curate/train.jsonl", "curate/sealed/test.jsonl", "curate/dropped.jsonl"} <= set(
        made
    )
    return made


def test_the_cluster_makes_the_same_files(
    cluster: Cluster, log: Path, local: dict[str, str], tiny_gguf: Path, tmp_path: Path
) -> None:
    with RayExecutor() as executor:
        assert file_hashes(run(log, tmp_path, tiny_gguf, executor)) == local


class KillsANode(SilentReporter):
    """Kills a node after a few batches of a stage."""

    def __init__(self, cluster: Cluster, node: Any) -> None:
        self.left, self.cluster, self.node = 5, cluster, node

    def advance(self, done: float, note: str = "") -> None:
        self.left -= 1
        if self.left == 0:
            self.cluster.remove_node(self.node, allow_graceful=False)


def test_a_node_that_is_lost_in_the_middle_changes_nothing(
    cluster: Cluster, log: Path, local: dict[str, str], tiny_gguf: Path, tmp_path: Path
) -> None:
    kills = KillsANode(cluster, add_node(cluster)), KillsANode(cluster, add_node(cluster))
    with RayExecutor() as executor:
        assert file_hashes(run(log, tmp_path, tiny_gguf, executor, kills)) == local
    assert [one.left <= 0 for one in kills] == [True, True]


def test_a_run_that_was_stopped_goes_on_where_it_was(
    cluster: Cluster, log: Path, local: dict[str, str], tiny_gguf: Path, tmp_path: Path
) -> None:
    assert file_hashes(run(log, tmp_path, tiny_gguf, RayExecutor(), (StopsAfter(5), StopsAfter(5)))) == local


def test_what_a_cluster_has_begun_this_machine_finishes(
    cluster: Cluster, log: Path, local: dict[str, str], tiny_gguf: Path, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        (tmp_path / "ingest").mkdir()
        ingest(
            sources_of([log]), CONFIG.data, CONFIG.redact, tmp_path / "ingest", StopsAfter(5), executor=RayExecutor()
        )
    assert file_hashes(run(log, tmp_path, tiny_gguf, HERE)) == local


def test_workers_need_no_file_of_the_base(
    cluster: Cluster, log: Path, local: dict[str, str], tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On other machines there is none, or another one at the same path."""
    moved = tmp_path / "base" / "tiny.gguf"
    moved.parent.mkdir()
    moved.write_bytes(tiny_gguf.read_bytes())
    base = GgufFile(moved)
    base.tokenizer  # noqa: B018
    moved.write_bytes(b"another file")
    monkeypatch.setattr(sys.modules[__name__], "GgufFile", lambda path: base)
    assert file_hashes(run(log, tmp_path / "run", moved, RayExecutor())) == local


WITHOUT_RAY = """
import sys
import time
import journeyman.stage_calls, journeyman.cli.app, journeyman.stages.ingest, journeyman.stages.curate
from journeyman.cluster.machines import machines_of
from journeyman.config import ClusterConfig
with machines_of(ClusterConfig(), print) as machines:
    machines.executor
print(sorted(name for name in sys.modules if name.split(".")[0] == "ray"))
"""


def test_without_the_option_nothing_imports_ray() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_RAY], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def slowly(_: int, batch: int) -> int:
    time.sleep(0.05)
    return batch


def test_a_node_with_other_files_of_journeyman_is_refused_by_its_name(cluster: Cluster, tmp_path: Path) -> None:
    """The node imports a copy of the source in which one file differs, and the version number does not."""
    source = Path(journeyman.__file__).parent
    shutil.copytree(source, tmp_path / "src" / "journeyman", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "src" / "journeyman" / "ruleset.py").open("a") as file:
        file.write("# another rule\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{tmp_path / 'src'}{os.pathsep}{os.environ['PYTHONPATH']}")
        node = add_node(cluster)
    try:
        with pytest.raises(UsageError, match=r"node \S+ \(\S+\) has journeyman's files with hash \w+ instead of \w+"):
            check_nodes()
        with pytest.raises(UsageError, match="has journeyman's files with hash"):  # as if it had joined after the check
            list(RayExecutor().map_batches(slowly, int, range(100_000)))
    finally:
        cluster.remove_node(node, allow_graceful=False)
