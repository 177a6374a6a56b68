"""Encoders by name: which there are, and what is said of the others. No package of an encoder is needed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from evaluate_images import main
from pipeline.errors import StepError
from pipeline.evaluate.encoders.registry import ENCODERS, OTHERS, VISION_MODELS, resolve_encoder
from pipeline.evaluate.encoders.transformers_model import OLDEST
from pipeline.evaluate.encoders.xrv import PATHOLOGY_NAMES, XRV_LABELS
from synthchex_75k import LABELS


def error_of(name: str, model: str | None = None, revision: str | None = None) -> str:
    with pytest.raises(StepError) as caught:
        resolve_encoder(name, model, revision)
    return str(caught.value)


def test_names_are_those_of_files_and_each_tells_what_to_install() -> None:
    assert {*VISION_MODELS} | {*OTHERS} == {*ENCODERS}
    for name, about in ENCODERS.items():
        assert name == name.lower()
        assert "pip install" in about or "README" in about


def test_an_unknown_name() -> None:
    message = error_of("raddino")
    assert message.startswith("--encoder raddino: no such encoder; name one of rad-dino, dinov2, clip, ")
    assert message.endswith("a folder, a model on the Hub as USER/NAME, or a function as MODULE:FUNCTION")


def test_the_manual_has_the_same_table() -> None:
    manual = (ROOT / "scripts/README.md").read_text(encoding="utf-8")
    manual = manual.partition("| `--encoder` | width |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `([a-z][\w-]*)`.*? \| (.+?) \| .+ \| (.+) \|$", manual, re.MULTILINE)
    assert [name for name, *_ in rows] == [*ENCODERS]
    last = ""
    for name, width, install in rows:
        last = {"the same": last, "see below": "see scripts/README.md"}.get(
            install, f"pip install {install.strip('`')}"
        )
        assert ENCODERS[name].endswith(f"; {width}; {last}".replace('"', "'"))


MISSING = {
    "torch": "torch 'transformers>=5.4'",
    "torch_fidelity": "torch-fidelity torchvision",
    "torchxrayvision": "torchxrayvision",
    "radiomics": "numpy setuptools wheel versioneer && pip install --no-build-isolation pyradiomics==3.0.1",
}


@pytest.mark.parametrize("name", [*ENCODERS, "alice/model"])
def test_a_missing_package_is_the_first_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in MISSING:
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    package = {"inception": "torch_fidelity", "xrv": "torchxrayvision", "radiomics": "radiomics"}.get(name, "torch")
    assert main(["embed", str(tmp_path / "no-source"), str(tmp_path / "features"), "--encoder", name]) == 1
    message = f"error: this model needs the Python module {package}: pip install {MISSING[package]}\n"
    assert capsys.readouterr() == ("", message)
    assert not (tmp_path / "features").exists()


def test_the_version_to_install_is_the_oldest_that_is_taken() -> None:
    assert MISSING["torch"].endswith(f">={'.'.join(map(str, OLDEST))}'")


def test_pathologies_are_named_without_torch() -> None:
    code = "import sys, pipeline.evaluate.fidelity.protocol_sound, pipeline.evaluate.encoders.registry\n"
    code += "print({'torch', 'transformers', 'torchvision', 'skimage', 'scipy'} & {*sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("set()\n", "")
    assert {*XRV_LABELS.values()} <= {*PATHOLOGY_NAMES}
    assert {*LABELS} - {*XRV_LABELS} == {"No Finding", "Pleural Other", "Support Devices"}


def test_weights_for_an_encoder_that_is_weights(tmp_path: Path) -> None:
    for name in ("alice/model", str(tmp_path), "module:function"):
        assert error_of(name, model="alice/other").startswith(f"--model alice/other: --encoder {name} takes no other")


def test_a_revision_of_a_function() -> None:
    message = error_of("module:function", revision="main")
    assert message == "--revision is for models on the Hub; --encoder module:function is a function"
