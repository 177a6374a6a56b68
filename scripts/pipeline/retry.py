"""Requests that are repeated after transient errors, with exponential back-off, honouring `Retry-After`."""

from __future__ import annotations

import email.utils
import sys
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from pipeline.errors import one_line

TRANSIENT_STATUS = {408, 429, 500, 502, 503, 504}
MAX_DELAY = 600  # seconds; a server that asks for a longer delay gets no more tries

Result = TypeVar("Result")


def with_retry(
    request: Callable[[], Result],
    delay_after: Callable[[Exception, int], float | None],
    describe: Callable[[Exception], str] = one_line,
) -> Result:
    """Makes a request, and repeats it after transient errors.

    Args:
        request: What to call.
        delay_after: Returns, for an error and the number of tries before it, the delay before the next try in seconds,
            or None for no more tries.
        describe: Returns the text of an error for the message that it is tried again.

    Returns:
        What the request returns.

    Raises:
        Exception: The error after which there is no next try: `delay_after` returns None, or more than `MAX_DELAY`.
    """
    tries = 0
    while True:
        try:
            return request()
        except Exception as error:
            delay = delay_after(error, tries)
            if delay is None or delay > MAX_DELAY:
                raise
            text = describe(error)[:300].rstrip(". ") or type(error).__name__
            print(f"{text}; retrying in {delay:.3g} s", file=sys.stderr)
            time.sleep(delay)
            tries += 1


def backoff(headers: Mapping[str, str], tries: int, first: float = 1) -> float:
    """Returns the delay before the next try.

    Args:
        headers: Of the response; `Retry-After` may be a number of seconds or a date.
        tries: Number of tries before the failed one.
        first: Delay after the first try, without `Retry-After`: seconds.

    Returns:
        `Retry-After` if the server sent it, else `first`, doubled for each try before: seconds.

    Example:
        >>> backoff({"Retry-After": "7"}, 2), backoff({}, 0), backoff({}, 3)
        (7.0, 1, 8)
    """
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):  # by version of Python, for what is no date
        return first * 2**tries
    return max(0.0, date.timestamp() - time.time())
