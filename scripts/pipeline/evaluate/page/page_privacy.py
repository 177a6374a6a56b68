"""Section `privacy` on the page: the headline in a sentence, what it does not show, the other metrics."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline import page
from pipeline.evaluate.page.glossary import meaning_of
from pipeline.evaluate.page.page_sections import method_parts, metric_card, percent
from pipeline.evaluate.page.page_tables import value_text
from pipeline.evaluate.page.published import Published
from pipeline.evaluate.page.side_by_side import Column, Key, keys_of, methods_of
from pipeline.evaluate.results.results_section import Measured

PUBLISHED_METRICS = ("reid_score", "latent_distance")
PRIVACY, HEADLINE = "privacy", "nearer_to_training"
NONE = 0.5  # of the headline, where nothing was memorised
NOT_SHOWN = (
    "None of these numbers proves privacy. Where they find copies there are some; where they find none, "
    "there may be some all the same.",
    "An encoder sees some things and not others: images that it calls far apart may show the same patient, and images "
    "that it calls near may share no more than a view and a finding. Another encoder may tell otherwise.",
    "A mean over all images hides a few copies: look at the closest pairs below, with your own eyes.",
    "Only those training images count that were given: a generator may have learnt from others before, which nobody "
    "looked at here.",
    "What prompts and file names tell of patients is not measured.",
)
NO_HELDOUT = (
    "Without held-out images nobody can say how near unseen real images would be, so that distances alone do not tell "
    "memorisation from good likeness: run `privacy` with --heldout."
)


def privacy_parts(columns: Sequence[Column], pictures: Sequence[str] = ()) -> list[str]:
    """Returns the section, as HTML.

    Args:
        columns: The results.
        pictures: The closest pairs, as HTML.
    """
    measured = [column for column in columns if column.section(PRIVACY)]
    if not measured:
        return []
    limits = [*NOT_SHOWN, *([NO_HELDOUT] if any("heldout" not in column.sides(PRIVACY) for column in measured) else [])]
    methods = methods_of(columns, PRIVACY)
    headlines = [_headline(columns, method) for method in methods]
    return [
        page.heading("Privacy", "how close synthetic images are to training images"),
        page.block([found for found in headlines if found], "headlines"),
        page.block([page.subheading("What this does not show"), page.bullets(limits)], "warning"),
        *(part for method in methods for part in method_parts(columns, PRIVACY, method, [HEADLINE])),
        *pictures,
    ]


def published_privacy_parts(columns: Sequence[Column], models: Published) -> list[str]:
    """Returns the published values of privacy beside those of the results; none if the results have no privacy.

    Args:
        columns: The results.
        models: The published values.
    """
    keys = [
        key
        for method in methods_of(columns, PRIVACY)
        for key in keys_of(columns, PRIVACY, method)
        if key.metric in PUBLISHED_METRICS and key.label is None
    ]
    if not keys:
        return []
    lines = {
        f"{meaning_of(key.metric).title}, {key.method}": [
            (cell, 0.0)
            for cell in (*(value_text(column.value(key)) for column in columns), *models.privacy(key.metric))
        ]
        for key in keys
    }
    heads = ["", *(column.head for column in columns), *models.names]
    title = "Privacy, beside the published values"
    return [
        page.heading(title),
        page.block([page.bullets(models.privacy_warnings)], "warning"),
        page.table(title, heads, lines),
    ]


def _headline(columns: Sequence[Column], method: str) -> str:
    keys = [key for key in keys_of(columns, PRIVACY, method) if key == Key(HEADLINE, method, section=PRIVACY)]
    if not keys:
        return ""
    found = {column.letter: column.measured.get(keys[0]) for column in columns}
    sentences = [
        ": ".join(text for text in (letter, _sentence(one)) if text)
        for letter, one in found.items()
        if one and one.value is not None
    ]
    said = [page.paragraph(sentence) for sentence in sentences]
    return page.block([page.small_heading(method), *said, metric_card(columns, keys, HEADLINE, "headline")], "card")


def _sentence(found: Measured) -> str:
    assert found.value is not None
    share = percent(found.value, found.ci_low, found.ci_high)
    start = (
        f"{share} of the synthetic images are nearer to the training images than to held-out ones; where nothing was "
        f"memorised it is {NONE:.0%}.".replace("50%", "50 %")
    )
    if found.ci_low is None or found.ci_high is None:
        return f"{start} Without an interval nobody can tell whether this is chance."
    if found.ci_low > NONE:
        return f"{start} This is more than chance explains: training images show through in what was generated."
    if found.ci_high < NONE:
        return (
            f"{start} This is less than chance explains, which memory cannot cause: the two sets of real images differ "
            "in kind. Choose held-out images of the same kind."
        )
    return f"{start} Chance alone explains this: no memory shows by this measure, which is no proof that there is none."
