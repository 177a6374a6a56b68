"""HTTP servers on localhost, which list folders: one with range requests, one without.

The first counts the bytes of the files it sent.
"""

import contextlib
import http.server
import re
import zlib
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from servers.serving import running


class RangeServer(http.server.ThreadingHTTPServer):
    """Serves one folder.

    Args:
        folder: What to serve.
        later: What to serve after `change_after` requests, as another version: the ETags of all files differ.
        change_after: Number of requests.
    """

    def __init__(self, folder: Path, later: Path | None = None, change_after: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
        self.folder, self.later, self.change_after = folder, later, change_after
        self.asked: list[str] = []
        self.sent: dict[str, int] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RangeServer

    def parse_request(self) -> bool:
        is_later = self.server.later and len(self.server.asked) >= self.server.change_after
        self.directory = str(self.server.later if is_later else self.server.folder)
        return super().parse_request()

    def do_GET(self) -> None:
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
        self.send_header("ETag", f'"{zlib.crc32(self.directory.encode()):x}"')
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Keeps the tests' output clean."""


class _PlainHandler(http.server.SimpleHTTPRequestHandler):
    def copyfile(self, source: Any, outputfile: Any) -> None:
        with contextlib.suppress(ConnectionError):  # a client that has read enough
            super().copyfile(source, outputfile)

    def log_message(self, *_: Any) -> None:
        """Keeps the tests' output clean."""


def serve_plainly(folder: Path) -> AbstractContextManager[http.server.ThreadingHTTPServer]:
    """Runs what `python -m http.server` runs, which ignores range requests, while the context lasts."""
    handler = partial(_PlainHandler, directory=str(folder))
    return running(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))


def serve(folder: Path, later: Path | None = None, change_after: int = 0) -> AbstractContextManager[RangeServer]:
    """Runs a server while the context lasts."""
    return running(RangeServer(folder, later, change_after))
