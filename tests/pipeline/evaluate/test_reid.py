"""Re-identification: torchvision's ResNet-50 with random weights, from a file to the score of a pair."""

import collections
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import ROOT
from paired_world import by_name, draw, reference, world
from pipeline.errors import StepError
from pipeline.evaluate.embedding import encoding
from pipeline.evaluate.encoders.encoder import FEATURE, EncoderModel
from pipeline.evaluate.encoders.weights import UnfitError
from pipeline.evaluate.metrics.pixels import reid_score
from pipeline.evaluate.privacy.paired import paired_metrics
from pipeline.evaluate.privacy.paired_images import open_paired_sources
from pipeline.evaluate.privacy.paired_meanings import MEANINGS
from pipeline.evaluate.privacy.reid import resolve_reid, siamese_parts
from pipeline.machine import OutOfMemoryError
from random_networks import Siamese, torchvision
from servers.local_hub import Hub

pytestmark = pytest.mark.slow
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def network() -> Siamese:
    return Siamese().eval()


@pytest.fixture(scope="session")
def weights(network: Siamese, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the network, as CheXGenBench has one."""
    path = tmp_path_factory.mktemp("weights") / "ResNet-50.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def model(weights: Path) -> EncoderModel:
    return resolve_reid(str(weights)).load()


def picture(width: int, height: int, seed: int = 0) -> PIL.Image.Image:
    grey = draw(seed, seed).resize((width, height), PIL.Image.Resampling.BICUBIC)
    return PIL.Image.merge("RGB", [grey, grey.rotate(5), grey.rotate(90)])


# The same as the network itself


def test_the_score_is_that_of_the_network(network: Siamese, weights: Path, model: EncoderModel) -> None:
    """With torchvision's transformations, as CheXGenBench applies them."""
    images = [picture(512, 512, seed) for seed in range(4)]
    transforms: Any = torchvision.transforms
    see = transforms.Compose([transforms.Resize(224), transforms.ToTensor()])
    tensors = [see(image)[None] for image in images]
    with torch.inference_mode():
        features = torch.cat([network.one[0](image).sigmoid() for image in tensors]).numpy()
        scores = torch.cat([network(tensors[0], image) for image in tensors]).numpy().ravel()
    found = model.encode(images, [""] * 4)[FEATURE]
    assert found.shape == (4, 128)
    np.testing.assert_allclose(found, features, atol=1e-5)
    weight, bias = resolve_reid(str(weights)).head()
    np.testing.assert_allclose(reid_score(found[[0] * 4], found, weight, bias), scores, atol=1e-5)
    assert np.ptp(scores) > 1e-3 and found.std() > 0.05


@settings(max_examples=4)
@given(width=st.integers(1, 900), height=st.integers(1, 900))
def test_any_size(width: int, height: int, model: EncoderModel) -> None:
    found = model.encode([picture(width, height), picture(512, 512)], ["", ""])[FEATURE]
    assert found.shape == (2, 128) and np.isfinite(found).all()


# What files may hold


def wrapped(state: dict[str, Any], kind: str) -> Any:
    """Returns the same tensors in another form."""
    if kind == "module":
        return {f"module.{name}": value for name, value in state.items()}
    if kind == "ordered":
        return collections.OrderedDict(state)
    if kind == "without counters":
        return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    if kind == "half":
        return {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    if kind == "training":
        optimizer = {"state": {0: {"step": torch.ones(1)}}, "param_groups": [{"lr": 0.1}]}
        return {
            "epoch": 11,
            "model_state_dict": wrapped(state, "module"),
            "optimizer": optimizer,
            "loss": torch.ones(1),
        }
    return {kind: state}


@pytest.mark.parametrize("kind", ["module", "ordered", "without counters", "state_dict", "model", "training", "half"])
def test_a_file_in_another_form(kind: str, network: Siamese, model: EncoderModel, tmp_path: Path) -> None:
    torch.save(wrapped(network.state_dict(), kind), tmp_path / "reid.pt")
    encoder = resolve_reid(str(tmp_path / "reid.pt"))
    image = picture(90, 80)
    found, wanted = (one.encode([image], [""])[FEATURE] for one in (encoder.load(), model))
    np.testing.assert_allclose(found, wanted, atol=0.02 if kind == "half" else 0)
    assert encoder.head().bias == pytest.approx(float(network.pair[0].bias.detach()), abs=1e-3 if kind == "half" else 0)


@pytest.mark.parametrize(
    ("resnet", "last"), [("", "head"), ("encoder.net", "classifier"), ("backbone", "backbone_end")]
)
def test_layers_of_other_names(resnet: str, last: str, network: Siamese) -> None:
    first, *rest = resnet.partition(".")
    state = network.state_dict()
    renamed = {
        name.replace("model.", f"{resnet}." if resnet else "").replace("fc_end", last): value
        for name, value in state.items()
    }
    parts = siamese_parts(renamed)
    assert {*parts.resnet} == {*torchvision.models.resnet50(weights=None).state_dict()}
    assert parts.head.bias == float(network.pair[0].bias.detach()) and first in resnet and len(rest) == 2
    nested = {name.replace("model.fc.", "model.fc.0."): value for name, value in state.items()}
    assert {*siamese_parts(nested).resnet} == {*parts.resnet}


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (
            lambda state: state.pop("model.layer3.2.conv1.weight"),
            "lacks weights, which would be random: layer3.2.conv1",
        ),
        (lambda state: state.pop("model.bn1.running_mean"), "lacks weights, which would be random: bn1.running_mean"),
        (lambda state: state.pop("fc_end.weight"), "0 times a last layer of 128 inputs and one output"),
        (lambda state: state.pop("fc_end.bias"), "fc_end has no bias"),
        (lambda state: state.pop("model.fc.bias"), "model.fc has no bias"),
        (lambda state: state.pop("model.fc.weight"), "0 times a linear layer of 2,048 inputs"),
        (lambda state: state.pop("model.conv1.weight"), "0 first convolutions"),
        (lambda state: state.update({"extra.weight": torch.ones(3)}), "tensors that the network has not: extra.weight"),
        (lambda state: state.update({"model.extra": torch.ones(3)}), "tensors that ResNet-50 has not: extra"),
        (lambda state: state.update({"more.weight": torch.ones(1, 128)}), "2 times a last layer"),
        (lambda state: state["fc_end.weight"].fill_(float("nan")), "numbers that are not finite"),
        (lambda state: state.update({"model.layer1.0.conv1.weight": torch.ones(3)}), "size mismatch"),
        (lambda state: state["model.layer1.0.conv1.weight"].fill_(float("nan")), "gives no finite vector"),
    ],
)
def test_a_foreign_network(edit: Any, reason: str, network: Siamese, tmp_path: Path) -> None:
    state = {name: value.clone() for name, value in network.state_dict().items()}
    edit(state)
    path = tmp_path / "reid.pth"
    torch.save(state, path)
    with pytest.raises(StepError, match=rf"^--reid: {path} .*{re.escape(reason)}"):
        resolve_reid(str(path)).load()


