"""Times the page's server on a run with 10,000 evaluation rows, 10,000 findings and 100,000 points of curves, on a
folder of 100 runs, and on one with 1,000,000 exchanges. The first request of each kind reads the files.

python tools/page_speed.py
"""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

from starlette.testclient import TestClient

from journeyman.ui.app import make_app
from journeyman.ui.context import Context
from journeyman.ui.resources import signatures
from page_runs import write_run
from traffic_runs import write_traffic

ROWS, POINTS, RUNS, EXCHANGES = 10_000, 100_000, 100, 1_000_000


def show(name: str, work: Callable[[str], object], paths: Iterable[str]) -> None:
    times = []
    for path in paths:
        begun = time.perf_counter()
        work(path)
        times.append((time.perf_counter() - begun) * 1000)
    first, *rest = times
    print(f"{name:32} first {first:7.1f} ms   then {statistics.median(rest):6.1f} ms, at most {max(rest):6.1f} ms")


def large(folder: Path) -> None:
    write_run(folder / "run", ROWS, POINTS, findings=ROWS, text="ünï")
    guard, _ = make_app(Context.below(folder), ["127.0.0.1:1"], "t")
    client = TestClient(guard, base_url="http://127.0.0.1:1", headers={"authorization": "Bearer t"})
    run = client.get("/api/runs").json()["runs"][0]["id"]

    def ask(path: str) -> None:
        assert client.get(f"/api/runs/{run}/{path}").status_code == 200, path

    places = range(0, ROWS, 500)
    show("rows, 50 a page", ask, [f"rows?start={at}" for at in places])
    show("rows that tuned failed", ask, [f"rows?arm=2&outcome=fail&start={at}" for at in range(0, 1500, 100)])
    show("rows, search", ask, [f"rows?text=ünï&start={at}" for at in places])
    show("one row with differences", ask, [f"rows/{at}" for at in places])
    show("findings, 50 a page", ask, [f"findings?start={at}" for at in places])
    show("one finding, logged row", ask, [f"findings/{at}" for at in places])
    show("curves, all", ask, ["curves"] * 10)
    show("curves, a part", ask, [f"curves?first={at}&last={at + 5000}" for at in range(0, POINTS - 5000, 9000)])
    show("verdict", ask, ["verdict"] * 10)


def many(folder: Path) -> None:
    for number in range(RUNS):
        write_run(folder / f"run-{number}")
    context = Context.below(folder)
    guard, _ = make_app(context, ["127.0.0.1:1"], "t")
    client = TestClient(guard, base_url="http://127.0.0.1:1", headers={"authorization": "Bearer t"})
    show(f"list of {RUNS} runs", lambda path: client.get(path), ["/api/runs"] * 10)
    show(f"a look for changes, {RUNS} runs", lambda path: signatures(context), [""] * 10)


def busy(folder: Path) -> None:
    file = write_traffic(folder / "run", 5000, rows=False) / "routing" / "exchanges.jsonl"
    some = file.read_bytes()
    count = some.count(b"\n")
    with file.open("ab") as out:
        for _ in range(EXCHANGES // count):
            out.write(some)
    guard, _ = make_app(Context.below(folder), ["127.0.0.1:1"], "t")
    client = TestClient(guard, base_url="http://127.0.0.1:1", headers={"authorization": "Bearer t"})
    run = client.get("/api/runs").json()["runs"][0]["id"]
    begun, requests, read = time.perf_counter(), 0, {"complete": False}
    while not read["complete"]:
        read, requests = client.get(f"/api/runs/{run}/traffic").json()["read"], requests + 1
    took, size = time.perf_counter() - begun, file.stat().st_size / 1e6
    print(f"{EXCHANGES:,} exchanges ({size:.0f} MB) read in {took:.1f} s, {requests} requests")

    def ask(path: str) -> None:
        assert client.get(f"/api/runs/{run}/{path}").status_code == 200, path

    show("traffic", ask, ["traffic"] * 10)
    show("exchanges, 50 a page", ask, [f"exchanges?start={at}" for at in range(0, EXCHANGES, EXCHANGES // 10)])
    show("exchanges that failed", ask, [f"exchanges?failed=yes&start={at}" for at in range(0, 10_000, 1000)])


def main() -> None:
    with ExitStack() as stack:
        for work in (large, many, busy):
            work(Path(stack.enter_context(tempfile.TemporaryDirectory())))
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
