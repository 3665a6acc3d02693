"""What can go wrong with a download: one sentence and a remedy each, nothing wrong on the disk, and it can continue."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from huggingface_hub import constants

from faults import ENV, wait_until
from hub_reporter import Recorder
from hub_server import Fault, HubServer, Seen, sha256_of
from journeyman.errors import DiskFull, InputError, Interrupted, JourneymanError, UsageError
from journeyman.locking import locked
from journeyman.models.names import NotDownloaded
from journeyman.models.opening import find_base

REPO = "someone/coder-GGUF"
NAME = f"{REPO}:Q4_K_M"
DATA = bytes(range(256)) * 12_000
"""3 MB: several pieces of a connection."""


@pytest.fixture
def commit(hub: HubServer) -> str:
    return hub.add(REPO, {"m-Q4_K_M.gguf": DATA}, "v1")


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """The repo's folder in the cache."""
    return tmp_path / "home/.cache/journeyman/hub" / f"models--{REPO.replace('/', '--')}"


def find(folder: Path, name: str = NAME, reporter: Recorder | None = None) -> Path:
    return find_base(name, folder, reporter or Recorder())


def at(server: str, *faults: Fault, method: str = "GET", path: str = "") -> Callable[[Seen], Fault | None]:
    """The faults, one for each such request in turn; the last one stays."""
    left = list(faults)

    def fault(seen: Seen) -> Fault | None:
        if (seen.server, seen.method) != (server, method) or path not in seen.path:
            return None
        return left.pop(0) if len(left) > 1 else left[0]

    return fault


OK = Fault()

