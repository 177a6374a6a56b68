"""`dataset.json` at the top of a SOURCE: what the dataset is called, by whom it is, how to license and cite it."""

from __future__ import annotations

import datetime
import re
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.source_json import parse_object
from synthchex_75k import SourceError, printable

DATASET_JSON = "dataset.json"
SYNTHETIC, REAL = "synthetic", "real"
# The identifiers of https://huggingface.co/docs/hub/repositories-licenses; the Hub refuses a card with another one.
LICENSES = frozenset(Path(__file__).with_name("licenses.txt").read_text(encoding="utf-8").split())


class DatasetFacts(NamedTuple):
    """What people state of a dataset: the keys of `dataset.json`. Empty where it is not stated.

    Args:
        name: What it is called.
        description: What it is, in a sentence or several.
        images: `"synthetic"` or `"real"`.
        authors: Names.
        license: A license identifier of the Hub, or the address of a license.
        citation: BibTeX.
        homepage: Address.
        paper: Address.
        date: When it was published: YYYY-MM-DD.
        version: Of the dataset, such as 1.0.0.
    """

    name: str = ""
    description: str = ""
    images: str = ""
    authors: tuple[str, ...] = ()
    license: str = ""
    citation: str = ""
    homepage: str = ""
    paper: str = ""
    date: str = ""
    version: str = ""

    @property
    def missing(self) -> list[str]:
        """The keys that are not stated."""
        return [key for key, value in self._asdict().items() if not value]


def parse_dataset_json(content: bytes, where: str) -> DatasetFacts:
    """Reads a `dataset.json`.

    Args:
        content: The file.
        where: Its address, for messages.

    Raises:
        SourceError: It is no JSON object, or all that is wrong with its keys and values.

    Example:
        >>> parse_dataset_json(b'{"name": "Chest", "authors": ["A. Person"]}', "dataset.json").authors
        ('A. Person',)
    """
    found = parse_object(content, where)
    problems = [f"unknown key {key!r:.80}; the keys are {', '.join(CHECKS)}" for key in found if key not in CHECKS]
    problems += [
        f"{key} must be {wanted}, not {found[key]!r:.80}"
        for key, (wanted, is_valid) in CHECKS.items()
        if key in found and not is_valid(found[key])
    ]
    if problems:
        raise SourceError("\n".join([f"{where} cannot be used as it is", *(f"- {printable(one)}" for one in problems)]))
    stated: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value.strip() for key, value in found.items()
    }
    return DatasetFacts()._replace(**stated)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_line(value: Any) -> bool:
    return _is_text(value) and value.isprintable()


def _are_lines(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_line, value))


def is_web_address(value: Any) -> bool:
    """True for an `http(s)` address without characters that would end it in a text.

    Example:
        >>> is_web_address("https://arxiv.org/abs/2505.10496"), is_web_address("https://a b"), is_web_address("x.org")
        (True, False, False)
    """
    if not _is_line(value) or not re.fullmatch(r'https?://[^\s<>"\\^`{|}]+', value):
        return False
    try:
        return bool(urllib.parse.urlsplit(value).hostname)
    except ValueError:
        return False


def _is_license(value: Any) -> bool:
    return isinstance(value, str) and (value in LICENSES or is_web_address(value))


def _is_date(value: Any) -> bool:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        return False
    try:
        return bool(datetime.date.fromisoformat(value))
    except ValueError:
        return False


def _is_bibtex(value: Any) -> bool:
    """True for a text that the card can hold in a block of code: no line ends the block, no comment its section."""
    if not isinstance(value, str) or not re.fullmatch(r"\s*@\w+\s*\{.*\}\s*", value, re.DOTALL):
        return False
    is_shown = all(char.isprintable() or char in "\r\n\t" for char in value)
    return is_shown and "<!--" not in value and not re.search(r"^\s*(```|~~~)", value, re.MULTILINE)


CHECKS: dict[str, tuple[str, Callable[[Any], bool]]] = {  # what a value must be
    "name": ("one line of text", _is_line),
    "description": ("a text", _is_text),
    "images": ('"synthetic" or "real"', lambda value: value in (SYNTHETIC, REAL)),
    "authors": ("a list of names", _are_lines),
    "license": ("a license identifier of the Hub such as cc-by-4.0, its address, or other", _is_license),
    "citation": ("BibTeX, starting with @", _is_bibtex),
    "homepage": ("an address, https://…", is_web_address),
    "paper": ("an address, https://…", is_web_address),
    "date": ("a date, YYYY-MM-DD", _is_date),
    "version": ("one line of text, such as 1.0.0", _is_line),
}