@pytest.mark.parametrize(
    "content", [{}, {"a": 1}, [torch.ones(2)], {"a": {"b": torch.ones(1)}, "c": {"d": torch.ones(1)}}]
)
def test_a_file_of_something_else(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "reid.pth")
    with pytest.raises(StepError, match=r"^--reid: .*reid.pth (holds|is no Siamese)"):
        resolve_reid(str(tmp_path / "reid.pth"))


def test_other_networks_are_refused() -> None:
    for other in (torchvision.models.resnet50(weights=None), torchvision.models.resnet18(weights=None)):
        with pytest.raises(UnfitError, match=r"is no Siamese ResNet"):
            siamese_parts(other.state_dict())


def test_a_damaged_file(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "reid.pth"
    for content in (b"", b"<html>404</html>", weights.read_bytes()[:-5000], b"version https://git-lfs"):
        path.write_bytes(content)
        with pytest.raises(StepError, match=rf"^--reid: {path} cannot be loaded: "):
            resolve_reid(str(path))


def test_a_file_that_is_replaced_during_the_run(weights: Path, network: Siamese, tmp_path: Path) -> None:
    path = tmp_path / "reid.pth"
    path.write_bytes(weights.read_bytes())
    encoder = resolve_reid(str(path))
    torch.save(Siamese(seed=5).state_dict(), path)
    for use in (encoder.load, encoder.head):
        with pytest.raises(StepError, match="has changed since this run began"):
            use()


class Code:
    """An object whose pickle runs a program."""

    def __init__(self, proof: Path) -> None:
        self._proof = proof

    def __reduce__(self) -> Any:
        return subprocess.call, (["touch", str(self._proof)],)


@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_file_is_not_run(new_format: bool, network: Siamese, tmp_path: Path) -> None:
    path, proof = tmp_path / "reid.pth", tmp_path / "proof"
    small = {"fc_end.bias": network.state_dict()["fc_end.bias"]}
    for content in ({**small, "surprise": Code(proof)}, {"state_dict": small, "epoch": Code(proof)}, Code(proof)):
        torch.save(content, path, _use_new_zipfile_serialization=new_format)
        with pytest.raises(StepError, match=rf"^--reid: {path} .*which may be code, and is not read: [\w.]+$"):
            resolve_reid(str(path))
    path.write_bytes(pickle.dumps(Code(proof)))
    with pytest.raises(StepError, match=r"reid.pth cannot be loaded"):
        resolve_reid(str(path))
    assert not proof.exists()
    pickle.loads(path.read_bytes())
    assert proof.exists()


def test_no_file(tmp_path: Path, weights: Path) -> None:
    for name in ("none.pth", str(tmp_path / "none.pth"), "raman07/none.pth"):
        with pytest.raises(StepError, match=rf"^--reid {name}: no such file"):
            resolve_reid(name)
    with pytest.raises(StepError, match=r"^--reid: .* has 0 files of weights instead of one"):
        resolve_reid(str(tmp_path))
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).write_bytes(weights.read_bytes())
        if name == "a.pth":
            assert resolve_reid(str(tmp_path)).head() is not None
    with pytest.raises(StepError, match=r"2 files of weights instead of one: a\.pth; b\.pth"):
        resolve_reid(str(tmp_path))