# --- what the hub refuses ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "token", "what", "remedy"),
    [
        ("no/such", "", "has no repo of this name that can be read without a token", "if the repo is private, log in"),
        ("no/such", "hf_mine", "has no repo of this name that your token may read", "Check the spelling"),
        ("my/private", "", "has no repo of this name that can be read without", "`hf auth login`, or set HF_TOKEN"),
        ("my/private", "hf_other", "has no repo of this name that your token may read", "Check the spelling"),
        (f"{REPO}@v9:Q4_K_M", "", "has this repo, but no revision 'v9'", "Name a branch, tag or commit"),
        (f"{REPO}/n.gguf", "", "has no n.gguf; it has m-Q4_K_M.gguf (0.00 GB)", f"Name one: {REPO}/m-Q4_K_M.gguf"),
        ("my/gated", "", "a gated model", "Ask for access on HUB/my/gated; then log in with `hf auth login`, or set"),
        ("my/gated", "hf_other", "to which the account of your token has no access", "Ask for access on HUB/my/gated"),
        (NAME, "hf_expired", "rejects your token", "Make a new one on HUB/settings/tokens"),
    ],
)
def test_what_the_hub_refuses(
    name: str, token: str, what: str, remedy: str, hub: HubServer, commit: str, tmp_path: Path, shelf: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    hub.add("my/private", {"m.gguf": b"1"}, private=True)
    hub.add("my/gated", {"m.gguf": b"1"}, gated=True)
    hub.tokens |= {"hf_mine": {"my/private", "my/gated"}, "hf_other": set()}
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    reporter = Recorder()
    with pytest.raises(InputError) as raised:
        find(tmp_path, name, reporter)
    assert what in raised.value.what.replace(hub.endpoint, "HUB")
    assert remedy in raised.value.remedy.replace(hub.endpoint, "HUB")
    assert ("\n" not in str(raised.value) and token not in str(raised.value).replace("token", "")) or not token
    assert hub.asked("storage") == [] and reporter.said == [] and not list(shelf.glob("pins/*"))
    assert shelf.parent.is_dir() == (name in ("my/gated", f"{REPO}/n.gguf")), "no folder for what is not there"
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    if name in ("my/private", "my/gated"):
        assert find(tmp_path, name).read_bytes() == b"1"


@pytest.mark.parametrize(
    ("fault", "tries", "what"),
    [
        (Fault(429, {"Retry-After": "3600"}), 1, r"limits the rate of requests and asks to wait 3600 s\. Run it again"),
        (Fault(429, {"RateLimit": '"api";r=0;t=299'}), 1, r"and asks to wait 299 s\. Run it again later; .* HF_TOKEN"),
        (Fault(429), 5, "limits the rate of requests"),
        (Fault(503), 5, "answers with status 503. Run it again later"),
        (Fault(500), 5, "answers with status 500"),
        (Fault(403), 1, "forbids access to this repo"),
        (Fault(418), 1, "answers with status 418"),
    ],
)
def test_statuses(fault: Fault, tries: int, what: str, hub: HubServer, commit: str, tmp_path: Path) -> None:
    for place in ("/api/models/", "/resolve/"):
        hub.seen.clear()
        hub.fault = at("hub", fault, path=place)
        with pytest.raises(InputError, match=what):
            find(tmp_path)
        assert len([one for one in hub.asked("hub") if place in one.path]) == tries or place == "/resolve/"


def test_errors_that_pass_are_waited_for(hub: HubServer, commit: str, tmp_path: Path) -> None:
    passing = [at("hub", Fault(503), Fault(429, {"Retry-After": "0"}), OK, path="/api/"), at("storage", Fault(502), OK)]
    hub.fault = lambda seen: next((found for one in passing if (found := one(seen))), None)
    assert find(tmp_path).read_bytes() == DATA


def test_no_network(hub: HubServer, commit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(NotDownloaded, match=r"http://127\.0\.0\.1:9 cannot be reached \(ConnectError") as raised:
        find(tmp_path)
    assert "Check the network, the proxy (HTTPS_PROXY) and HF_ENDPOINT" in raised.value.remedy
    assert f"there is no file {tmp_path / NAME}" in raised.value.what


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline(variable: str, hub: HubServer, commit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(NotDownloaded, match=r"HF_HUB_OFFLINE forbids downloading it.*Unset HF_HUB_OFFLINE"):
        find(tmp_path)
    monkeypatch.delenv(variable)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # as if it had been set when the library was loaded
    with pytest.raises(NotDownloaded, match="HF_HUB_OFFLINE forbids"):
        find(tmp_path)
    assert hub.seen == []


@pytest.mark.parametrize(
    "endpoint", ["hub.local", "file:///tmp", "https://", "http://[x", "http://a:99999", "http://a\x1b[2J"]
)
def test_an_endpoint_that_is_none(
    endpoint: str, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(UsageError, match=r"HF_ENDPOINT=.*not the URL of a server") as raised:
        find(tmp_path)
    assert "\x1b" not in str(raised.value)


@pytest.mark.parametrize("name", ["a/b--c", "a--b/c", "a/b..c", f"a/{'b' * 97}", "a/b."])
def test_names_that_no_repo_has(name: str, hub: HubServer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not the name of a repo"):
        find(tmp_path, name)
    assert hub.seen == []


@pytest.mark.parametrize("token", ["hf_secret\u00e9", "hf_secret\x1bb"])
def test_a_token_that_is_none(
    token: str, hub: HubServer, commit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UsageError, match="HF_TOKEN: contains characters that no token has") as raised:
        find(tmp_path)
    assert "secret" not in str(raised.value) and hub.seen == []


@pytest.mark.parametrize(
    "body", [b"<html>Log in to the guest network</html>", b"[]", b"{}", b'{"id": "a/b", "siblings": 3}']
)
def test_a_server_that_is_no_hub(body: bytes, hub: HubServer, commit: str, tmp_path: Path) -> None:
    hub.fault = at("hub", Fault(200, body=body), path="/api/")
    with pytest.raises(InputError, match="does not answer as a model hub"):
        find(tmp_path)


def test_silence_is_an_error(hub: HubServer, commit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.setattr(constants, name, 0.05)
    for server, path in (("hub", "/api/"), ("storage", "")):
        end = Event()
        hub.fault = at(server, Fault(after=3, stall=end), path=path)
        with pytest.raises(NotDownloaded, match=r"cannot be reached \(ReadTimeout"):
            find(tmp_path)
        end.set()
    hub.fault = lambda seen: None
    assert find(tmp_path).read_bytes() == DATA


# --- interruptions ----------------------------------------------------------------------------------


def test_broken_connections_are_resumed(hub: HubServer, commit: str, tmp_path: Path) -> None:
    hub.fault = at("storage", Fault(after=1_000_000), Fault(after=0), Fault(after=500_000), OK)
    reporter = Recorder()
    assert find(tmp_path, reporter=reporter).read_bytes() == DATA
    ranges = [one.range for one in hub.asked("storage")]
    assert ranges == [None, "bytes=1000000-", "bytes=1000000-", "bytes=1500000-"]
    assert reporter.done == sorted(reporter.done)


def test_a_server_that_breaks_off_every_connection_is_an_error(
    hub: HubServer, commit: str, tmp_path: Path, shelf: Path
) -> None:
    hub.fault = at("storage", Fault(after=100))
    with pytest.raises(NotDownloaded, match="cannot be reached"):
        find(tmp_path)
    assert [one.stat().st_size for one in shelf.glob("blobs/*")] == [500], "five tries"
    assert [one.name for one in shelf.glob("blobs/*")] == [f"{sha256_of(DATA)}.incomplete"]
    hub.fault = lambda seen: None
    reporter = Recorder()
    assert find(tmp_path, reporter=reporter).read_bytes() == DATA
    assert reporter.said[0].endswith("; 500 B of it are already there") and reporter.done[0] > 500


def test_a_bad_line_is_not_given_up_while_it_brings_something(hub: HubServer, commit: str, tmp_path: Path) -> None:
    hub.fault = at("storage", Fault(after=250_000))
    assert find(tmp_path).read_bytes() == DATA
    assert len(hub.asked("storage")) == -(-len(DATA) // 250_000)


def test_kill_9_in_the_middle_and_only_the_rest_is_requested(
    hub: HubServer, commit: str, tmp_path: Path, shelf: Path
) -> None:
    half, end = 3_000, Event()  # less than a buffer of the process: it must not die with it
    hub.fault = at("storage", Fault(after=half, stall=end))
    code = (
        "import sys; from pathlib import Path; from journeyman.models.opening import find_base; "
        "from journeyman.protocols import SilentReporter; "
        "print(find_base(sys.argv[1], Path(sys.argv[2]), SilentReporter()), 'hf_xet' in sys.modules)"
    )
    env = {**ENV, "HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.endpoint, "HF_HUB_DOWNLOAD_TIMEOUT": "300"}
    arguments = [sys.executable, "-c", code, NAME, str(tmp_path)]
    child = subprocess.Popen(arguments, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    part = shelf / "blobs" / f"{sha256_of(DATA)}.incomplete"
    try:
        wait_until(lambda: part.is_file() and part.stat().st_size == half, child, timeout_s=40)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        end.set()
    assert part.stat().st_size == half and not list(shelf.glob("snapshots/*"))
    hub.add(REPO, {"m-Q4_K_M.gguf": b"a newer model"})
    hub.fault, before = (lambda seen: None), len(hub.seen)
    done = subprocess.run(arguments, env=env, capture_output=True, text=True, timeout=120, check=True)
    path, xet = done.stdout.split()
    assert Path(path).read_bytes() == DATA and Path(path).parent.name == commit and xet == "False"
    asked = hub.seen[before:]
    assert [(one.server, one.range) for one in asked] == [("hub", f"bytes={half}-"), ("storage", f"bytes={half}-")]
    assert not part.exists()


def test_a_stop_keeps_what_is_there(hub: HubServer, commit: str, tmp_path: Path, shelf: Path) -> None:
    with pytest.raises(Interrupted, match="Run it again to continue"):
        find(tmp_path, reporter=Recorder(stop_after=1_000_000))
    (part,) = shelf.glob("blobs/*.incomplete")
    there = part.stat().st_size
    assert 1_000_000 <= there < len(DATA)
    assert find(tmp_path).read_bytes() == DATA and hub.asked("storage")[-1].range == f"bytes={there}-"


def test_a_stop_ends_a_wait(hub: HubServer, commit: str, tmp_path: Path) -> None:
    hub.fault = at("storage", Fault(after=1_000_000), Fault(503, {"Retry-After": "50"}))
    with pytest.raises(Interrupted):
        find(tmp_path, reporter=Recorder(stop_after=1_000_000))


def test_two_at_once(hub: HubServer, commit: str, tmp_path: Path, shelf: Path) -> None:
    with locked(shelf), pytest.raises(UsageError, match=f"another journeyman is downloading {REPO}. Wait for it"):
        find(tmp_path)
    assert hub.asked("storage") == [] and find(tmp_path).read_bytes() == DATA


# --- wrong bytes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["m-Q4_K_M.gguf", "config.json"])
def test_wrong_bytes_are_refused_and_removed(file: str, hub: HubServer, tmp_path: Path) -> None:
    good = {"m-Q4_K_M.gguf": DATA, "config.json": b'{"a": 1}', "model.safetensors": b"w"}
    hub.add("a/b", good)
    name = "a/b" if file == "config.json" else "a/b:Q4_K_M"
    wrong = Fault(body=good[file][:-1] + b"!")
    hub.fault = lambda seen: wrong if "resolve/" not in seen.path and seen.method == "GET" and (
        seen.server == "storage" if file.endswith("gguf") else seen.path.endswith(file)
    ) else None  # fmt: skip
    with pytest.raises(InputError, match=rf"{file} arrived with the hash \w+…, and the hub lists \w+…\. Run it again"):
        find(tmp_path, name)
    blobs = list((tmp_path / "home/.cache/journeyman/hub/models--a--b/blobs").iterdir())
    assert all(one.suffix != ".incomplete" for one in blobs)
    with pytest.raises(NotDownloaded):
        find_base(name, tmp_path)
    hub.fault = lambda seen: None
    assert find(tmp_path, name).exists()


def test_wrong_bytes_of_an_earlier_try_are_downloaded_again(
    hub: HubServer, commit: str, tmp_path: Path, shelf: Path
) -> None:
    part = shelf / "blobs" / f"{sha256_of(DATA)}.incomplete"
    for there in (b"wrong" * 1000, DATA + b"more", b"x" * len(DATA)):
        shutil.rmtree(shelf, ignore_errors=True)
        part.parent.mkdir(parents=True)
        part.write_bytes(there)
        assert find(tmp_path).read_bytes() == DATA
    ranges = [one.range for one in hub.asked("storage")]
    assert ranges == ["bytes=5000-", None, None, None]


def test_a_server_without_ranges_starts_again(hub: HubServer, commit: str, tmp_path: Path) -> None:
    hub.fault = at("storage", Fault(after=1_000_000), Fault(no_ranges=True))
    assert find(tmp_path).read_bytes() == DATA
    assert [one.range for one in hub.asked("storage")] == [None, "bytes=1000000-"]


def test_another_part_than_asked_for_is_not_appended(hub: HubServer, commit: str, tmp_path: Path) -> None:
    other = {"Content-Range": f"bytes 7-{len(DATA) - 1}/{len(DATA)}", "Content-Length": "3"}
    hub.fault = at("storage", Fault(after=1_000_000), Fault(206, other, body=b"abc"))
    with pytest.raises(NotDownloaded, match="another part of the file"):
        find(tmp_path)
    hub.fault = lambda seen: None
    assert find(tmp_path).read_bytes() == DATA


def test_more_bytes_than_listed_are_not_stored(hub: HubServer, commit: str, tmp_path: Path, shelf: Path) -> None:
    hub.fault = at("storage", Fault(body=DATA * 2))
    with pytest.raises(InputError, match="more than the 3,072,000 bytes that it lists"):
        find(tmp_path)
    assert all(one.stat().st_size <= len(DATA) for one in shelf.glob("blobs/*"))


def test_two_hashes_for_a_file(hub: HubServer, commit: str, tmp_path: Path) -> None:
    other = {"X-Linked-Etag": f'"{"0" * 64}"', "X-Repo-Commit": commit, "Location": f"{hub.storage}/{sha256_of(DATA)}"}
    hub.fault = at("hub", Fault(302, other), method="HEAD")
    with pytest.raises(InputError, match="the hub names two hashes for m-Q4_K_M"):
        find(tmp_path)
    assert hub.asked("storage") == []


def test_a_commit_that_is_gone(hub: HubServer, commit: str, tmp_path: Path, shelf: Path) -> None:
    hub.fault = at("storage", Fault(404))
    with pytest.raises(InputError, match=r"has no file 'm-Q4_K_M\.gguf' at 'main'"):
        find(tmp_path)
    hub.repos.clear()
    new = hub.add(REPO, {"m-Q4_K_M.gguf": b"rewritten"})
    hub.fault = lambda seen: None
    with pytest.raises(InputError, match="no longer has the commit that it was pinned to") as raised:
        find(tmp_path)
    found = re.search(r"Remove (\S+) to", raised.value.remedy)
    assert found is not None
    Path(found[1]).unlink()
    assert find(tmp_path).parent.name == new


def test_a_damaged_record(hub: HubServer, commit: str, tmp_path: Path, shelf: Path) -> None:
    find(tmp_path)
    (record,) = shelf.glob("pins/*")
    for text in ("", "{", "[]", '{"repo": 3}', record.read_text().replace(commit, "../../../x")):
        record.write_text(text)
        with pytest.raises(InputError, match=re.escape(str(record))) as raised:
            find_base(NAME, tmp_path)
        assert raised.value.remedy.startswith(f"Remove {record}")


# --- disks ------------------------------------------------------------------------------------------


def test_a_disk_without_the_space_is_refused_before_the_first_byte(
    hub: HubServer, commit: str, tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10**9, 0, len(DATA) - 1))
    reporter = Recorder()
    with pytest.raises(DiskFull, match=r"needs 3\.07 MB, and .* has 3\.07 MB free.*set XDG_CACHE_HOME"):
        find(tmp_path, reporter=reporter)
    assert reporter.said == [] and hub.asked("storage") == []
    (shelf / "blobs").mkdir()
    (shelf / "blobs" / f"{sha256_of(DATA)}.incomplete").write_bytes(DATA[:1])
    assert find(tmp_path).read_bytes() == DATA, "only the rest needs space"


def test_a_disk_that_fills_up_in_the_middle(hub: HubServer, commit: str, tmp_path: Path, shelf: Path) -> None:
    part = shelf / "blobs" / f"{sha256_of(DATA)}.incomplete"
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")
    with pytest.raises(DiskFull, match="the disk is full"):
        find(tmp_path)
    part.unlink()
    assert find(tmp_path).read_bytes() == DATA


def test_a_cache_that_cannot_be_written_to(hub: HubServer, commit: str, tmp_path: Path) -> None:
    (tmp_path / "home" / ".cache").write_text("a file")
    with pytest.raises(JourneymanError, match=r"\.cache/.*: .*Make the folder writable"):
        find(tmp_path)


def test_a_file_that_the_hub_does_not_send(hub: HubServer, commit: str, tmp_path: Path, monkeypatch: Any) -> None:
    from journeyman.models import hub_download

    monkeypatch.setattr(hub_download, "_MOST_HTTP_BYTES", 1_000_000)
    with pytest.raises(InputError, match=rf"only to its own program.*hf download {REPO} --include '\*Q4_K_M\*\.gguf'"):
        find(tmp_path)
    assert hub.asked("storage") == []
