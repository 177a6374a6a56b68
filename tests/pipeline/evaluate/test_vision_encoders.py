"""The encoders `inception`, `xrv` and `radiomics`: real classes with random weights, real pyradiomics."""

import importlib
import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import random_networks
from conftest import ROOT
from pipeline.errors import StepError
from pipeline.evaluate.encoders import inception, radiomics, xrv
from pipeline.evaluate.encoders.encoder import FEATURE, LOGITS, Encoder, EncoderModel
from random_networks import fidelity

pytestmark = pytest.mark.slow
torch.set_num_threads(1)

Resolve = Callable[[str | None, str | None], Encoder]
RESOLVE: dict[str, Resolve] = {"inception": inception.resolve_inception, "xrv": xrv.resolve_xrv}
PATHOLOGIES = xrv.PATHOLOGIES


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file for each network."""
    folder = tmp_path_factory.mktemp("weights")
    random_networks.save_inception(folder / "inception.pth")
    torch.save(random_networks.densenet().state_dict(), folder / "xrv.pt")
    return {"inception": folder / "inception.pth", "xrv": folder / "xrv.pt"}


@pytest.fixture(scope="session")
def models(weights: dict[str, Path]) -> dict[str, EncoderModel]:
    """Each encoder, loaded."""
    loaded = {name: resolve(str(weights[name]), None).load() for name, resolve in RESOLVE.items()}
    return loaded | {"radiomics": radiomics.resolve_radiomics(None, None).load()}


def picture(width: int, height: int, seed: int = 0, is_grey: bool = True) -> PIL.Image.Image:
    """Draws smooth waves with some noise."""
    random = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(0, 9, width), np.linspace(0, 9, height))
    channels = [100 + 60 * np.sin(x + seed + shift) + 60 * np.cos(y * (1 + seed)) for shift in (0, 1, 2)]
    noisy = np.stack(channels, axis=-1) + random.normal(0, 9, (height, width, 1))
    pixels = noisy[:, :, :1].repeat(3, 2) if is_grey else noisy
    return PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


SIZES = [(512, 512), (64, 40), (33, 700), (1, 1), (2, 3)]


# The same as the package that an encoder is from


@pytest.mark.parametrize("size", SIZES)
def test_inception_is_that_of_torch_fidelity(
    size: tuple[int, int], weights: dict[str, Path], models: dict[str, EncoderModel]
) -> None:
    image = picture(*size, is_grey=False)
    own = fidelity.FeatureExtractorInceptionV3(
        "own", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights["inception"])
    )
    feature, logits = own(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None])
    found = models["inception"].encode([image], [""])
    assert {name: output.shape for name, output in found.items()} == {FEATURE: (1, 2048), LOGITS: (1, 1008)}
    np.testing.assert_array_equal(found[FEATURE], feature.numpy())
    np.testing.assert_array_equal(found[LOGITS], logits.numpy())
    assert found[FEATURE].std() > 0.01


def test_scores_of_torch_fidelity(weights: dict[str, Path], models: dict[str, EncoderModel]) -> None:
    sets = [[picture(80, 60, seed, is_grey=False) for seed in seeds] for seeds in (range(6), range(6, 12))]
    arrays = [torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in part]) for part in sets]
    options: dict[str, Any] = {
        "cuda": False,
        "verbose": False,
        "batch_size": 1,
        "isc_splits": 2,
        "kid_subset_size": 4,
        "cache": False,
    }
    options |= {"feature_extractor_weights_path": str(weights["inception"])}
    wanted = fidelity.calculate_metrics(
        input1=Pixels(arrays[0]), input2=Pixels(arrays[1]), isc=True, kid=True, **options
    )
    first, second = ({k: torch.from_numpy(v) for k, v in models["inception"].encode(s, [""] * 6).items()} for s in sets)
    found = fidelity.metric_isc.isc_features_to_metric(first[LOGITS], splits=2, shuffle=True)
    kid = {"kid_subset_size": 4, "verbose": False}
    found |= fidelity.metric_kid.kid_features_to_metric(first[FEATURE], second[FEATURE], **kid)
    assert found == pytest.approx(wanted, rel=1e-9)
    assert wanted["inception_score_mean"] > 1.0001


class Pixels(torch.utils.data.Dataset):
    """Images in torch-fidelity's form."""

    def __init__(self, images: Any) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, number: int) -> Any:
        return self._images[number]


