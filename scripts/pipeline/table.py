"""Tables: as CSV, and as plain text for a terminal or a log."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence


def csv_bytes(rows: Iterable[Iterable[object]]) -> bytes:
    r"""Returns rows as CSV, each ended by a line feed.

    A field with a line break of any kind is quoted: Python before 3.13 quotes only those of the line terminator, so it
    is both characters here. Characters that a CSV in UTF-8 cannot hold are replaced: lone surrogates by `?`, NUL by
    U+FFFD.

    Example:
        >>> csv_bytes([["a", 1], ["two\rlines", None]])
        b'a,1\n"two\rlines",\n'
    """
    lines = []
    for row in rows:
        line = io.StringIO()
        csv.writer(line, lineterminator="\r\n").writerow(map(_without_nul, row))
        lines.append(line.getvalue().removesuffix("\r\n") + "\n")
    return "".join(lines).encode("utf-8", "replace")


def _without_nul(field: object) -> object:
    return field.replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(field, str) else field


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
