"""Tables: as CSV, and as plain text for a terminal or a log."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

MAX_FIELD = 131_072  # characters of a field; `csv` reads no longer ones
UNWRITABLE = re.compile(r"[\0\ud800-\udfff]")  # NUL is refused by `csv` before Python 3.11, lone surrogates by UTF-8


def csv_bytes(rows: Iterable[Iterable[object]]) -> bytes:
    r"""Returns rows as CSV, each ended by a line feed; whatever it returns is read back equal.

    A field with a line break of any kind is quoted: Python before 3.13 quotes only those of the line terminator, so it
    is both characters here.

    Raises:
        ValueError: A field cannot be read back equal, see `check_field`.

    Example:
        >>> csv_bytes([["a", 1], ["two\rlines", None]])
        b'a,1\n"two\rlines",\n'
    """
    lines = []
    for row in rows:
        fields = [*row]
        for field in fields:
            if isinstance(field, str):
                check_field(field)
        line = io.StringIO()
        csv.writer(line, lineterminator="\r\n").writerow(fields)
        lines.append(line.getvalue().removesuffix("\r\n") + "\n")
    return "".join(lines).encode()


def check_field(text: str) -> None:
    r"""Checks that a CSV can hold a text.

    Raises:
        ValueError: It contains NUL or a lone surrogate, or is longer than `MAX_FIELD`.

    Example:
        >>> check_field("High\ud800")
        Traceback (most recent call last):
        ValueError: a CSV cannot hold the character '\ud800' of 'High\ud800'
    """
    if found := UNWRITABLE.search(text):
        raise ValueError(f"a CSV cannot hold the character {found[0]!a} of {text[:40]!a}")
    if len(text) > MAX_FIELD:
        raise ValueError(f"a CSV cannot hold the {len(text):,} characters of {text[:40]!a}…, at most {MAX_FIELD:,}")


def text_table(lines: Sequence[Sequence[str]]) -> str:
    """Returns cells as a table of plain text: the first column aligned left, the others right.

    Example:
        >>> print(text_table([["", "kept"], ["Edema", "7"], ["All images", "1,200"]]))
                     kept
        Edema           7
        All images  1,200
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:]))])
        for first, *others in lines
    )
