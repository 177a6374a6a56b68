"""The question that the filter asks a vision-language model, and the quality that its answer names."""

from __future__ import annotations

import itertools
import re

from pipeline.facts import META_PROMPT

QUALITIES = ("High Quality", "Medium Quality", "Low Quality", "Not Relevant")
UNPARSED = "Unparsed"
DROPPED = ("Low Quality", "Not Relevant")
CLAUSE_END = re.compile(r"[.,;:!?()\n]|\b(?:but|however|although)\b")
NEGATIONS = {"not", "no", "never", "neither", "nor", "without", "cannot", "hardly", "than"}
NEGATION_REACH = 3  # words: "not of very high quality"


def question(prompt: str, meta_prompt: str = META_PROMPT) -> str:
    """Returns the text that goes with an image: the meta-prompt, and the prompt that generated the image."""
    return f"{meta_prompt}\n\nDescription: {prompt}"


def parse_quality(response: str) -> str:
    """Finds the quality that an answer names.

    The answer is searched for the four qualities, ignoring case and punctuation. A match is ignored if one of the three
    words before it, in the same clause, is a negation. If exactly one quality is found, it is the answer's. If none or
    several are found, the answer is `UNPARSED`.

    Args:
        response: The answer.

    Returns:
        One of `QUALITIES`, or `UNPARSED`.

    Example:
        >>> parse_quality('"High-quality".'), parse_quality("I would say that it is not relevant to the description")
        ('High Quality', 'Not Relevant')
        >>> parse_quality("not high quality"), parse_quality("Medium Quality or Low Quality"), parse_quality("Good")
        ('Unparsed', 'Unparsed', 'Unparsed')
    """
    text = response.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    named = set()
    for clause in CLAUSE_END.split(text):
        words = [word for word in (word.strip("'") for word in re.findall(r"[a-z']+", clause)) if word]
        for index, pair in enumerate(itertools.pairwise(words)):
            quality = " ".join(pair).title()
            before = words[max(0, index - NEGATION_REACH) : index]
            if quality in QUALITIES and not any(word in NEGATIONS or word.endswith("n't") for word in before):
                named.add(quality)
    return named.pop() if len(named) == 1 else UNPARSED
