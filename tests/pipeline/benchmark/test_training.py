"""`benchmark.py --training`; it needs torch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from conftest import FIXTURE, ROOT, convert
from pipeline.benchmark import loaders
from pipeline.benchmark.sources import make_forms

pytestmark = pytest.mark.slow
SIDES = {"whole": 512}
WAYS = ("arrow", "parquet", "parquet_stream", "imagefolder", "webdataset", "mapped", "torch_format", "whole")


def benchmark(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "benchmark.py"), "--training", *options]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all forms of the fixture."""
    folder = tmp_path_factory.mktemp("forms")
    make_forms(FIXTURE, folder, images_per_tar=5)
    folder.joinpath("release").symlink_to(FIXTURE)
    assert convert(folder / "release", folder / "parquet", "--max-shard-size", "400KB") == 0
    loaders.prepare(folder, folder)
    return folder


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", WAYS)
def test_all_ways_give_the_same_images(name: str, workers: int, forms: Path) -> None:
    way = getattr(loaders, name)(forms)
    loader = DataLoader(way.dataset, loaders.BATCH, num_workers=workers, collate_fn=way.collate)
    images = torch.cat([way.after(batch) for batch in loader])
    side = SIDES.get(name, loaders.SIDE)
    assert (images.shape, images.dtype) == ((12, 1, side, side), torch.float32)
    expected = loaders.arrow(forms)
    wanted = expected.collate([*expected.dataset]).mean((1, 2, 3))
    means = images.mean((1, 2, 3))
    # Workers take turns. Weights of red, green and blue differ between `convert` and `mean`.
    assert torch.allclose(means.sort().values, wanted.sort().values, atol=0.002)


def test_without_decoding_it_gives_sizes_of_files(forms: Path, images: dict[str, bytes]) -> None:
    way = loaders.undecoded(forms)
    (sizes,) = DataLoader(way.dataset, loaders.BATCH, collate_fn=way.collate)
    assert sizes.tolist() == [*map(len, images.values())]


def test_streams_have_files_for_several_workers(forms: Path) -> None:
    assert loaders.parquet_stream(forms).dataset.num_shards > 2
    assert loaders.webdataset(forms).dataset.num_shards == 3


@pytest.mark.timeout(900)
def test_it_prints_a_table_of_speeds_and_memory() -> None:
    run = benchmark("--python", sys.executable, "--images", "256", "--rounds", "1")
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[0].startswith("256 images (512 pixels: 2") and f"torch {torch.__version__}" in lines[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    figures = {row[0]: [float(cell.rstrip(" MB").replace(",", "") or 0) for cell in row[1:]] for row in rows[2:]}
    assert len(figures) == 9 and {len(cells) for cells in figures.values()} == {8}
    in_both = {name: cells for name, cells in figures.items() if all(cells)}
    assert len(in_both) == 6
    for cells in in_both.values():
        assert cells[4] > cells[0]  # fewer pixels are decoded in less time, in this process
        assert cells[3] > 100  # MB
    assert figures["Arrow cache, not decoded"][0] > 2 * figures["Arrow cache, decoded and not resized"][0]


def test_errors_come_before_the_work(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # without site-packages
    python.chmod(0o755)
    for options, message in {
        (): "--training: name a Python that has torch, datasets and pillow with --python",
        ("--python", str(tmp_path / "no")): f"--python: {tmp_path / 'no'} cannot be run: No such file or directory",
        ("--python", str(python)): f"--python: {python} cannot import torch (ModuleNotFoundError: No module named",
        ("--python", sys.executable, "--images", "255"): "--images: at least 256",
        ("--evaluation",): "not allowed with argument",
    }.items():
        run = benchmark(*options)
        assert run.returncode == 2 and message in run.stderr, run.stderr
