"""The pictures of the card."""

import csv
import io
import re
from pathlib import Path

import PIL.Image
import pytest
from huggingface_hub import DatasetCard

from conftest import FIXTURE, Source, contents, convert, to_csv
from synthchex_75k import LABELS

PICTURES = ["figures/labels.png", "figures/examples.png"]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("converted") / "o"
    assert convert(FIXTURE, output, "--figures") == 0
    return output


def test_they_are_small_and_as_wide_as_a_phone_can_show(converted: Path) -> None:
    for name in PICTURES:
        picture = PIL.Image.open(converted / name)
        picture.load()
        assert (converted / name).stat().st_size < 300_000
        assert 600 <= picture.width <= 800
        assert picture.convert("RGBA").getchannel("A").getextrema() == (255, 255), "it has a ground of its own"


def test_noise_fits_as_well(source: Source, images: dict[str, bytes], tmp_path: Path) -> None:
    noisy = io.BytesIO()
    PIL.Image.effect_noise((512, 512), 100).convert("RGB").save(noisy, "PNG")
    assert convert(source(images=dict.fromkeys(images, noisy.getvalue())), tmp_path / "o", "--figures") == 0
    assert (tmp_path / "o" / "figures/examples.png").stat().st_size < 300_000


def test_the_card_shows_them_in_words_too(converted: Path, table: list[dict[str, str]]) -> None:
    card = (converted / "README.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^!\[(.*)\]\((figures/\w+\.png)\)$", card, re.M))
    assert [*shown.values()] == PICTURES
    labels, examples = shown
    for label in LABELS:
        count = sum(row[label] in ("1", "1.0") for row in table)
        assert f"{label} {count} ({count / 12:.1%})" in labels
    assert examples.startswith(
        "6 rows, evenly spaced in the dataset, each image above its prompt: 1. There is no focal"
    )


def test_what_is_positive_is_so_by_the_label_policy(tmp_path: Path) -> None:
    convert(FIXTURE, tmp_path / "o", "--figures", "--uncertainty", "ones")
    with open(FIXTURE / "metadata.csv", newline="", encoding="utf-8") as file:
        count = sum(row["Pneumonia"] in ("1", "1.0", "-1", "-1.0") for row in csv.DictReader(file))
    assert f"Pneumonia {count} (" in (tmp_path / "o" / "README.md").read_text(encoding="utf-8")


def test_prompts_are_drawn_as_they_are(source: Source, table: list[dict[str, str]], tmp_path: Path) -> None:
    odd = ["$\\frac$ ![x](y) <!-- --> | `", "x" * 5_000, "\N{LATIN SMALL LETTER O WITH STROKE}\nline\n\nline", "$$"]
    for row, prompt in zip(table[::2], odd):
        row["prompt"] = prompt
    assert convert(source(table=to_csv(table)), tmp_path / "o", "--figures") == 0
    card = DatasetCard.load(tmp_path / "o" / "README.md").text
    assert r"1. $\\frac$ \!\[x\](y) \<\!-- --\> \| \`" in card
    assert convert(source(table=to_csv(table)), tmp_path / "o", "--figures", "--verify") == 0


def test_they_are_the_same_again(converted: Path, tmp_path: Path) -> None:
    assert convert(FIXTURE, tmp_path / "o", "--figures", "--num-proc", "3") == 0
    assert contents(tmp_path / "o") == contents(converted)


def test_without_matplotlib_it_says_so_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert convert(FIXTURE, tmp_path / "o", "--figures") == 1
    assert "error: the pictures of the card take matplotlib: pip install matplotlib, or pass --no-figures" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "o").exists()
    assert convert(FIXTURE, tmp_path / "o") == 0
    assert "![" not in (tmp_path / "o" / "README.md").read_text(encoding="utf-8")


def test_what_a_run_left_before_its_card_is_its_own(converted: Path, tmp_path: Path) -> None:
    output = tmp_path / "o"
    assert convert(FIXTURE, output, "--figures") == 0
    whole = contents(output)
    (output / "README.md").unlink()  # as if it was killed just before
    assert convert(FIXTURE, output, "--figures") == 0
    assert contents(output) == whole
    assert convert(FIXTURE, output) == 0
    assert not (output / "figures").exists()


@pytest.mark.parametrize("name", [*PICTURES, "croissant.json", "figures/other.png"])
def test_what_was_edited_is_not_replaced(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "o"
    assert convert(FIXTURE, output, "--figures") == 0
    path = output / name
    path.write_bytes((path.read_bytes() if path.exists() else b"") + b" ")
    edited = contents(output)
    assert convert(FIXTURE, output, "--figures") == 1
    error = capsys.readouterr().err
    assert "holds what no conversion has written, or what was edited or damaged since" in error
    assert error.endswith(f"(1 in all): {name}\n")
    assert contents(output) == edited
    assert convert(FIXTURE, output, "--figures", "--verify") == 1
    assert name in capsys.readouterr().out
