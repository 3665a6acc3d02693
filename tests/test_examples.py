"""The files in examples/ are well-formed, and every command that they contain exists."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import journeyman

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SBATCH = EXAMPLES / "slurm" / "journeyman.sbatch"
IMAGE = f"registry.example/journeyman:{journeyman.__version__}"
KINDS = {
    "PersistentVolumeClaim": "v1",
    "Job": "batch/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "RayJob": "ray.io/v1",
}
SBATCH_OPTIONS = {
    "cpus-per-task", "gpus-per-node", "job-name", "mem", "nodes", "ntasks-per-node", "open-mode", "output", "requeue",
    "signal", "time",
}  # fmt: skip
INSTRUCTIONS = {"FROM", "COPY", "RUN", "ENV", "USER", "WORKDIR", "ENTRYPOINT", "CMD"}


def objects(name: str) -> dict[str, Any]:
    """The Kubernetes objects of a file, by kind."""
    loaded = list(yaml.safe_load_all((EXAMPLES / "kubernetes" / name).read_text()))
    assert len({one["kind"] for one in loaded}) == len(loaded)
    return {one["kind"]: one for one in loaded}


def pods() -> Iterator[Any]:
    yield objects("job.yaml")["Job"]["spec"]["template"]
    cluster = objects("rayjob.yaml")["RayJob"]["spec"]["rayClusterSpec"]
    yield cluster["headGroupSpec"]["template"]
    for group in cluster["workerGroupSpecs"]:
        yield group["template"]


def commands() -> Iterator[list[str]]:
    """The arguments of every journeyman in the examples and in the guide to them."""
    job = objects("job.yaml")["Job"]["spec"]["template"]["spec"]["containers"][0]
    assert job["command"] == ["journeyman"]
    yield job["args"]
    texts = [one.read_text() for one in EXAMPLES.rglob("*.*") if one.suffix != ".md"]
    texts += re.findall(r"^```\w*\n(.*?)^```$", (ROOT / "docs" / "scale.md").read_text(), re.DOTALL | re.MULTILINE)
    for text in texts:
        for line in text.splitlines():
            line = re.sub(r"^# {5}|(^|\s)#.*", "", line)  # in comments, commands are indented
            if found := re.search(r"journeyman(?::\S+)? ([a-z][^&|;]*)", line):
                yield shlex.split(found[1])


def test_every_command_line_is_one_that_journeyman_takes() -> None:
    import typer

    from journeyman.cli.app import app

    known: Any = typer.main.get_command(app)
    lines = list(commands())
    for command, *arguments in lines:
        known.commands[command].make_context(command, arguments).close()  # parses, and runs nothing
    assert ["run", "--ray", "--dir", "$folder"] in lines  # Slurm
    assert ["run", "--ray", "--dir", "/work/my-run"] in lines  # KubeRay
    assert ["status", "--dir", "/work/my-run"] in lines and ["run", "--dir", "my-run"] in lines


def test_objects_have_the_versions_and_fields_that_kubernetes_needs() -> None:
    for name in ("job.yaml", "rayjob.yaml"):
        for kind, one in objects(name).items():
            assert one["apiVersion"] == KINDS[kind] and one["metadata"]["name"] and set(one) <= {
                "apiVersion", "kind", "metadata", "spec",
            }  # fmt: skip
    assert objects("job.yaml")["Job"]["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    spec = objects("rayjob.yaml")["RayJob"]["spec"]
    assert spec["entrypoint"].startswith("journeyman run --ray ") and spec["shutdownAfterJobFinishes"]
    assert all({"groupName", "minReplicas", "maxReplicas", "template"} <= set(one) for one in group_specs(spec))


def group_specs(spec: Any) -> Any:
    return spec["rayClusterSpec"]["workerGroupSpecs"]


def test_pods_have_no_rights_that_they_do_not_need() -> None:
    seen = 0
    for pod in pods():
        spec, seen = pod["spec"], seen + 1
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 10001
        assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        assert spec["automountServiceAccountToken"] is False
        volumes = {one["name"] for one in spec["volumes"]}
        for container in spec["containers"]:
            assert container["image"] == IMAGE, "set the version in examples/"
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {one["name"] for one in container["volumeMounts"]} <= volumes
            assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]
    assert seen == 3


def test_the_cluster_asks_for_a_token_and_is_reached_by_its_own_pods_only() -> None:
    found = objects("rayjob.yaml")
    cluster = found["RayJob"]["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"} and cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    policy = found["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    own = {"podSelector": policy["podSelector"]}
    assert policy["ingress"][0] == {"from": [own]} and policy["egress"][0] == {"to": [own]}
    assert [one["port"] for one in policy["ingress"][1]["ports"]] == [8265]
    for pod in list(pods())[1:]:
        assert policy["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    pinned = re.search(r"^ray==(\S+)", (ROOT / "requirements" / "dev.txt").read_text(), re.MULTILINE)
    assert pinned and cluster["rayVersion"] == pinned[1]
    assert f'"ray[default]=={pinned[1]}"' in (EXAMPLES / "README.md").read_text()


@pytest.mark.parametrize("name", ["Dockerfile.cpu", "Dockerfile.cuda"])
def test_images_are_pinned_and_run_without_root(name: str) -> None:
    text = re.sub(r"^\s*#.*\n", "", (EXAMPLES / "containers" / name).read_text(), flags=re.MULTILINE)
    steps = [line.split(maxsplit=1) for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    assert {one for one, _ in steps} <= INSTRUCTIONS
    bases = [rest for one, rest in steps if one == "FROM"]
    assert len(bases) == 2 and all(re.match(r"python:\d+\.\d+\.\d+-\w+", one) for one in bases)
    user = [rest for one, rest in steps if one == "USER"][-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert [rest for one, rest in steps if one == "ENTRYPOINT"] == ['["journeyman"]']
    installs = [part for one, rest in steps if one == "RUN" for part in rest.split("&&") if "pip install" in part]
    assert len(installs) == 1 and "--no-index" in installs[0]  # nothing is downloaded
    assert "RAY_USAGE_STATS_ENABLED=0" in text and "://" not in text


def test_the_slurm_script_has_known_options_and_is_shell_and_python() -> None:
    text = SBATCH.read_text()
    options = re.findall(r"^#+SBATCH --([a-z-]+)", text, re.MULTILINE)
    assert set(options) == SBATCH_OPTIONS and len(options) == len(set(options))
    header, _, body = text.partition("\nset -euo pipefail\n")
    assert "#SBATCH" not in body and all(not line or line.startswith("#") for line in header.splitlines())
    subprocess.run(["bash", "-n", SBATCH], check=True)
    (inner,) = re.findall(r"<<'PYTHON'\n(.*?)^PYTHON$", text, re.DOTALL | re.MULTILINE)
    ast.parse(inner)


@pytest.fixture
def slurm(tmp_path: Path) -> Path:
    """A folder with programs that write down how they are called, in place of Slurm, Ray and journeyman."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, body in {
        "srun": "exec sleep 60",
        "scontrol": "",
        "python": 'if [ "$1" = -c ]; then echo secret; else cat > /dev/null; fi',
        "journeyman": 'trap \'echo saved >> "$CALLS"; exit 130\' TERM; touch "$STARTED"; '
        "for _ in {1..1200}; do sleep 0.05; done",
    }.items():
        place = programs / name
        place.write_text(f'#!/bin/bash\necho "{name} $*" "token=${{RAY_AUTH_TOKEN:-}}" >> "$CALLS"\n{body}\n')
        place.chmod(0o755)
    (programs / "activate").write_text("")
    return tmp_path