@pytest.fixture(scope="session")
def own_xrv(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The package's own model, calibrated as it does by default, and its file: a whole network, as the authors save."""
    folder = tmp_path_factory.mktemp("xrv")
    path = folder / random_networks.xrv.models.model_urls[xrv.WEIGHTS]["weights_url"].rpartition("/")[2]
    torch.save(random_networks.densenet(), path, _use_new_zipfile_serialization=False)  # of before torch 1.6
    return path, random_networks.xrv.models.DenseNet(weights=xrv.WEIGHTS, cache_dir=str(folder))


@pytest.mark.parametrize("size", SIZES)
def test_xrv_is_that_of_torchxrayvision(
    size: tuple[int, int], models: dict[str, EncoderModel], own_xrv: tuple[Path, Any], tmp_path: Path
) -> None:
    image, own = picture(*size), own_xrv[1]
    image.save(tmp_path / "image.png")
    pixels = random_networks.xrv.utils.load_image(str(tmp_path / "image.png"))
    for step in (random_networks.xrv.datasets.XRayCenterCrop(), random_networks.xrv.datasets.XRayResizer(224)):
        pixels = step(pixels)
    batch = torch.from_numpy(pixels)[None]
    with torch.inference_mode():
        feature, calibrated = own.features2(batch).numpy(), own(batch).numpy()
    found = models["xrv"].encode([image], [""])
    np.testing.assert_array_equal(found[FEATURE], feature)
    sigmoid = torch.from_numpy(found[PATHOLOGIES]).sigmoid()
    np.testing.assert_array_equal(random_networks.xrv.models.op_norm(sigmoid, own.op_threshs).numpy(), calibrated)
    assert found[FEATURE].shape == (1, 1024) and found[FEATURE].std() > 0.01


def test_pathologies_are_those_of_torchxrayvision(own_xrv: tuple[Path, Any]) -> None:
    assert own_xrv[1].targets == [*xrv.PATHOLOGY_NAMES]


def test_radiomics_is_that_of_frd_score(models: dict[str, EncoderModel], tmp_path: Path) -> None:
    frd: Any = importlib.import_module("frd_score.frd")
    with open(frd.V1_CONFIG_2D, encoding="utf-8") as file:
        assert yaml.safe_load(file) == radiomics.SETTINGS
    image = picture(512, 512)
    image.convert("L").save(tmp_path / "image.png")
    extractor = frd.get_feature_extractor("v1")
    values, by_name, _ = frd.process_image_mask_pair((tmp_path / "image.png", None), feature_extractor=extractor)
    encoder = radiomics.resolve_radiomics(None, None)
    assert encoder.columns == tuple(by_name)
    found = models["radiomics"].encode([image], [""])[FEATURE]
    np.testing.assert_array_equal(found, np.array([values], np.float32))


def test_radiomics_says_that_log_gives_no_features() -> None:
    about = radiomics.resolve_radiomics(None, None).describe()
    columns = about["classes"][FEATURE]
    assert about["preprocessing"]["image_types_without_features"] == ["LoG"]
    assert len(columns) == 398 and sum(column.startswith("diagnostics_") for column in columns) == 13


# Batches


@pytest.mark.parametrize("name", ["inception", "xrv", "radiomics"])
def test_a_batch_is_its_images_one_by_one(name: str, models: dict[str, EncoderModel]) -> None:
    sizes = np.random.default_rng(0).integers(2, 300, (8, 2)).tolist() * 2
    images = [picture(width, height, seed) for seed, (width, height) in enumerate(sizes)]
    model: Any = models[name]
    batch = model.encode(images, [""] * 16)
    some = [*range(0, 16, 4)]
    one_by_one = [models[name].encode([images[number]], [""]) for number in some]
    for output, rows in batch.items():
        assert rows.dtype == np.float32 and np.isfinite(rows).all() and len(rows) == 16
        np.testing.assert_array_equal(rows[some], np.concatenate([one[output] for one in one_by_one]))
        assert len(np.unique(rows, axis=0)) == 16
    if name != "radiomics":
        with torch.inference_mode():
            together = model.compute(images, [""] * 16)  # as on a GPU: those of one size at once
        for output, rows in batch.items():
            np.testing.assert_allclose(together[output], rows, rtol=1e-3, atol=1e-3 * abs(rows).max())


@settings(max_examples=5)
@given(st.data())
def test_any_size(models: dict[str, EncoderModel], data: st.DataObject) -> None:
    size = data.draw(st.tuples(st.integers(1, 900), st.integers(1, 900)).filter(lambda size: min(size) > 1))
    for model in models.values():
        for rows in model.encode([picture(*size)], [""]).values():
            assert np.isfinite(rows).all()


@pytest.mark.parametrize("image", [PIL.Image.new("RGB", (512, 512), "black"), PIL.Image.new("RGB", (1, 1), "white")])
def test_an_image_of_one_grey_value_has_no_radiomics(image: PIL.Image.Image, models: dict[str, EncoderModel]) -> None:
    with pytest.raises(ValueError, match=r"^image 2 of its batch: it has one grey value only"):
        models["radiomics"].encode([picture(9, 9), image], ["", ""])


# Descriptions


def test_a_description_tells_the_weights(weights: dict[str, Path], tmp_path: Path) -> None:
    for name, resolve in RESOLVE.items():
        about = resolve(str(weights[name]), None).describe()
        assert json.loads(json.dumps(about)) == about
        assert {"model", "weights_sha256", "preprocessing", "output", "dtype", "versions"} <= {*about}
        assert about["model"] == weights[name].name
        (tmp_path / name).mkdir()
        other = tmp_path / name / weights[name].name
        other.write_bytes(weights[name].read_bytes())
        assert resolve(str(other), None).describe() == about
        state = torch.load(other, weights_only=True)
        next(iter(state.values())).view(-1)[0] += 1
        torch.save(state, other)
        assert resolve(str(other), None).describe() != about


def test_an_encoder_can_be_pickled(weights: dict[str, Path]) -> None:
    encoders = [resolve(str(weights[name]), None) for name, resolve in RESOLVE.items()]
    for encoder in (*encoders, radiomics.resolve_radiomics(None, None)):
        assert pickle.loads(pickle.dumps(encoder)).describe() == encoder.describe()
        assert re.fullmatch(r"[a-z0-9._-]+", encoder.name) and not encoder.uses_prompts


# Weights


def test_weights_in_the_cache_of_their_package(
    weights: dict[str, Path], own_xrv: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    cache = tmp_path / ".torchxrayvision/models_data"
    cache.mkdir(parents=True)
    (cache / own_xrv[0].name).write_bytes(own_xrv[0].read_bytes())
    assert xrv.resolve_xrv(None, None) == xrv.resolve_xrv(str(cache / own_xrv[0].name), None)

    monkeypatch.setattr(fidelity.feature_extractor_inceptionv3, "URL_INCEPTION_V3", weights["inception"].as_uri())
    with pytest.raises(StepError, match=r"cannot be downloaded: .*invalid hash value"):
        inception.resolve_inception(None, None)
    sha256 = inception.resolve_inception(str(weights["inception"]), None).checkpoint.sha256
    monkeypatch.setattr(inception, "DOWNLOAD_SHA256", sha256)
    assert inception.resolve_inception(None, None).checkpoint.sha256 == sha256
    cached = tmp_path / "torch/hub/checkpoints/inception.pth"
    cached.write_bytes(b"cut off")
    with pytest.raises(StepError, match=rf"^{cached} is not what torch-fidelity downloads"):
        inception.resolve_inception(None, None)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_whole_network_is_read_without_its_code(
    new_format: bool, tmp_path: Path, models: dict[str, EncoderModel]
) -> None:
    network = random_networks.densenet()
    network.pathologies, network.thresholds = [*xrv.PATHOLOGY_NAMES], np.ones(18)
    torch.save(network, tmp_path / "whole.pt", _use_new_zipfile_serialization=new_format)
    found = xrv.resolve_xrv(str(tmp_path / "whole.pt"), None).load().encode([picture(50, 50)], [""])
    wanted = models["xrv"].encode([picture(50, 50)], [""])
    np.testing.assert_array_equal(found[FEATURE], wanted[FEATURE])
    np.testing.assert_array_equal(found[PATHOLOGIES], wanted[PATHOLOGIES])


class Code:
    """An object whose pickle runs a program."""

    def __init__(self, proof: Path) -> None:
        self._proof = proof

    def __reduce__(self) -> Any:
        return subprocess.call, (["touch", str(self._proof)],)


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("name", [*RESOLVE])
def test_code_in_a_file_is_not_run(name: str, new_format: bool, weights: dict[str, Path], tmp_path: Path) -> None:
    path, proof = tmp_path / "weights.pt", tmp_path / "proof"
    reason = r"a file of weights has something other than tensors, which may be code, and is not read: [\w.]+$"
    state = torch.load(weights[name], weights_only=True)
    network = random_networks.densenet()
    network.surprise = Code(proof)
    for content in ({**state, "surprise": Code(proof)}, network, Code(proof)):
        torch.save(content, path, _use_new_zipfile_serialization=new_format)
        with pytest.raises(StepError, match=rf"^--encoder {name}: {path} cannot be loaded: {reason}"):
            RESOLVE[name](str(path), None).load()
    path.write_bytes(pickle.dumps(Code(proof)))
    with pytest.raises(StepError, match=r"weights.pt cannot be loaded"):
        RESOLVE[name](str(path), None).load()
    assert not proof.exists()
    pickle.loads(path.read_bytes())
    assert proof.exists()


@pytest.mark.parametrize("name", [*RESOLVE])
def test_a_wrong_file(name: str, weights: dict[str, Path], tmp_path: Path) -> None:
    resolve, path = RESOLVE[name], tmp_path / "weights.pt"
    other = weights["xrv" if name == "inception" else "inception"].read_bytes()
    for content in (b"", b"no weights", weights[name].read_bytes()[:-1000], other):
        path.write_bytes(content)
        with pytest.raises(StepError) as caught:
            resolve(str(path), None).load()
        assert re.fullmatch(rf"--encoder {name}: {path} cannot be loaded: .+", str(caught.value))
    torch.save(torch.zeros(3), path)
    encoder = resolve(str(path), None)
    with pytest.raises(StepError, match=rf"^--encoder {name}: {path} holds one Tensor, not tensors by name$"):
        encoder.load()
    path.write_bytes(weights[name].read_bytes())
    with pytest.raises(StepError, match="has changed since this run began"):
        encoder.load()


@pytest.mark.parametrize("name", [*RESOLVE])
def test_no_file_and_no_revision(name: str, weights: dict[str, Path], tmp_path: Path) -> None:
    for wrong in (tmp_path, tmp_path / "none.pt"):
        with pytest.raises(StepError, match=rf"^--model {wrong}: no such file"):
            RESOLVE[name](str(wrong), None)
    with pytest.raises(StepError, match=r"^--revision is for models on the Hub"):
        RESOLVE[name](str(weights[name]), "main")


def test_radiomics_has_no_weights() -> None:
    for arguments in (("weights.pt", None), (None, "main")):
        with pytest.raises(StepError, match=r"^--encoder radiomics has no weights"):
            radiomics.resolve_radiomics(*arguments)


# Packages


@pytest.mark.parametrize(
    ("module", "function", "package", "advice"),
    [
        ("inception", "resolve_inception", "torch_fidelity", "pip install torch-fidelity torchvision"),
        ("inception", "resolve_inception", "torchvision", "pip install torchvision"),
        ("xrv", "resolve_xrv", "torchxrayvision", "pip install torchxrayvision"),
        (
            *("radiomics", "resolve_radiomics", "radiomics"),
            "pip install numpy setuptools wheel versioneer && pip install --no-build-isolation pyradiomics==3.0.1",
        ),
    ],
)
def test_a_package_that_is_missing(module: str, function: str, package: str, advice: str) -> None:
    code = f"""
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == {package!r} else find(name, *rest)
from pipeline.evaluate.encoders.{module} import {function}
try:
    {function}(None, None)
except Exception as error:
    print(type(error).__name__, error)
print("torch" in sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True)
    expected = f"MissingPackageError this model needs the Python module {package}: {advice}\nFalse\n"
    assert (found.stdout, found.stderr) == (expected, "")


def test_a_package_that_cannot_be_imported(weights: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('made for\\nanother torch')")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from pipeline.evaluate.encoders import inception, xrv
for encoder in (inception.resolve_inception, xrv.resolve_xrv):
    try:
        encoder({str(weights["xrv"])!r}, None).load()
    except Exception as error:
        print(type(error).__name__, error)
"""
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True)
    reason = "cannot be imported: RuntimeError: made for another torch"
    lines = [f"StepError the Python module {name} {reason}" for name in (inception.LIBRARY, "torchxrayvision")]
    assert (found.stdout.splitlines(), found.stderr) == (lines, "")


def test_warnings_stay_on(weights: dict[str, Path]) -> None:
    code = f"""
import warnings
import random_networks
from pipeline.evaluate.encoders.xrv import resolve_xrv
warnings.resetwarnings()
resolve_xrv({str(weights["xrv"])!r}, None).load()
assert not warnings.filters, warnings.filters
"""
    environment = {"PYTHONPATH": f"{ROOT / 'scripts'}:{ROOT / 'tests'}", "PATH": ""}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
