"""A model hub on loopback that speaks the protocol of huggingface.co, as huggingface_hub uses it.

Two servers, because on the real hub the bytes of large files come from another host:

- hub: `/api/models/REPO/revision/REV` is a commit and its files with sizes and hashes, `/api/models/REPO/tree/REV` the
  same in pages; `/REPO/resolve/REV/FILE` redirects to the storage for large files (LFS), and for small ones to
  `/api/resolve-cache/…`, which has the bytes.
- storage: `/SHA256` is the bytes, with ranges.

Errors have the hub's statuses and its header X-Error-Code. test_hub_server.py downloads from it with the functions of
huggingface_hub itself.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_LARGE = (".safetensors", ".gguf", ".bin")
_RANGE = re.compile(r"bytes=(\d+)-")
_PAGE = 5
"""Files in a page of the tree: few, so that there are several pages."""


@dataclass
class Repo:
    """A repo.

    Attributes:
        commits: commit → name → content.
        refs: branch or tag → commit.
        gated: whether files need a granted token.
        private: whether everything needs a granted token.
    """

    commits: dict[str, dict[str, bytes]]
    refs: dict[str, str]
    gated: bool = False
    private: bool = False


@dataclass(frozen=True)
class Seen:
    """A request: `server` is "hub" or "storage"; names of headers are in lower case."""

    server: str
    method: str
    path: str
    headers: Mapping[str, str]

    @property
    def range(self) -> str | None:
        return self.headers.get("range")


@dataclass(frozen=True)
class Fault:
    """What is wrong with an answer.

    Attributes:
        status: this status instead of the answer, with `headers` and `body`.
        after: so many bytes of the body are sent before the connection breaks off.
        stall: with `after`: it stays open without another byte until this is set.
        body: other bytes than those that were asked for.
        no_ranges: the whole file comes, even if a part was asked for.
    """

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    after: int | None = None
    stall: Event | None = None
    body: bytes | None = None
    no_ranges: bool = False


@dataclass
class HubServer:
    """The running hub.

    Attributes:
        endpoint: for HF_ENDPOINT.
        repos: PUBLISHER/REPO → repo.
        tokens: valid token → the repos to which it has access.
        seen: all requests so far.
        fault: decides what is wrong with the answer to a request.
    """

    endpoint: str = ""
    storage: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    tokens: dict[str, set[str]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    fault: Callable[[Seen], Fault | None] = lambda seen: None

    def add(self, repo: str, files: Mapping[str, bytes], *refs: str, **changes: Any) -> str:
        """Commits these files to a repo as `main` and under other refs; returns the commit."""
        commit = hashlib.sha1(
            repr([repo, sorted((name, git_hash(data)) for name, data in files.items())]).encode()
        ).hexdigest()
        found = self.repos.setdefault(repo, Repo({}, {}))
        found.commits[commit] = dict(files)
        found.refs |= dict.fromkeys(("main", *refs), commit)
        for name, value in changes.items():
            setattr(found, name, value)
        return commit

    def asked(self, server: str, method: str = "GET") -> list[Seen]:
        return [one for one in self.seen if (one.server, one.method) == (server, method)]

    def blobs(self) -> dict[str, bytes]:
        contents = (data for repo in self.repos.values() for files in repo.commits.values() for data in files.values())
        return {sha256_of(data): data for data in contents}


@cache
def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@cache
def git_hash(data: bytes) -> str:
    """The hash of a file in Git."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """Runs a hub while the block does."""
    hub = HubServer()
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub, name)) for name in ("hub", "storage")]
    hosts = ("127.0.0.1", "localhost")  # another host by name, so that clients treat the storage as one
    hub.endpoint, hub.storage = (
        f"http://{host}:{server.server_port}" for host, server in zip(hosts, servers, strict=True)
    )
    for server in servers:
        server.daemon_threads = True
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def _handler(hub: HubServer, server: str) -> type[BaseHTTPRequestHandler]:
    lock = Lock()

    class Handler(_Handler):
        def do_GET(self) -> None:
            self.headers_ = {name.lower(): value for name, value in self.headers.items()}
            seen = Seen(server, self.command, self.path, self.headers_)
            with lock:
                hub.seen.append(seen)
                self.fault = hub.fault(seen) or Fault()
            self.hub = hub
            if self.fault.status:
                return self.answer(self.fault.status, self.fault.body or b"", self.fault.headers)
            return self.stored() if server == "storage" else self.asked()

        do_HEAD = do_GET

    return Handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer
    fault: Fault
    headers_: dict[str, str]

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        headers = dict(headers or {})
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.send(body)

    def send(self, body: bytes) -> None:
        try:
            self.wfile.write(body[: self.fault.after])
            self.wfile.flush()
            if self.fault.after is not None:
                if self.fault.stall is not None:
                    self.fault.stall.wait(60)
                self.close_connection = True
        except OSError:
            self.close_connection = True

    def error(self, status: int, code: str = "", message: str = "") -> None:
        headers = {"X-Error-Code": code} if code else {}
        self.answer(status, json.dumps({"error": message}).encode(), {**headers, "X-Error-Message": message})

    def stored(self) -> None:
        """The storage: it knows no tokens."""
        data = self.hub.blobs().get(self.path.strip("/").partition("?")[0])
        if data is None:
            return self.answer(404)
        return self.content(data, {})

    def content(self, data: bytes, headers: Mapping[str, str]) -> None:
        if self.fault.body is not None:
            data = self.fault.body
        asked = _RANGE.fullmatch(self.headers_.get("range", ""))
        if asked is None or self.fault.no_ranges:
            return self.answer(200, data, {"Accept-Ranges": "bytes", **headers})
        start = int(asked[1])
        if start >= len(data):
            return self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        place = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        return self.answer(206, data[start:], {**place, **headers})

    def asked(self) -> None:
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            kind, repo, revision, file = found[2] or "revision", found[1], unquote(found[3] or "main"), ""
        elif found := re.fullmatch(r"/api/resolve-cache/models/([^/]+/[^/]+)/([^/]+)/(.+)", path):
            kind, repo, revision, file = "cached", found[1], found[2], unquote(found[3])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            kind, repo, revision, file = "resolve", found[1], unquote(found[2]), unquote(found[3])
        else:
            return self.error(404, message="Sorry, we can't find the page you are looking for.")
        token = self.headers_.get("authorization", "").removeprefix("Bearer ")
        known = self.hub.repos.get(repo)
        if token and token not in self.hub.tokens:
            return self.error(401, message="Invalid credentials in Authorization header")
        granted = repo in self.hub.tokens.get(token, set())
        if known is None or (known.private and not granted):
            return self.error(404 if token else 401, "RepoNotFound", "Repository not found")
        commit = known.refs.get(revision, revision)
        if commit not in known.commits:
            return self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if kind in ("resolve", "cached") and known.gated and not granted:
            return self.error(403 if token else 401, "GatedRepo", f"Access to model {repo} is restricted.")
        files = known.commits[commit]
        if kind == "revision":
            return self.info(repo, known, commit, files, "blobs" in query)
        if kind == "tree":
            return self.tree(path, files, int(query.get("cursor", ["0"])[0]))
        if file not in files:
            return self.error(404, "EntryNotFound", "Entry not found")
        return self.file(kind, repo, commit, file, files[file])

    def info(self, repo: str, known: Repo, commit: str, files: Mapping[str, bytes], with_hashes: bool) -> None:
        siblings: list[dict[str, Any]] = [{"rfilename": name} for name in sorted(files)]
        for one in siblings * with_hashes:
            data = files[one["rfilename"]]
            one |= {"size": len(data), "blobId": git_hash(data)}
            if one["rfilename"].endswith(_LARGE):
                one["lfs"] = {"sha256": sha256_of(data), "size": len(data), "pointerSize": 134}
        document = {
            "_id": "0" * 24, "id": repo, "modelId": repo, "sha": commit, "private": known.private, "disabled": False,
            "gated": "manual" if known.gated else False, "tags": [], "downloads": 0, "likes": 0, "siblings": siblings,
            "createdAt": "2025-01-01T00:00:00.000Z", "lastModified": "2025-01-01T00:00:00.000Z",
        }  # fmt: skip
        self.json(document)

    def tree(self, path: str, files: Mapping[str, bytes], cursor: int) -> None:
        entries = []
        for name in sorted(files)[cursor : cursor + _PAGE]:
            entry: dict[str, Any] = {
                "type": "file",
                "path": name,
                "size": len(files[name]),
                "oid": git_hash(files[name]),
            }
            if name.endswith(_LARGE):
                digest = sha256_of(files[name])
                entry["lfs"] = {"oid": digest, "size": len(files[name]), "pointerSize": 134}
            entries.append(entry)
        more = f'<{self.hub.endpoint}{path}?recursive=true&cursor={cursor + _PAGE}>; rel="next"'
        self.json(entries, {"Link": more} if cursor + _PAGE < len(files) else {})

    def json(self, document: Any, headers: Mapping[str, str] | None = None) -> None:
        self.answer(200, json.dumps(document).encode(), {"Content-Type": "application/json", **(headers or {})})

    def file(self, kind: str, repo: str, commit: str, file: str, data: bytes) -> None:
        digest = sha256_of(data)
        if file.endswith(_LARGE):  # as if its bytes were in Xet storage, which the plain address serves as well
            return self.answer(
                302, b"Found.",
                {
                    "Location": f"{self.hub.storage}/{digest}?signature=once", "X-Repo-Commit": commit,
                    "X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data)), "X-Xet-Hash": digest,
                    "Link": f'<{self.hub.endpoint}/api/models/{repo}/xet-read-token/{commit}>; rel="xet-auth"',
                },
            )  # fmt: skip
        headers = {"ETag": f'"{git_hash(data)}"', "X-Repo-Commit": commit}
        if kind == "resolve":
            place = f"/api/resolve-cache/models/{repo}/{commit}/{file}"
            return self.answer(307, b"", {"Location": place, **headers})
        return self.content(data, headers)