def start(slurm: Path, nodes: int) -> tuple[subprocess.Popen[bytes], Path]:
    """The script as the batch step of a job, once journeyman runs in it; and the calls so far."""
    environment = {
        "PATH": f"{slurm / 'bin'}:{os.environ['PATH']}",
        "HOME": str(slurm),
        "JOURNEYMAN_ENVIRONMENT": str(slurm),
        "CALLS": str(slurm / "calls"),
        "STARTED": str(slurm / "started"),
        "SLURM_JOB_ID": "123456",
        "SLURM_NNODES": str(nodes),
        "SLURM_CPUS_PER_TASK": "16",
        "SLURMD_NODENAME": "node1",
    }
    process = subprocess.Popen(["bash", SBATCH, slurm / "my-run"], env=environment)
    for _ in range(600):
        if (slurm / "started").exists():
            return process, slurm / "calls"
        assert process.poll() is None
        time.sleep(0.05)
    raise AssertionError("journeyman was not started")


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_before_the_time_limit_the_run_saves_its_state_and_the_job_is_put_back(slurm: Path) -> None:
    process, calls = start(slurm, 3)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=60) == 130
    lines = calls.read_text().splitlines()
    head, others = sorted((one for one in lines if one.startswith("srun")), key=lambda one: "--head" not in one)
    address = re.search(r"--node-ip-address=(\S+) --port=(23456) --include-dashboard=false", head)
    assert "--nodelist=node1" in head and address and "token=secret" in head
    assert "--nodes=2 --ntasks=2 --exclude=node1 " in others
    assert f"ray start --block --address={address[1]}:23456 --num-cpus=16 --num-gpus=0 " in others
    assert any(one.startswith(f"journeyman run --ray --dir {slurm / 'my-run'}") for one in lines)
    assert "saved" in lines and [one for one in lines if one.startswith("scontrol")] == [
        "scontrol requeue 123456 token=secret"
    ]


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_a_job_that_is_cancelled_saves_its_state_and_does_not_come_back(slurm: Path) -> None:
    process, calls = start(slurm, 1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130
    lines = calls.read_text().splitlines()
    assert "saved" in lines and sum(one.startswith("srun") for one in lines) == 1
    assert not any(one.startswith("scontrol") for one in lines)
