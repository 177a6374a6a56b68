"""A Hub on localhost: the part of its HTTP API that dataset repositories need, for unmodified clients.

    with serve(folder) as hub: ...                 # HF_ENDPOINT=hub.url HF_TOKEN=hf_alice HF_HUB_DISABLE_XET=1
    PYTHONPATH=tests python -m servers.local_hub folder --port 8000   # the same, to try things by hand

A commit never changes, and a ref (branch, pull request) points to one. Contents are files in a folder, named by their
hash: the SHA-256 of an LFS object, which is checked after the upload, or git's SHA-1 of a small file. `Hub.fail` makes
requests fail; `Hub.requests` records them.
"""

from __future__ import annotations

import argparse
import base64
import fnmatch
import hashlib
import http.server
import json
import re
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit

import yaml

from servers.serving import running

MAIN = "refs/heads/main"
LFS_PATTERNS = ["*.parquet", "*.zip", "*.tar", "*.png", "*.bin"]
GIT_ATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS).encode()
LARGE = 10 << 20  # bytes; a file of this size is an LFS object whatever its name
LICENSES = {"apache-2.0", "mit", "cc-by-4.0", "cc0-1.0", "other", "unknown"}


class Account(NamedTuple):
    """Owner and role (`read` or `write`) of a token."""

    name: str
    role: str
    orgs: tuple[str, ...] = ()


ACCOUNTS = {
    "hf_alice": Account("alice", "write", ("lab",)),
    "hf_alice_read": Account("alice", "read", ("lab",)),
    "hf_bob": Account("bob", "write"),
}


class Blob(NamedTuple):
    """A file in a commit: git's hash, size in bytes, and the SHA-256 of an LFS object."""

    oid: str
    size: int
    sha256: str | None


class Commit(NamedTuple):
    """A state of a repository; `files` by path."""

    oid: str
    parent: str | None
    title: str
    description: str
    files: Mapping[str, Blob]


@dataclass
class Repo:
    """A dataset repository."""

    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def find(self, revision: str) -> Commit | None:
        """Finds a commit by its hash, a branch's name or a ref."""
        oid = self.refs.get(f"refs/heads/{revision}") or self.refs.get(revision) or revision
        return self.commits.get(oid)

    def commit(self, ref: str, title: str, description: str, files: dict[str, Blob]) -> Commit:
        """Adds a commit on top of a ref, which then points to it."""
        parent = self.refs.get(ref)
        content = repr((parent, title, description, sorted(files.items()), len(self.commits)))
        oid = hashlib.sha1(content.encode()).hexdigest()
        self.commits[oid] = Commit(oid, parent, title, description, MappingProxyType(files))
        self.refs[ref] = oid
        return self.commits[oid]

    def under(self, prefix: str) -> dict[str, str]:
        """Refs by the rest of their names."""
        return {ref.removeprefix(prefix): oid for ref, oid in self.refs.items() if ref.startswith(prefix)}


@dataclass
class Failure:
    """How requests fail, and which of those that match."""

    matching: re.Pattern[str]
    numbers: range
    how: str | int | Callable[[], Any]
    headers: dict[str, str]
    seen: int = 0

    def strikes(self, request: str) -> bool:
        """Counts a request, and returns whether it fails."""
        if not self.matching.search(request):
            return False
        self.seen += 1
        return self.seen in self.numbers


class Request(NamedTuple):
    """A request: `PUT /path`, the status of its answer (0 without one), the size of its body in bytes."""

    what: str
    status: int
    received: int


