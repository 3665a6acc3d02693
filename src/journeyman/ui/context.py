"""What the resources share: where the runs are, and what was read of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from starlette.requests import Request

from journeyman.ui.answers import Answers
from journeyman.ui.compared import Compared
from journeyman.ui.curves import Curves
from journeyman.ui.finding import RunFolder, Runs
from journeyman.ui.findings import Findings
from journeyman.ui.indexes import Kept
from journeyman.ui.manifests import Manifests
from journeyman.ui.traffic.state import KnownTraffic


@dataclass
class Context:
    """The state of the page's server."""

    runs: Runs
    manifests: Manifests = field(default_factory=Manifests)
    compared: Compared = field(default_factory=Compared)
    findings: Kept[Findings] = field(default_factory=lambda: Kept(4))
    answers: Kept[Answers] = field(default_factory=lambda: Kept(4))
    curves: Kept[Curves] = field(default_factory=lambda: Kept(8))
    traffic: KnownTraffic = field(default_factory=KnownTraffic)
    bases: Kept[tuple[str | None, str]] = field(default_factory=lambda: Kept(500))

    @classmethod
    def below(cls, folder: Path) -> Context:
        """For the runs below a folder."""
        return cls(Runs(folder))


def context_of(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


def run_of(request: Request) -> RunFolder:
    """The run that the request's path names; raises NotThere."""
    return context_of(request).runs.of(request.path_params["run"])
