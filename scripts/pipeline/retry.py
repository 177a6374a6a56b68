"""Requests that are repeated after transient errors, with exponential back-off, honouring `Retry-After`."""

from __future__ import annotations

import email.utils
import sys
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from pipeline.errors import one_line

TRANSIENT_STATUS = {408, 429, 500, 502, 503, 504}

Result = TypeVar("Result")


def with_retry(
    request: Callable[[], Result],
    delay_after: Callable[[Exception, int], float | None],
    sleep: Callable[[float], object] = time.sleep,
) -> Result:
    """Makes a request, and repeats it after transient errors.

    Args:
        request: What to call.
        delay_after: Returns, for an error and the number of tries before it, the delay before the next try in seconds,
            or None for no more tries.
        sleep: Waits.

    Returns:
        What the request returns.

    Raises:
        Exception: The error after which there is no next try.
    """
    tries = 0
    while True:
        try:
            return request()
        except Exception as error:
            delay = delay_after(error, tries)
            if delay is None:
                raise
            print(f"{one_line(error)[:300] or type(error).__name__}; retrying in {delay:.3g} s", file=sys.stderr)
            sleep(delay)
            tries += 1


def backoff(headers: Mapping[str, str], tries: int, first: float = 1) -> float:
    """Returns a delay in seconds: `Retry-After` if the server sent it, else `first`, doubled for each try before.

    Example:
        >>> backoff({"Retry-After": "7"}, 2), backoff({}, 0), backoff({}, 3)
        (7.0, 1, 8)
    """
    value = headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    date = email.utils.parsedate_tz(value)
    return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else first * 2**tries