class HubError(Exception):
    """An error, in the form that the clients read."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Hub(http.server.ThreadingHTTPServer):
    """The server and its state.

    Args:
        folder: For contents.
        port: Default: a free one.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.storage = f"http://localhost:{self.server_port}"  # of LFS objects: for the clients, another host
        self.folder = folder
        self.repos: dict[str, Repo] = {}
        self.requests: list[Request] = []
        self.failures: list[Failure] = []
        self.lock = threading.RLock()
        folder.mkdir(parents=True, exist_ok=True)

    def fail(
        self, matching: str, how: str | int | Callable[[], Any], numbers: range = range(1, 2), **headers: Any
    ) -> None:
        """Makes requests fail.

        Args:
            matching: A regular expression for `METHOD path?query`.
            how: A status; or how the connection ends: `"drop"`, before the request is read; `"cut"`, in the middle of
                its body; `"lose"`, after it took effect and before the answer. `"html"`, an answer of a proxy. Or a
                function that is called before the request is answered.
            numbers: Which of the requests that match, from 1.
            **headers: Of the answer, with `_` for `-`.
        """
        self.failures.append(
            Failure(
                re.compile(matching),
                numbers,
                how,
                {name.replace("_", "-"): str(text) for name, text in headers.items()},
            )
        )

    def create(self, repo_id: str, private: bool = False, files: Mapping[str, bytes] | None = None) -> Repo:
        """Creates a repository with files."""
        repo = self.repos[repo_id] = Repo(private)
        repo.commit(MAIN, "initial commit", "", {".gitattributes": self.store(".gitattributes", GIT_ATTRIBUTES)})
        if files:
            self.push(repo_id, files)
        return repo

    def push(self, repo_id: str, files: Mapping[str, bytes], title: str = "Upload", ref: str = MAIN) -> Commit:
        """Commits files."""
        repo = self.repos[repo_id]
        stored = {path: self.store(path, data) for path, data in files.items()}
        return repo.commit(ref, title, "", {**repo.commits[repo.refs[ref]].files, **stored})

    def clear(self) -> None:
        """Removes all repositories, contents, requests and failures."""
        for path in self.folder.iterdir():
            path.unlink()
        self.repos.clear()
        self.requests.clear()
        self.failures.clear()

    def merge(self, repo_id: str, number: int) -> None:
        """Merges a pull request."""
        repo = self.repos[repo_id]
        repo.refs[MAIN] = repo.refs[f"refs/pr/{number}"]

    def asked(self, matching: str) -> list[Request]:
        """Returns the requests that match a regular expression."""
        return [request for request in self.requests if re.search(matching, request.what)]

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """Returns the files of a revision: content by path."""
        commit = self.repos[repo_id].find(revision)
        return {path: self.path(blob).read_bytes() for path, blob in commit.files.items()} if commit else {}

    def store(self, path: str, data: bytes) -> Blob:
        """Stores the content of a file, as an LFS object where its name matches `LFS_PATTERNS`."""
        is_lfs = any(fnmatch.fnmatch(path, pattern) for pattern in LFS_PATTERNS)
        sha256 = hashlib.sha256(data).hexdigest() if is_lfs else None
        blob = Blob(git_oid(pointer(sha256, len(data)) if sha256 else data), len(data), sha256)
        self.path(blob).write_bytes(data)
        return blob

    def path(self, blob: Blob) -> Path:
        """Returns the path of a content."""
        return self.folder / (blob.sha256 or blob.oid)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Prints nothing: a killed client leaves broken connections."""


def git_oid(data: bytes) -> str:
    """Returns git's hash of a content."""
    return hashlib.sha1(b"blob %d\0%s" % (len(data), data)).hexdigest()


