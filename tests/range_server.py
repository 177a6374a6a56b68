"""An HTTP server on localhost: it lists folders, answers range requests and counts the bytes of the files it sent.

It also answers the requests by which `huggingface_hub` reads a dataset repo; USER/NAME is then that folder.
"""

import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs


class RangeServer(http.server.ThreadingHTTPServer):
    """Serves one folder.

    Args:
        folder: What to serve.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
        self.asked: list[str] = []
        self.sent: dict[str, int] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RangeServer

    def translate_path(self, path: str) -> str:
        return super().translate_path(re.sub(r"^/datasets/(.+?/.+?)/resolve/.+?/", r"/\1/", path))

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        match = re.match(r"/api/datasets/(.+?/.+?)/paths-info/", self.path)
        repo = Path(self.directory, match[1] if match else "none")
        self.send_json([entry for entry in self.tree(repo) if entry["path"] in form["paths"]])

    def tree(self, repo: Path) -> list[dict[str, Any]]:
        found = []
        for path in sorted(repo.rglob("*")):
            kind = {"type": "directory"} if path.is_dir() else {"type": "file", "size": path.stat().st_size}
            found.append({**kind, "path": path.relative_to(repo).as_posix(), "oid": path.name})
        return found

    def send_json(self, answer: Any) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        asked = re.match(r"/api/datasets/([^/]+/[^/?]+)(/tree)?", self.path)
        if asked and Path(self.directory, asked[1]).is_dir():
            repo = Path(self.directory, asked[1])
            siblings = [{"rfilename": entry["path"]} for entry in self.tree(repo) if entry["type"] == "file"]
            info = {"id": asked[1], "sha": "5" * 40, "siblings": siblings}
            return self.send_json(self.tree(repo) if asked[2] else info)
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            return super().do_GET()
        data, span = path.read_bytes(), re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        total, start = len(data), int(span[1]) if span else 0
        data = data[start : int(span[2]) + 1 if span and span[2] else total]
        self.send_response(206 if span else 200)
        if span:
            self.send_header("Content-Range", f"bytes {start}-{start + len(data) - 1}/{total}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.server.sent[path.name] = self.server.sent.get(path.name, 0) + len(data)
        self.wfile.write(data)
        return None

    def end_headers(self) -> None:
        self.server.asked.append(self.path)
        self.send_header("Accept-Ranges", "bytes")
        if "/resolve/" in self.path:
            self.send_header("ETag", f'"{Path(self.path).name}"')
            self.send_header("X-Repo-Commit", "5" * 40)
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Keeps the tests' output clean."""


@contextmanager
def serve(folder: Path) -> Iterator[RangeServer]:
    """Runs a server in a thread while the context lasts."""
    server = RangeServer(folder)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
