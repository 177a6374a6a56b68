"""Back-off, and the repetition of requests."""

import email.utils
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.retry import MAX_DELAY, backoff, with_retry


@given(st.integers(0, 10**6), st.integers(0, 9))
def test_retry_after_in_seconds_is_honoured(seconds: int, tries: int) -> None:
    assert backoff({"Retry-After": f" {seconds} "}, tries) == seconds


@given(st.integers(-(10**6), 10**6))
def test_retry_after_as_a_date_is_honoured(seconds: int) -> None:
    start = time.time()
    date = email.utils.formatdate(start + seconds, usegmt=True)  # in whole seconds
    delay = backoff({"Retry-After": date}, 3)
    assert max(0, seconds - 1 - (time.time() - start)) <= delay <= max(0, seconds)


@given(st.text() | st.sampled_from(["1.5", "-1", "²", "Mon, 32 Jan 2026 00:00:00 GMT", "1 Jan 99999 00:00"]))
def test_any_other_retry_after_is_ignored(text: str) -> None:
    assert backoff({"Retry-After": text}, 3, first=0.5) in {0, 4} or text.strip().isdigit()


def test_delay_doubles() -> None:
    assert [backoff({}, tries, first=0.5) for tries in range(4)] == [0.5, 1, 2, 4]


def test_requests_are_repeated_while_there_is_a_delay(capsys: pytest.CaptureFixture[str]) -> None:
    errors = iter([ValueError("first\nline two."), KeyError()])

    def request() -> str:
        for error in errors:
            raise error
        return "answer"

    assert with_retry(request, lambda _, tries: 0.001 * (tries + 1)) == "answer"
    assert capsys.readouterr().err == "first line two; retrying in 0.001 s\nKeyError; retrying in 0.002 s\n"


@pytest.mark.parametrize("delay", [None, MAX_DELAY + 1, float("inf")])
def test_last_error_is_raised(delay: float | None, capsys: pytest.CaptureFixture[str]) -> None:
    delays = iter([0, delay])

    def request() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        with_retry(request, lambda *_: next(delays))
    assert capsys.readouterr().err.count("retrying") == 1