def test_a_network_on_the_hub_is_pinned(hub: Hub, weights: Path) -> None:
    hub.create("alice/ReID", files={"reid.pth": weights.read_bytes(), "README.md": b"# Network"})
    encoder = resolve_reid("alice/ReID")
    assert encoder.describe()["revision"] and encoder.head().bias == resolve_reid(str(weights)).head().bias
    assert not hub.asked(r"GET .*README\.md$")
    with pytest.raises(StepError, match="alice/none"):
        resolve_reid("alice/none")


@pytest.mark.parametrize("package", ["torch", "torchvision"])
def test_a_missing_package_is_the_first_error(package: str) -> None:
    code = f"""
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == {package!r} else find(name, *rest)
from pipeline.evaluate.privacy.paired_images import open_paired_sources
try:
    open_paired_sources("no/source", "no/source", "no.pth")
except Exception as error:
    print(type(error).__name__, error)
print("torch" in sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True)
    assert found.stdout.startswith(f"MissingPackageError this model needs the Python module {package}: pip install "), (
        found.stderr
    )
    assert found.stdout.endswith("\nFalse\n")


# In the metrics


def test_a_description_tells_the_weights_and_the_preprocessing(weights: Path) -> None:
    encoder = resolve_reid(str(weights))
    about = encoder.describe()
    assert json.loads(json.dumps(about)) == about and about["model"] == "ResNet-50.pth" and about["weights_sha256"]
    assert about["preprocessing"]["size"] == [224, 224] and "not normalised" in about["preprocessing"]["colour"]
    assert pickle.loads(pickle.dumps(encoder)) == encoder


def test_copies_are_re_identified(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even with random weights a copy is nearer than another image; and memory that runs out halves the batches."""
    train, synthetic, plain = world(tmp_path, copies=8, replicates=2, patients=12)
    sources = open_paired_sources(str(tmp_path / "train"), str(tmp_path / "synthetic"), str(weights), batch_size=8)
    calls = list[int]()
    monkeypatch.setattr(encoding._Model, "__init__", scarce_model(encoding._Model.__init__, calls))
    metrics, lists = paired_metrics(train, synthetic, pair="filename", images=sources, seed=0)
    found = by_name(metrics)
    assert {*found} == {*MEANINGS}
    assert found["reid_score"].method == "ResNet-50.pth" and sources.describe()["reid"]["model"] == "ResNet-50.pth"
    assert 8 in calls and max(calls[calls.index(4) :]) == 4
    closest = lists["closest_reid_score"]
    assert [pair.value for pair in closest] == sorted((pair.value for pair in closest), reverse=True)
    planted = {f"SyntheticImg_r{i:03}.png" for i in range(8)}
    by_pixels = {pair.synthetic.filename for pair in lists["closest_pixel_distance"][:8]}
    assert by_pixels == planted
    assert {*closest[0].about} == {"Latent distance", "Pixel distance", "Re-ID score to another patient's image"}
    assert found["reid_score_max"].value is not None and found["reid_score"].value is not None
    assert found["reid_score_max"].value > found["reid_score"].value
    assert reference(found["reid_score_auc"], "chance") == 0.5
    without, _ = paired_metrics(train, synthetic, pair="filename", images=plain, seed=0)
    assert by_name(without).items() <= found.items()


def scarce_model(build: Any, calls: list[int]) -> Any:
    """Returns a constructor of models that have memory for four images."""

    def constructed(self: Any, *arguments: Any) -> None:
        build(self, *arguments)
        encode = self._model.encode

        def checked(images: list[Any], prompts: list[str]) -> Any:
            if self._option == "--reid":
                calls.append(len(images))
                if len(images) > 4:
                    raise OutOfMemoryError("4 at most")
            return encode(images, prompts)

        self._model.encode = checked

    return constructed
