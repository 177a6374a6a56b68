"""ASGI middleware: the server answers what the page asks for and nothing else, and tells browsers what a page may do.

Gradio has about 60 routes. Some fetch addresses, take uploads or serve the files of its cache; and a value of an event
that names a file has it copied to that cache, any file that the process can read, where Gradio is mounted in an app
and not launched. The page needs none of it: its values are texts and numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

FILES = "/assets/"  # of Gradio; their names have a checksum of their content
READ = re.compile(
    rf"/|{FILES}.+|/static/.+|/files\.csv|/config|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt"
    "|/gradio_api/app_id"  # asked for when the connection was lost
)
EVENT = "/gradio_api/run/predict"
MAX_EVENT = 64 << 10  # bytes; the longest query of an address has less
# A browser asks no other server for anything, whatever Gradio or a prompt may contain.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'"
)
HEADERS = {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
UNCHANGING = {"cache-control": "public, max-age=31536000, immutable"}


class Guard:
    """The middleware.

    Args:
        app: The ASGI app that answers what is let through.
    """

    def __init__(self, app: Callable[[Any, Receive, Send], Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answers a request; `HEADERS` are added to every response."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                is_file = scope["path"].startswith(FILES) and message["status"] == 200
                added = {**HEADERS, **(UNCHANGING if is_file else {})}
                fields = [(name.encode(), text.encode()) for name, text in added.items()]
                message["headers"] = [*message["headers"], *fields]
            await send(message)

        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and READ.fullmatch(scope["path"]):
            await self.app(scope, receive, send_with_headers)
        elif scope["type"] == "http" and scope["method"] == "POST" and scope["path"] == EVENT:
            await self._answer_event(scope, receive, send_with_headers)
        elif scope["type"] == "http":
            await _refuse(send_with_headers, 404)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})

    async def _answer_event(self, scope: Any, receive: Receive, send: Send) -> None:
        body, has_more = b"", True
        while has_more and len(body) <= MAX_EVENT:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            has_more = message.get("more_body", False)
        if len(body) > MAX_EVENT:
            await _refuse(send, 413)
        elif not is_event(body):
            await _refuse(send, 400)
        else:
            read = [{"type": "http.request", "body": body, "more_body": False}]

            async def receive_again() -> Any:
                return read.pop() if read else await receive()

            await self.app(scope, receive_again, send)


def is_event(body: bytes) -> bool:
    """Tells whether the body of a request is an event whose values are texts, numbers and lists of them.

    Example:
        >>> is_event(b'{"fn_index": 0, "data": ["words=apex", ["Edema: positive"], 1, null]}')
        True
        >>> is_event(b'{"fn_index": 0, "data": [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}]}')
        False
    """
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        return False
    values = event.get("data") if isinstance(event, dict) else None
    if not isinstance(values, list):
        return False
    plain = (str, int, float, type(None))
    lists = (value if isinstance(value, list) else [value] for value in values)
    return all(isinstance(value, plain) for found in lists for value in found)


async def _refuse(send: Send, status: int) -> None:
    start = {"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]}
    await send(start)
    await send({"type": "http.response.body", "body": b""})
