"""The error that ends a program, and short texts for messages."""

from __future__ import annotations

import traceback
from collections.abc import Sequence

from synthchex_75k import printable


class StepError(Exception):
    """A step cannot start or continue; the message says what is wrong, where, and what to do."""


class MissingPackageError(StepError):
    """An optional package is not installed; the message tells what to install."""


class TerminatedError(SystemExit):
    """The program got SIGTERM; a function of a user that raises SystemExit raises another class."""


def one_line(text: object) -> str:
    """Returns a text, such as the message of a library's error, in one line."""
    return " ".join(str(text).split())


def describe_error(error: BaseException, with_place: bool = False) -> str:
    """Returns an error in one line of at most 300 characters, with file and line where it was raised if wanted.

    The line is `printable`, so a CSV can hold it.
    """
    text = printable(one_line(f"{type(error).__name__}: {error}"))[:300]
    if not with_place:
        return text
    place = traceback.extract_tb(error.__traceback__)[-1]
    return printable(f"{text} ({place.filename}:{place.lineno})")


def listing(items: Sequence[object], limit: int = 5, separator: str = "; ") -> str:
    """Joins the first items of a list, and counts the others.

    Args:
        items: What to list; each is made `printable`.
        limit: How many to show.
        separator: What to put between them.

    Example:
        >>> listing(["a", "b"]), listing("abcdefg", limit=3)
        ('a; b', 'a; b; c; and 4 more')
    """
    others = [f"and {len(items) - limit:,} more"] if len(items) > limit else []
    return separator.join([*(printable(str(item)) for item in items[:limit]), *others])


def counted(number: int, noun: str, plural: str = "") -> str:
    """Returns a number with its noun.

    Example:
        >>> counted(1, "file"), counted(1200, "file"), counted(2, "entry", "entries")
        ('1 file', '1,200 files', '2 entries')
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
