"""The question that the filtration puts to a vision-language model, and how its answer is read."""

from __future__ import annotations

import itertools
import re

# In the words of the dataset's page.
META_PROMPT = (
    "You are an expert radiologist and medical annotator. Your task is to assess the quality of an image given its "
    "description and classify the image as either 'High Quality', 'Medium Quality', or 'Low Quality'. Keep your "
    "responses limited to only these three options. If the image is not relevant to the description, respond with "
    "'Not Relevant'."
)
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
    """Reads a model's answer.

    It names a quality where the quality's two words follow each other, whatever their case and whatever stands between
    and around them: quotes, hyphens, a sentence. A quality does not count where up to three words before it, in the
    same clause, there is a negation: "not high quality" names nothing, "low quality, not high quality" names one. The
    answer's quality is the one that it names; an answer that names none, or several, is `UNPARSED`.

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
        words = re.findall(r"[a-z']+", clause)
        words = [word for word in (word.strip("'") for word in words) if word]
        for place, pair in enumerate(itertools.pairwise(words)):
            quality = " ".join(pair).title()
            before = words[max(0, place - NEGATION_REACH) : place]
            if quality in QUALITIES and not any(word in NEGATIONS or word.endswith("n't") for word in before):
                named.add(quality)
    return named.pop() if len(named) == 1 else UNPARSED