def pointer(sha256: str, size: int) -> bytes:
    """Returns the file that git stores for an LFS object."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer, sent as headers and body, takes 40 ms
    server: Hub
    ROUTES = (
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/validate-yaml", "validate_yaml"),
        ("POST", r"/api/repos/create", "create_repo"),
        ("GET", r"/api/(?:datasets|models)/([^/]+/[^/]+)", "info"),
        ("GET", r"/api/(?:datasets|models)/([^/]+/[^/]+)/revision/([^/]+)", "info"),
        ("GET", r"/api/datasets/([^/]+/[^/]+)/refs", "refs"),
        ("GET", r"/api/(?:datasets|models)/([^/]+/[^/]+)/tree/([^/]+)(?:/(.*))?", "tree"),
        ("POST", r"/api/datasets/([^/]+/[^/]+)/paths-info/([^/]+)", "paths_info"),
        ("POST", r"/api/datasets/([^/]+/[^/]+)/branch/([^/]+)", "create_branch"),
        ("POST", r"/api/datasets/([^/]+/[^/]+)/preupload/([^/]+)", "preupload"),
        ("POST", r"/api/datasets/([^/]+/[^/]+)/commit/([^/]+)", "commit"),
        ("POST", r"/datasets/([^/]+/[^/]+)\.git/info/lfs/objects/batch", "lfs_batch"),
        ("PUT", r"/lfs/([^/]+/[^/]+)/(\w{64})", "lfs_upload"),
        ("POST", r"/lfs/([^/]+/[^/]+)/verify", "lfs_verify"),
        ("GET", r"/lfs/([^/]+/[^/]+)/(\w{64})", "lfs_download"),
        ("GET", r"(?:/datasets)?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "resolve"),
    )

    def do_GET(self) -> None:
        """Answers any method."""
        self.url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(self.url.query).items()}
        self.what, self.received = f"{self.command} {self.path}", 0
        self.is_recorded = self.is_lost = False
        try:
            if not self.fails():
                self.answer()
        except HubError as error:
            headers = {"X-Error-Message": str(error), **({"X-Error-Code": error.code} if error.code else {})}
            self.send(error.status, json.dumps({"error": str(error)}).encode(), **headers)
        finally:
            self.read_rest()
            if not self.is_recorded:
                self.record(0)

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - the names are those of the base class

    def fails(self) -> bool:
        """Fails as `Hub.fail` has set for this request; returns whether that answered it."""
        with self.server.lock:
            failures = [failure for failure in self.server.failures if failure.strikes(self.what)]
        for failure in failures:
            if isinstance(failure.how, int):
                self.send(failure.how, b'{"error": "set to fail"}', **failure.headers)
                return True
            if failure.how == "html":
                self.send(200, b"<html>Please log in to this network.</html>", **failure.headers)
                return True
            if callable(failure.how):
                failure.how()
            elif failure.how == "lose":
                self.is_lost = True
            else:
                if failure.how == "cut":
                    self.rfile.read(int(self.headers.get("Content-Length") or 0) // 2)
                self.connection.shutdown(socket.SHUT_RDWR)
                raise ConnectionAbortedError
        return False

    def answer(self) -> None:
        """Calls the method that the routes name."""
        method = "GET" if self.command == "HEAD" else self.command
        for wanted, pattern, name in self.ROUTES:
            match = re.fullmatch(pattern, self.url.path)
            if match and wanted == method:
                getattr(self, name)(*(unquote(part or "") for part in match.groups()))
                return
        raise HubError(404, f"Not found: {self.command} {self.path}")

    # Reading the request, sending the answer

    def body(self) -> Iterator[bytes]:
        """Yields the body of the request in blocks, with or without Content-Length."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline(), 16):
                yield self.count(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            del self.headers["Transfer-Encoding"]
        left = int(self.headers.get("Content-Length") or 0) - self.received
        while left > 0:
            block = self.count(self.rfile.read(min(left, 1 << 20)))
            if not block:
                raise ConnectionAbortedError
            left -= len(block)
            yield block

    def count(self, block: bytes) -> bytes:
        """Counts received bytes."""
        self.received += len(block)
        return block

    def read_rest(self) -> None:
        """Reads the rest of the body, so that the connection can be reused."""
        try:
            for _ in self.body():
                pass
        except (OSError, ValueError):
            self.close_connection = True

    def json(self) -> Any:
        """Reads a body in JSON."""
        return json.loads(b"".join(self.body()) or b"{}")

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Sends an answer."""
        self.read_rest()
        if self.is_lost:
            self.connection.shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError
        self.send_response(status)
        for name, text in {"Content-Length": str(len(body)), "X-Request-Id": "local", **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_json(self, answer: Any, **headers: str) -> None:
        """Sends an answer in JSON."""
        self.send(200, json.dumps(answer).encode(), **{"Content-Type": "application/json", **headers})

    def send_response(self, code: int, message: str | None = None) -> None:
        """Records the request before its answer, so that a test that has the answer finds the record."""
        self.record(code)
        super().send_response(code, message)

    def record(self, status: int) -> None:
        """Adds the request to `Hub.requests`."""
        self.is_recorded = True
        self.server.requests.append(Request(self.what, status, self.received))

    def log_message(self, *_: Any) -> None:
        """Keeps the tests' output clean."""

    # Access

    def account(self) -> Account | None:
        """Returns the account of the token; None without a token."""
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in ACCOUNTS:
            raise HubError(401, "Invalid credentials in Authorization header")
        return ACCOUNTS.get(token)

    def must_write(self, namespace: str, anybody: bool = False) -> None:
        """Checks write access; `anybody` with a write token may open a pull request."""
        account = self.account()
        if not account:
            raise HubError(401, "Invalid username or password.")
        if account.role != "write":
            raise HubError(403, "Forbidden: you must use a write token to upload to a repository.")
        if not anybody and namespace not in (account.name, *account.orgs):
            raise HubError(403, f'You don\'t have the rights to write under the namespace "{namespace}"')

    def repo(self, repo_id: str) -> Repo:
        """Finds a repository that the account may read."""
        repo, account = self.server.repos.get(repo_id), self.account()
        allowed = not repo or not repo.private or (account and repo_id.split("/")[0] in (account.name, *account.orgs))
        if not repo or not allowed:
            raise HubError(404 if account else 401, "Repository not found", "RepoNotFound")
        return repo

    def at(self, repo_id: str, revision: str) -> Commit:
        """Finds a commit."""
        commit = self.repo(repo_id).find(revision)
        if not commit:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    # The routes

    def whoami(self) -> None:
        account = self.account()
        if not account:
            raise HubError(401, "Invalid username or password.")
        token = {"displayName": "test", "role": account.role}
        orgs = [{"name": name, "type": "org"} for name in account.orgs]
        self.send_json({"type": "user", "name": account.name, "orgs": orgs, "auth": {"accessToken": token}})

    def validate_yaml(self) -> None:
        errors = yaml_errors(self.json()["content"])
        answer = {"errors": [{"message": text} for text in errors], "warnings": []}
        self.send(400 if errors else 200, json.dumps(answer).encode())

    def create_repo(self) -> None:
        form = self.json()
        account = self.account()
        namespace = form.get("organization") or (account.name if account else "")
        repo_id = f"{namespace}/{form['name']}"
        self.must_write(namespace)
        with self.server.lock:
            answer = {"url": f"{self.server.url}/datasets/{repo_id}", "name": repo_id}
            if repo_id in self.server.repos:
                self.send(409, json.dumps({**answer, "error": "You already created this dataset repo"}).encode())
                return
            self.server.create(repo_id, bool(form.get("private")) or form.get("visibility") == "private")
        self.send_json(answer)

    def info(self, repo_id: str, revision: str = "main") -> None:
        commit, repo = self.at(repo_id, revision), self.repo(repo_id)
        siblings = [{"rfilename": path} for path in commit.files]
        about = {"private": repo.private, "gated": False, "disabled": False, "tags": [], "downloads": 0, "likes": 0}
        self.send_json({"id": repo_id, "sha": commit.oid, "siblings": siblings, **about})

    def refs(self, repo_id: str) -> None:
        repo = self.repo(repo_id)

        def listed(prefix: str) -> list[dict[str, str]]:
            return [
                {"name": name, "ref": prefix + name, "targetCommit": oid} for name, oid in repo.under(prefix).items()
            ]

        pull_requests = listed("refs/pr/") if "include_prs" in self.query else []
        branches = listed("refs/heads/")
        self.send_json({"branches": branches, "converts": [], "tags": [], "pullRequests": pull_requests})

    def tree(self, repo_id: str, revision: str, folder: str) -> None:
        entries = self.entries(self.at(repo_id, revision))
        prefix = f"{folder}/" if folder else ""
        inside = [entry for path, entry in sorted(entries.items()) if path.startswith(prefix)]
        if folder and not inside:
            raise HubError(404, f"{folder} does not exist on {revision}", "EntryNotFound")
        if self.query.get("recursive", "").lower() not in ("true", "1"):
            inside = [entry for entry in inside if "/" not in entry["path"].removeprefix(prefix)]
        start, size = int(self.query.get("cursor", 0)), int(self.query.get("limit", 10))  # the Hub gives 1,000
        more = start + size < len(inside)
        query = f"recursive={self.query.get('recursive', '')}&limit={size}&cursor={start + size}"
        link = f'<{self.server.url}{self.url.path}?{query}>; rel="next"'
        self.send_json(inside[start : start + size], **({"Link": link} if more else {}))

    def paths_info(self, repo_id: str, revision: str) -> None:
        entries = self.entries(self.at(repo_id, revision))
        body = b"".join(self.body()).decode()
        paths = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
        self.send_json([entries[path.rstrip("/")] for path in paths if path.rstrip("/") in entries])

    def entries(self, commit: Commit) -> dict[str, dict[str, Any]]:
        """Returns files and folders of a commit, as the API lists them."""
        found: dict[str, dict[str, Any]] = {}
        last = {"id": commit.oid, "title": commit.title, "date": "2026-01-01T00:00:00.000Z"}
        for path, blob in commit.files.items():
            for folder in [*Path(path).parents][:-1]:
                oid = git_oid(str(folder).encode())
                found[folder.as_posix()] = {"type": "directory", "path": folder.as_posix(), "oid": oid, "size": 0}
            lfs = {"oid": blob.sha256, "size": blob.size, "pointerSize": 134}
            found[path] = {"type": "file", "path": path, "oid": blob.oid, "size": blob.size, "lastCommit": last}
            found[path] |= {"lfs": lfs} if blob.sha256 else {}
        return found

    def create_branch(self, repo_id: str, branch: str) -> None:
        repo = self.repo(repo_id)
        start = self.at(repo_id, self.json().get("startingPoint") or "main")
        self.must_write(repo_id.split("/")[0])
        with self.server.lock:
            if f"refs/heads/{branch}" in repo.refs:
                raise HubError(409, f"Reference already exists: {branch}")
            repo.refs[f"refs/heads/{branch}"] = start.oid
        self.send_json({})

    def preupload(self, repo_id: str, revision: str) -> None:
        commit = self.at(repo_id, revision)
        self.must_write(repo_id.split("/")[0], anybody="create_pr" in self.query or revision.startswith("refs/pr/"))
        patterns = re.findall(r"^(\S+) filter=lfs", self.server.path(commit.files[".gitattributes"]).read_text(), re.M)
        files = []
        for asked in self.json()["files"]:
            path, present = asked["path"], commit.files.get(asked["path"])
            large = asked["size"] > LARGE or any(fnmatch.fnmatch(path, pattern) for pattern in patterns)
            oid = (present.sha256 or present.oid) if present else None
            files.append({"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid})
        self.send_json({"files": files})

    def lfs_batch(self, repo_id: str) -> None:
        self.repo(repo_id)
        self.must_write(repo_id.split("/")[0], anybody=True)
        objects = []
        for asked in self.json()["objects"]:
            answer = {"oid": asked["oid"], "size": asked["size"], "authenticated": True}
            if not (self.server.folder / asked["oid"]).exists():
                href = f"{self.server.storage}/lfs/{repo_id}"
                answer["actions"] = {
                    "upload": {"href": f"{href}/{asked['oid']}", "header": {}},
                    "verify": {"href": f"{href}/verify", "header": {}},
                }
            objects.append(answer)
        self.send_json({"transfer": "basic", "objects": objects})

    def lfs_upload(self, repo_id: str, sha256: str) -> None:
        found = hashlib.sha256()
        with tempfile.NamedTemporaryFile(dir=self.server.folder, prefix=".", delete=False) as file:
            try:
                for block in self.body():
                    found.update(block)
                    file.write(block)
            except BaseException:
                Path(file.name).unlink()
                raise
        if found.hexdigest() != sha256:
            Path(file.name).unlink()
            raise HubError(400, "The SHA-256 of the content differs")
        Path(file.name).replace(self.server.folder / sha256)
        self.send(200, ETag=f'"{sha256}"')

    def lfs_verify(self, repo_id: str) -> None:
        asked = self.json()
        path = self.server.folder / asked["oid"]
        if not path.exists() or path.stat().st_size != asked["size"]:
            raise HubError(404, "Object not found")
        self.send_json({})

    def commit(self, repo_id: str, revision: str) -> None:
        header, *changes = (json.loads(line) for line in b"".join(self.body()).splitlines())
        with self.server.lock:
            repo, base = self.repo(repo_id), self.at(repo_id, revision)
            opens = "create_pr" in self.query
            self.must_write(repo_id.split("/")[0], anybody=opens or revision.startswith("refs/pr/"))
            parent = header["value"].get("parentCommit")
            if parent and parent != base.oid:
                raise HubError(412, "A commit has happened since. Please refresh and try again.")
            files = dict(base.files)
            for change in changes:
                self.apply(change["key"], change["value"], files)
            number = len(repo.under("refs/pr/")) + 1
            ref = (
                f"refs/pr/{number}" if opens else revision if revision.startswith("refs/") else f"refs/heads/{revision}"
            )
            if opens:
                repo.refs[ref] = base.oid
            made = repo.commit(ref, header["value"]["summary"], header["value"]["description"], files)
        page = f"{self.server.url}/datasets/{repo_id}"
        answer = {"success": True, "commitOid": made.oid, "commitUrl": f"{page}/commit/{made.oid}"}
        self.send_json({**answer, **({"pullRequestUrl": f"{page}/discussions/{number}"} if opens else {})})

    def apply(self, kind: str, value: dict[str, Any], files: dict[str, Blob]) -> None:
        """Applies one change of a commit."""
        path = value["path"]
        if kind == "file":
            data = base64.b64decode(value["content"])
            if path == "README.md" and (errors := yaml_errors(data.decode())):
                raise HubError(400, "; ".join(errors))
            files[path] = Blob(git_oid(data), len(data), None)
            self.server.path(files[path]).write_bytes(data)
        elif kind == "lfsFile":
            stored = self.server.folder / value["oid"]
            if not stored.exists():
                raise HubError(400, f"LFS object {value['oid']} was not uploaded")
            size = stored.stat().st_size
            files[path] = Blob(git_oid(pointer(value["oid"], size)), size, value["oid"])
        elif kind == "deletedFile":
            if files.pop(path, None) is None:
                raise HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
        elif kind == "deletedFolder":
            for inside in [name for name in files if name.startswith(path.rstrip("/") + "/")]:
                del files[inside]
        else:
            raise HubError(400, f"Unknown operation {kind}")

    def resolve(self, repo_id: str, revision: str, path: str) -> None:
        commit = self.at(repo_id, revision)
        headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
        blob = commit.files.get(path)
        if not blob:
            raise HubError(404, "Entry not found", "EntryNotFound")
        if blob.sha256:
            location = f"{self.server.storage}/lfs/{quote(repo_id)}/{blob.sha256}"
            linked = {"X-Linked-Size": str(blob.size), "X-Linked-ETag": f'"{blob.sha256}"'}
            self.send(302, b"", ETag=f'"{blob.oid}"', Location=location, **linked, **headers)
        else:
            self.send_range(self.server.path(blob), ETag=f'"{blob.oid}"', **headers)

    def lfs_download(self, repo_id: str, sha256: str) -> None:
        self.send_range(self.server.folder / sha256, ETag=f'"{sha256}"', **{"Accept-Ranges": "bytes"})

    def send_range(self, path: Path, **headers: str) -> None:
        """Sends a file, or the requested range of it."""
        span = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        size = path.stat().st_size
        start, end = 0, size
        if span and not span[1]:
            start = max(0, size - int(span[2]))
        elif span:
            start, end = int(span[1]), min(size, int(span[2]) + 1 if span[2] else size)
        if span and start >= size:
            self.send(416, b"", **{"Content-Range": f"bytes */{size}"})
            return
        with open(path, "rb") as file:
            file.seek(start)
            self.read_rest()
            self.send_response(206 if span else 200)
            ranged = {"Content-Range": f"bytes {start}-{end - 1}/{size}"} if span else {}
            for name, text in {**headers, **ranged, "Content-Length": str(end - start)}.items():
                self.send_header(name, text)
            self.end_headers()
            while self.command != "HEAD" and start < end:
                block = file.read(min(1 << 20, end - start))
                self.wfile.write(block)
                start += len(block)


def yaml_errors(card: str) -> list[str]:
    """Returns the errors for which the Hub refuses the header of a dataset card."""
    match = re.match(r"\s*---(?:\r\n|\r|\n)(.*?)(?:\r\n|\r|\n)---[ \t]*(?:\r\n|\n|$)", card, re.S)
    if not match:
        return []
    try:
        header = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return [f"YAML Metadata Error: {error}"]
    if not isinstance(header, dict):
        return ['"metadata" must be of type object']
    errors = []
    licenses = header.get("license")
    if not {*(licenses if isinstance(licenses, list) else [licenses])} <= {None, *LICENSES}:
        errors.append(f'"license" must be one of {sorted(LICENSES)}')
    for key in ("tags", "language", "size_categories", "task_categories", "configs"):
        if not isinstance(header.get(key, []), list):
            errors.append(f'"{key}" must be an array')
    for config in header.get("configs") or []:
        if not isinstance(config, dict) or not isinstance(config.get("config_name"), str):
            errors.append('"configs" must have a "config_name" each')
    return errors


def serve(folder: Path) -> AbstractContextManager[Hub]:
    """Runs a server while the context lasts."""
    return running(Hub(folder))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    server = Hub(options.folder, options.port)
    print(f"export HF_ENDPOINT={server.url} HF_TOKEN=hf_alice HF_HUB_DISABLE_XET=1", flush=True)
    server.serve_forever()
