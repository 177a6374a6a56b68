"""The options of `--backbone`, where no network can be trained."""

from inspect import signature
from pathlib import Path

import pytest

import evaluate_images
from pipeline.evaluate.utility.backbone import Backbone
from pipeline.evaluate.utility.utility import utility


def error_of(tmp_path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    arguments = ["utility", *(str(tmp_path / name) for name in ("train", "synthetic", "test", "results.json"))]
    assert evaluate_images.main([*arguments, *options]) == 1
    assert [*tmp_path.iterdir()] == []
    return capsys.readouterr().err


def test_the_command_has_the_defaults_of_the_network() -> None:
    of_command = signature(utility).parameters
    for name, parameter in signature(Backbone).parameters.items():
        if parameter.default is not parameter.empty:
            assert of_command[name].default == parameter.default, name


def test_one_kind_of_classifier_is_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    probe = ("--probe", "a", "b", "c")
    assert "choose one kind of classifier" in error_of(tmp_path, capsys)
    assert "choose one kind of classifier" in error_of(tmp_path, capsys, *probe, "--backbone", "resnet50")


def test_options_of_a_network_are_not_ignored_without_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--probe", "a", "b", "c", "--epochs", "3", "--image-size", "8")
    assert "--epochs; --image-size: of --backbone only" in error_of(tmp_path, capsys, *options)


def test_a_rate_that_is_not_positive_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--backbone", "resnet50", "--learning-rate", "-1")
    assert "--learning-rate -1 is not positive" in error_of(tmp_path, capsys, *options)


def test_a_missing_package_is_named_with_what_to_install(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = error_of(tmp_path, capsys, "--backbone", "resnet50")
    assert "the Python module timm: pip install torch torchvision timm accelerate" in error
