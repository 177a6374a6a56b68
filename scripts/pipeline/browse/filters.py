"""What a visitor of the page asks for, as a `Filter`, and as the query of the page's address."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable
from typing import NamedTuple

from synthchex_75k import LABELS

STATES: dict[str, int | None] = {"positive": 1, "negative": 0, "uncertain": -1, "not mentioned": None}
MATCHES = ("all", "any")
# Characters of a text that rows are searched for; three of them, each character escaped, fit into an address.
MAX_TEXT = 1000
SEARCHED = ("words", "patient", "name")
PHRASE = re.compile(r'"([^"]*)"?|(\S+)')


class Filter(NamedTuple):
    """What to show.

    Attributes:
        labels: Pairs of a label and one of `STATES`.
        match: `"all"`: every pair holds; `"any"`: one of them does.
        words: Words of the prompt, all of which occur; see `words_of`. This text, `patient` and `name` have at most
            `MAX_TEXT` characters.
        qualities: The judge's quality is one of these; empty: it is any.
        patient: The patient column has this text; empty: any.
        name: The file name contains this text.
        sort: Title of a list of an evaluation, whose images come first; empty: order of the source.
        page: Number of the page, from 1.
        image: File name of the image that is shown large; empty: none.
    """

    labels: tuple[tuple[str, str], ...] = ()
    match: str = "all"
    words: str = ""
    qualities: tuple[str, ...] = ()
    patient: str = ""
    name: str = ""
    sort: str = ""
    page: int = 1
    image: str = ""


def to_query(wanted: Filter) -> str:
    """Returns the query of an address, without its question mark; of the default nothing.

    Example:
        >>> to_query(Filter((("Edema", "positive"), ("Fracture", "not mentioned")), words="left apex", page=2))
        'label=Edema%3Apositive&label=Fracture%3Anot+mentioned&words=left+apex&page=2'
    """
    pairs = [("label", f"{label}:{state}") for label, state in wanted.labels]
    pairs += [("match", wanted.match)] if wanted.match != MATCHES[0] else []
    pairs += [("words", wanted.words)] if wanted.words else []
    pairs += [("quality", quality) for quality in wanted.qualities]
    texts = {name: str(getattr(wanted, name)) for name in ("patient", "name", "sort", "page", "image")}
    pairs += [(name, text) for name, text in texts.items() if text and (name, text) != ("page", "1")]
    return urllib.parse.urlencode(pairs, errors="replace")


def from_query(query: str) -> tuple[Filter, list[str]]:
    """Reads the query of an address.

    Args:
        query: The query, with or without its question mark. Names that begin with two underscores are Gradio's.

    Returns:
        The filter, and a sentence for each part that cannot be used.

    Example:
        >>> wanted, problems = from_query("?label=Edema:positive&label=Oedema:positive&__theme=dark")
        >>> wanted.labels, problems
        ((('Edema', 'positive'),), ["The address has an unknown label: 'Oedema:positive'."])
    """
    problems: list[str] = []
    labels: list[tuple[str, str]] = []
    found: dict[str, list[str]] = {}
    try:
        pairs = urllib.parse.parse_qsl(query.removeprefix("?"), keep_blank_values=True, max_num_fields=200)
    except ValueError:
        return Filter(), ["The address has more than 200 parts."]
    for name, text in pairs:
        if name.startswith("__"):
            continue
        label, _, state = text.partition(":")
        if name not in ("label", "match", "words", "quality", "patient", "name", "sort", "page", "image"):
            problems.append(f"The address has an unknown part: {name[:40]!r}.")
        elif name == "label" and (label not in LABELS or state not in STATES):
            problems.append(f"The address has an unknown label: {text[:60]!r}.")
        elif name == "match" and text not in MATCHES:
            problems.append(f"The address has match={text[:40]!r}; it is one of {', '.join(MATCHES)}.")
        elif name == "page" and not re.fullmatch(r"[1-9][0-9]{0,8}", text):
            problems.append(f"The address has page={text[:40]!r}; it is a number from 1 on.")
        elif name in SEARCHED and len(text) > MAX_TEXT:
            problems.append(f"The address has more than {MAX_TEXT:,} characters in {name}.")
        elif name == "label":
            labels.append((label, state))
        else:
            found.setdefault(name, []).append(text)
    last = {name: texts[-1] for name, texts in found.items()}
    page = int(last.pop("page", "1"))
    qualities = tuple(dict.fromkeys(found.get("quality", [])))
    last.pop("quality", None)
    return Filter(labels=tuple(dict.fromkeys(labels)), qualities=qualities, page=page, **last), problems


def words_of(text: str) -> list[str]:
    """Returns the words and, in double quotes, the phrases that a prompt must contain, without regard to case.

    Example:
        >>> words_of('Effusion "left base"')
        ['effusion', 'left base']
    """
    found = (phrase or word for phrase, word in PHRASE.findall(text.casefold()))
    return [word for word in found if word.strip()]


def label_choices() -> Iterable[str]:
    """Yields every label with every state, as the page names them.

    Example:
        >>> [*label_choices()][:2]
        ['Atelectasis: positive', 'Atelectasis: negative']
    """
    return (f"{label}: {state}" for label in LABELS for state in STATES)


def chosen_labels(choices: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Returns the pairs that `label_choices` names; other texts are left out.

    Example:
        >>> chosen_labels(["Edema: not mentioned", "Oedema: positive"])
        (('Edema', 'not mentioned'),)
    """
    pairs = (choice.partition(": ")[::2] for choice in choices)
    return tuple((label, state) for label, state in pairs if label in LABELS and state in STATES)
