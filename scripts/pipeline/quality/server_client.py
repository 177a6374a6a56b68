"""The `openai` client that asks a server: what it sends to whom, and how much it reads of a response."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from pipeline.errors import StepError

TIMEOUT, CONNECT_TIMEOUT = 120, 10  # seconds for an answer, and for a connection
MAX_RESPONSE = 1 << 20  # bytes; a chat completion of 64 tokens has about 1,000


class ResponseError(Exception):
    """A response that is not read: it is compressed or too long."""


def make_client(openai: Any, base_url: str) -> Any:
    """Returns a client of the `openai` package that makes each request once.

    OPENAI_API_KEY goes to any server. Everything else that the package takes from the environment, such as
    organisation, project and OPENAI_CUSTOM_HEADERS, goes to OpenAI alone: openai.com or a host below it, over HTTPS.

    The client raises ResponseError; some versions of `openai` raise an APIConnectionError of which it is the cause.

    Args:
        openai: The package.
        base_url: Address of the server's API.

    Raises:
        StepError: The key cannot be sent.
    """
    key = _api_key()

    class Client(openai.OpenAI):
        @property
        def default_headers(self) -> dict[str, Any]:
            host, scheme = f".{self.base_url.host}", self.base_url.scheme
            of_environment = super().default_headers if host.endswith(".openai.com") and scheme == "https" else {}
            return {
                **of_environment,
                "Accept": "application/json",
                "Accept-Encoding": "identity",  # a compressed response may be a thousand times as long
                "Authorization": f"Bearer {key}",
                "Content-Type": "application/json",
                "User-Agent": self.user_agent,
            }

    timeout = openai.Timeout(TIMEOUT, connect=CONNECT_TIMEOUT)
    http_client = openai.DefaultHttpxClient(event_hooks={"response": [_read_bounded]})
    return Client(base_url=base_url, api_key=key, max_retries=0, timeout=timeout, http_client=http_client)


def _api_key() -> str:
    key = os.environ.get("OPENAI_API_KEY", "").strip() or "none"
    if not (key.isascii() and key.isprintable()):
        raise StepError("OPENAI_API_KEY cannot be sent: it contains other characters than those of ASCII; set it again")
    return key


def _read_bounded(response: Any) -> None:
    """Reads the body of a response, of a redirect too, as far as it is not too long.

    The classes of the HTTP client are not named, because `openai` uses `httpx` or `httpx2`, depending on its version.
    """
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise ResponseError("the server compresses its responses, although it is asked not to")
    body = bytearray()
    with contextlib.closing(response.stream):
        for chunk in response.stream:
            body += chunk
            if len(body) > MAX_RESPONSE:
                raise ResponseError(f"a response of more than {MAX_RESPONSE:,} bytes is no answer")
    response.stream = type(response)(response.status_code, content=bytes(body)).stream
    response.encoding = "utf-8"  # that of JSON; the one that a server names may be no encoding of text
