"""A chat-completions server on localhost, whose replies, some of them broken, a test chooses."""

from __future__ import annotations

import base64
import http.server
import json
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from servers.serving import running

HALF_A_COMPLETION = b'{"choices": [{"message": {"role": "assist'
HTML_PAGE = b"<html><body>502 Bad Gateway</body></html>"


class Question(NamedTuple):
    """A question: its text, its image, and the whole request."""

    text: str
    image: bytes
    request: dict[str, Any]


class Reply(NamedTuple):
    """A reply other than a completion: status, body and headers after a delay in seconds, or a dropped connection."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = {}  # noqa: RUF012 - nobody changes it
    disconnect: bool = False
    delay: float = 0


Answer = Callable[[Question], "str | Reply"]


def completion(text: str, **headers: str) -> Reply:
    """Returns the reply that holds a text."""
    choices = [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]
    about = {"id": "1", "object": "chat.completion", "created": 1, "model": "judge"}
    return Reply(200, json.dumps({**about, "choices": choices}).encode(), headers)


class ChatServer(http.server.ThreadingHTTPServer):
    """Answers with a function of the question.

    Args:
        answer: Returns the text of a completion, or another reply.
        port: Default: a free one.

    Attributes:
        questions: All that have arrived.
        answered: Those whose completion was sent.
        headers: Those of each request, their names in lower case.
        most_in_flight: The largest number of requests at one time.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answer: Answer, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.answer = answer
        self.questions: list[Question] = []
        self.answered: list[Question] = []
        self.headers: list[dict[str, str]] = []
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Prints nothing about the connections of a killed client."""


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: ChatServer

    def do_POST(self) -> None:
        server = self.server
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        image, text = request["messages"][0]["content"]
        question = Question(text["text"], base64.b64decode(image["image_url"]["url"].partition(",")[2]), request)
        with server.lock:
            server.questions.append(question)
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
            server.in_flight += 1
            server.most_in_flight = max(server.in_flight, server.most_in_flight)
        try:
            self.reply(question, Reply(404) if self.path != "/v1/chat/completions" else server.answer(question))
        finally:
            with server.lock:
                server.in_flight -= 1

    def reply(self, question: Question, answer: str | Reply) -> None:
        if isinstance(answer, str):
            answer = completion(answer)
        time.sleep(answer.delay)
        if answer.disconnect:
            self.close_connection = True
            return
        self.send_response(answer.status)
        kind = "text/html" if answer.body.startswith(b"<") else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)
        self.wfile.flush()
        if answer.status == 200 and answer.body.startswith(b'{"id"'):
            with self.server.lock:
                self.server.answered.append(question)

    def log_message(self, *_: Any) -> None:
        """Keeps the tests' output clean."""


def serve(answer: Answer, port: int = 0) -> AbstractContextManager[ChatServer]:
    """Runs a server while the context lasts."""
    return running(ChatServer(answer, port))
