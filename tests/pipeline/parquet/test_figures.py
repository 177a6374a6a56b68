"""Figures of the card."""

import io
import re
import shutil
from pathlib import Path
from typing import Any

import matplotlib.figure
import matplotlib.text
import PIL.Image
import pytest

from conftest import FIXTURE, Rows, contents, convert, plan
from images import gray_16
from pipeline.parquet.figures import Figure, FigureData, count_positive, render
from synthchex_75k import LABELS

FIGURES = ["figures/labels.png", "figures/examples.png"]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("converted") / "o"
    assert convert(FIXTURE, output, "--figures") == 0
    return output


@pytest.fixture
def output(converted: Path, tmp_path: Path) -> Path:
    return shutil.copytree(converted, tmp_path / "o")


@pytest.fixture
def examples(expected: Rows) -> Rows:
    """Rows as `synthchex_75k.examples` yields them."""
    return [{**row, "image": {"bytes": row["image"], "path": row["filename"]}} for row in expected]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts of all figures that are saved, in this process."""
    texts: list[str] = []
    savefig = matplotlib.figure.Figure.savefig

    def recording(figure: Any, *arguments: Any, **options: Any) -> None:
        savefig(figure, *arguments, **options)
        texts.extend(text.get_text() for text in figure.findobj(matplotlib.text.Text))

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", recording)
    return texts


def check_size(figure: Figure) -> None:
    image = PIL.Image.open(io.BytesIO(figure.png))
    image.load()
    assert len(figure.png) < 300_000
    assert 600 <= image.width <= 800
    assert image.convert("RGBA").getchannel("A").getextrema() == (255, 255), "the background is opaque"


def test_figures_are_small_and_opaque(converted: Path) -> None:
    for name in FIGURES:
        check_size(Figure(name, "", (converted / name).read_bytes()))


@pytest.mark.slow
def test_figures_of_noise_are_small(examples: Rows) -> None:
    noisy = io.BytesIO()
    PIL.Image.effect_noise((512, 512), 100).convert("RGB").save(noisy, "PNG")
    for row in examples:
        row["image"]["bytes"] = noisy.getvalue()
    for figure in render(FigureData(12, dict.fromkeys(LABELS, 12), examples[:6])):
        check_size(figure)


def test_card_shows_the_figures_with_alternative_texts(converted: Path) -> None:
    card = (converted / "README.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^!\[(.*)\]\((figures/\w+\.png)\)$", card, re.M))
    assert [*shown.values()] == FIGURES
    assert [*shown] == [
        "Bar chart of how many of the 12 rows have each label, from Support Devices (2) to Atelectasis (1).",
        "6 images of the dataset, each above its positive labels and its prompt.",
    ]


@pytest.mark.filterwarnings("ignore:Glyph")
def test_figures_show_counts_labels_and_prompts(examples: Rows, drawn: list[str]) -> None:
    render(FigureData(12, count_positive(plan(FIXTURE), "keep"), examples[:6]))
    for label in LABELS:
        count = sum(row["labels_dict"][label] == 1 for row in examples)
        assert label in drawn
        assert f"{count} ({count / 12:.1%})" in drawn
    under_images = ["".join(text.split()) for text in drawn]
    for row in examples[:6]:
        positive = [label for label, value in row["labels_dict"].items() if value == 1]
        text = f"Labels: {', '.join(positive) or 'none'} {row['prompt'][:20]}"
        assert any(under_image.startswith("".join(text.split())) for under_image in under_images), text


def test_16_bits_are_not_clipped(examples: Rows) -> None:
    examples[0]["image"]["bytes"] = gray_16(330)
    (figure,) = (
        figure for figure in render(FigureData(1, dict.fromkeys(LABELS, 1), examples[:1])) if "ex" in figure.path
    )
    shown = PIL.Image.open(io.BytesIO(figure.png)).convert("L")
    row = shown.crop((0, 200, shown.width, 201)).tobytes()
    assert sum(100 < value < 156 for value in row) > 50, "a ramp has grays"


@pytest.mark.parametrize("uncertainty", ["zeros", "ones", "keep"])
def test_counts_follow_the_label_policy(uncertainty: str, expected: Rows) -> None:
    positive = (1, -1) if uncertainty == "ones" else (1,)
    counts = {label: sum(row["labels_dict"][label] in positive for row in expected) for label in LABELS}
    assert count_positive(plan(FIXTURE), uncertainty) == counts


def test_unusual_prompts(examples: Rows, drawn: list[str]) -> None:
    formula = "$\\frac$ ![x](y) <!-- --> | `"
    prompts = [formula, "x" * 5_000, "\N{LATIN SMALL LETTER O WITH STROKE}\nline\n\nline", "$$", " "]
    for row, prompt in zip(examples, prompts):
        row["prompt"] = prompt
    figures = render(FigureData(12, dict.fromkeys(LABELS, 0), examples[:5]))
    assert any(text.endswith(f"\n{formula}") for text in drawn), "drawn as text, not as a formula"
    for figure in figures:
        check_size(figure)


@pytest.mark.slow
def test_figures_are_deterministic(converted: Path, tmp_path: Path) -> None:
    assert convert(FIXTURE, tmp_path / "o", "--figures", "--num-proc", "3") == 0
    assert contents(tmp_path / "o") == contents(converted)


def test_figures_are_removed_without_the_option(output: Path) -> None:
    assert convert(FIXTURE, output) == 0
    assert not (output / "figures").exists()
    assert "![" not in (output / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_missing_card_and_figure_are_written_again(output: Path) -> None:
    whole = contents(output)
    (output / "README.md").unlink()
    (output / FIGURES[0]).unlink()
    assert convert(FIXTURE, output, "--figures") == 0
    assert contents(output) == whole


@pytest.mark.parametrize("name", [*FIGURES, "figures/other.png"])
def test_edited_and_foreign_figures_are_refused_and_kept(name: str, output: Path, capsys: Any) -> None:
    path = output / name
    path.write_bytes((path.read_bytes() if path.exists() else b"") + b" ")
    edited = contents(output)
    for options in (["--figures"], ["--no-figures"], ["--figures", "--overwrite"]):
        assert convert(FIXTURE, output, *options) == 1
        assert f"did not write or that changed since then: {name}. Move or delete it" in capsys.readouterr().err
        assert contents(output) == edited
    assert convert(FIXTURE, output, "--verify") == 1
    assert name in capsys.readouterr().out
