"""Results as one page: what was compared, a leaderboard, and each section with the images that decide it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline import page
from pipeline.errors import StepError, counted
from pipeline.evaluate.page.page_compared import CHEXGENBENCH, compared_parts
from pipeline.evaluate.page.page_fidelity import fidelity_parts
from pipeline.evaluate.page.page_leaderboard import leaderboard_parts
from pipeline.evaluate.page.page_privacy import PRIVACY, privacy_parts, published_privacy_parts
from pipeline.evaluate.page.page_sections import method_parts
from pipeline.evaluate.page.page_tables import numbers_parts, side_by_side_parts
from pipeline.evaluate.page.pictures import Pictures
from pipeline.evaluate.page.published import Published, read_published
from pipeline.evaluate.page.side_by_side import Column, methods_of, read_side_by_side
from pipeline.files import atomic_write

STYLE = Path(__file__).with_name("report.css")
MAX_NAMES = 3  # of results, in the title


def report(
    results_json: list[Path],
    *,
    html: Path,
    real: str | None = None,
    synthetic: str | None = None,
    train: str | None = None,
    images: bool = True,
    published: bool = False,
) -> None:
    """Shows results on a page: metrics with intervals and what they compare with, and the images that decide them.

    Args:
        results_json: Results; several become columns of one table, and from three on a leaderboard. Their fidelity is
            of one protocol.
        html: File for the page.
        real: Source of the real images of fidelity, if it has moved since they were embedded.
        synthetic: The same of the synthetic images.
        train: The same of the training images.
        images: Whether images and their prompts are shown.
        published: Whether the published values of CheXGenBench are shown beside results of its protocol.

    Raises:
        SourceError: Results are damaged.
        StepError: Results cannot share a table, or an option does not fit them.
        OSError: A file cannot be read or written.
    """
    if html.resolve() in [path.resolve() for path in results_json]:
        raise StepError(f"--html: {html} holds results; choose another name for the page")
    columns = read_side_by_side(results_json)
    if published:
        _check_published(columns)
    pictures = Pictures(columns, real=real, train=train, synthetic=synthetic) if images else None
    text = results_page(columns, pictures, published).encode()
    atomic_write(html, text)
    print(f"{html}: {len(text) / 1e6:.1f} MB")
    if pictures and pictures.real_shown:
        shown = counted(pictures.real_shown, "real image")
        print(f"it contains {shown} and their prompts: share it only as their license allows")


def results_page(columns: Sequence[Column], pictures: Pictures | None = None, published: bool = False) -> str:
    """Returns the page.

    Args:
        columns: The results.
        pictures: Images of them. Default: none are shown.
        published: Whether to show the published values of CheXGenBench.

    Returns:
        HTML.
    """
    models = read_published() if published else None
    has_fidelity = any(column.results.fidelity for column in columns)
    of_fidelity = models if has_fidelity else None
    deciding = pictures.of_fidelity() if pictures and has_fidelity else []
    closest = pictures.of_section(PRIVACY) if pictures else []
    parts = [
        *(_real_images(pictures.real_shown) if pictures else []),
        *compared_parts(columns),
        *(_warnings(of_fidelity) if of_fidelity else []),
        *leaderboard_parts(columns, of_fidelity),
        *side_by_side_parts(columns, of_fidelity),
        *fidelity_parts(columns, of_fidelity),
        *deciding,
        *privacy_parts(columns, closest),
        *(published_privacy_parts(columns, models) if models else []),
        *(
            part
            for section in ("utility", "reports")
            for method in methods_of(columns, section)
            for part in method_parts(columns, section, method)
        ),
        *numbers_parts(columns),
    ]
    return page.render_page(_title(columns), parts, STYLE.read_text(encoding="utf-8"))


def _check_published(columns: Sequence[Column]) -> None:
    for column in columns:
        if column.results.fidelity and column.results.fidelity.protocol != CHEXGENBENCH:
            raise StepError(
                f"--published: the published values compare only with results of --protocol {CHEXGENBENCH}; "
                f"{column.file} is {column.results.fidelity.protocol}"
            )
    if not any(column.results.fidelity or column.section(PRIVACY) for column in columns):
        raise StepError("--published: there are published values of fidelity and privacy, and the results have neither")


def _title(columns: Sequence[Column]) -> str:
    names = [column.name for column in columns]
    title = ", ".join(names) if len(names) <= MAX_NAMES else f"{len(names)} sets of synthetic images"
    real = dict.fromkeys(column.results.fidelity.real.name for column in columns if column.results.fidelity)
    return f"{title} against {' and '.join(real)}" if real else title


def _warnings(models: Published) -> list[str]:
    return [page.heading("Published values"), page.block([page.bullets(models.warnings)], "warning")]


def _real_images(shown: int) -> list[str]:
    if not shown:
        return []
    about = (
        f"This page contains {counted(shown, 'real image')} and their prompts: share it only as their license allows."
    )
    return [page.block([page.paragraph(about)], "warning")]
