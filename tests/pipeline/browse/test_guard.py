"""Which requests reach Gradio, and the headers of responses; without Gradio."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.browse.guard import EVENT, HEADERS, MAX_EVENT, Guard

FILE = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}


class Answer:
    """What a guarded app, which returns the body it was sent, answers to a request.

    Attributes:
        status: The status.
        headers: The headers.
        reached: What came through: the body of the request; None: nothing.
    """

    def __init__(self, method: str, path: str, *parts: bytes) -> None:
        self.status, self.headers = 0, dict[str, str]()
        self.reached: bytes | None = None
        asyncio.run(self._ask({"type": "http", "method": method, "path": path}, list(parts or (b"",))))

    async def _ask(self, scope: dict[str, Any], parts: list[bytes]) -> None:
        async def receive() -> Any:
            if not parts:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.headers = {name.decode(): text.decode() for name, text in message["headers"]}

        async def app(scope: Any, receive: Any, send: Any) -> None:
            message = await receive()
            self.reached = message["body"]
            assert not message["more_body"]
            assert (await receive())["type"] == "http.disconnect"
            await send({"type": "http.response.start", "status": 200, "headers": []})

        await Guard(app)(scope, receive, send)


@pytest.mark.parametrize("path", ["/", "/files.csv", "/theme.css", "/assets/index-a1.js", "/gradio_api/app_id"])
def test_what_the_page_asks_for_is_answered(path: str) -> None:
    for method in ("GET", "HEAD"):
        answer = Answer(method, path)
        assert answer.status == 200
        assert HEADERS.items() <= answer.headers.items()
        assert ("immutable" in answer.headers.get("cache-control", "")) == path.startswith("/assets/")
    assert Answer("POST", path).status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/file=https://example.com/",
        "/gradio_api/proxy=https://example.com/",
        "/gradio_api/upload",
        "/gradio_api/openapi.json",
        "/gradio_api/info",
        "/gradio_api/queue/join",
        "/gradio_api/vibe-edit",
        "/gradio_api/run/predict/x",
        "/gradio_api/api/predict",
        "/login",
        "/monitoring",
        "/files.csv/x",
        "//",
        "",
        "/assets/\n",
        "/\n",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", ""])
def test_nothing_else_reaches_gradio(method: str, path: str) -> None:
    answer = Answer(method, path)
    assert (answer.status, answer.reached) == (404, None)
    assert HEADERS.items() <= answer.headers.items()


@pytest.mark.parametrize(
    "data", [[FILE], [[FILE]], ["", {"value": FILE}], [{}], [[[FILE]]], FILE, None, "x", {"a": ["x"]}]
)
def test_a_value_that_may_name_a_file_is_refused(data: object) -> None:
    answer = Answer("POST", EVENT, json.dumps({"fn_index": 0, "data": data}).encode())
    assert (answer.status, answer.reached) == (400, None)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"{}", b"[" * 60_000, b"\xff", b'{"data": "\xff"}'])
def test_what_is_no_event_is_refused(body: bytes) -> None:
    assert Answer("POST", EVENT, body).status == 400


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(st.lists(PLAIN | st.lists(PLAIN)), st.integers(0, 40))
def test_any_texts_and_numbers_reach_gradio_as_they_are(data: list[object], place: int) -> None:
    body = json.dumps({"fn_index": 0, "data": data, "event_data": {"row": 3}}).encode()
    answer = Answer("POST", EVENT, body[:place], b"", body[place:])
    assert (answer.status, answer.reached) == (200, body)


def test_a_long_event_is_refused_before_all_of_it_is_read() -> None:
    parts = [b"x" * MAX_EVENT, b"x", b"never read"]
    answer = Answer("POST", EVENT, *parts)
    assert (answer.status, answer.reached) == (413, None)


def test_an_event_that_ends_early_reaches_nobody() -> None:
    async def gone() -> Any:
        return {"type": "http.disconnect"}

    async def never(*_: Any) -> None:
        pytest.fail("reached")

    asyncio.run(Guard(never)({"type": "http", "method": "POST", "path": EVENT}, gone, never))
