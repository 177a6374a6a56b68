"""Encoders that are models of transformers, with small models of random weights of their real classes."""

import io
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
import transformers

import tiny_encoders
from conftest import FIXTURE, ROOT, Rows, contents, to_csv, to_files
from evaluate_images import main
from pipeline.errors import StepError
from pipeline.evaluate.encoders.encoder import Encoder, Outputs
from pipeline.evaluate.encoders.registry import resolve_encoder
from pipeline.evaluate.encoders.torch_model import shrink_and_crop
from pipeline.evaluate.features import read_features, read_index
from pipeline.machine import OutOfMemoryError
from planted import write_planted
from servers.local_hub import Hub

pytestmark = pytest.mark.slow
NAMED = ("rad-dino", "clip", "biovil-t", "biomedclip")  # the others are named by their folder
PROMPTS = ["A large effusion on the left.", "no nodule", "the right, small effusion! no nodule on the left, the right!"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Other tests of this process need the usual number, with which the last bits of results are others."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(usual)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with each of the models; tests change copies only."""
    folder = tmp_path_factory.mktemp("models")
    for name, make in tiny_encoders.ENCODERS.items():
        make(folder / name)
    return folder


@pytest.fixture
def copied(models: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Copies a model to a folder of its own."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(models / name, tmp_path / f"{len([*tmp_path.iterdir()])}" / name))

    return copy


def resolve(folder: Path) -> Encoder:
    is_named = folder.name in NAMED
    return resolve_encoder(folder.name if is_named else str(folder), str(folder) if is_named else None)


def pictures(count: int, smallest: int = 1, largest: int = 90) -> list[PIL.Image.Image]:
    """Returns images of random sizes: grey levels that change slowly, with noise."""
    rng = np.random.default_rng(count)
    found = []
    for width, height in rng.integers(smallest, largest, (count, 2)):
        rows, columns = np.ogrid[:height, :width]
        slow = 120 + 60 * np.sin(rows / rng.integers(2, 30)) + 50 * np.cos(columns / rng.integers(2, 30))
        noisy = slow[..., None] + rng.integers(0, 20, (height, width, 3))
        found.append(PIL.Image.fromarray(noisy.clip(0, 255).astype(np.uint8)))
    return found


def encode(folder: Path, images: list[PIL.Image.Image], prompts: list[str]) -> Outputs:
    return resolve(folder).load().encode(images, prompts)


def replace_in(file: Path, **settings: Any) -> None:
    """Replaces settings of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_bytes()), **settings}))


def error_of(folder: Path) -> str:
    """Returns the message with which a model is refused, in one line."""
    with pytest.raises(StepError) as caught:
        resolve(folder).load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Features


@pytest.mark.parametrize("name", [*tiny_encoders.ENCODERS])
def test_features_do_not_depend_on_the_batch(name: str, models: Path) -> None:
    encoder = resolve(models / name)
    images, prompts = pictures(16), (PROMPTS * 6)[:16]
    model: Any = encoder.load()
    together = model.encode(images, prompts)
    assert set(together) == {"feature", *["text"] * encoder.uses_prompts}
    with torch.inference_mode():
        batched = model.compute(images, prompts)  # as on a GPU; on a CPU each image is encoded alone
    for output, rows in together.items():
        assert (rows.dtype, rows.shape[0], rows.ndim) == (np.float32, 16, 2)
        alone = [model.encode([image], [prompt])[output] for image, prompt in zip(images, prompts)]
        np.testing.assert_array_equal(rows, np.concatenate(alone))
        np.testing.assert_allclose(rows, batched[output], rtol=1e-4, atol=1e-5)
        assert len(np.unique(rows.round(7), axis=0)) == (16 if output == "feature" else 3)


@pytest.mark.parametrize("name", [*tiny_encoders.ENCODERS])
def test_images_of_odd_sizes_and_odd_prompts(name: str, models: Path) -> None:
    images = [PIL.Image.effect_noise(size, 60).convert("RGB") for size in [(300, 20), (20, 300), (1, 1), (29, 28)]]
    images.append(PIL.Image.new("RGB", (40, 40), "grey"))
    for rows in encode(models / name, images, ["", " ", "...", "é ☃ <b>", "no nodule " * 200]).values():
        assert np.isfinite(rows).all()


def test_rad_dino_is_the_cls_token_of_transformers(models: Path) -> None:
    folder, images = models / "rad-dino", pictures(3)
    pixels = transformers.BitImageProcessorPil.from_pretrained(folder)(images, return_tensors="pt")
    with torch.inference_mode():
        expected = transformers.Dinov2Model.from_pretrained(folder)(**pixels)
    rows = encode(folder, images, [""] * 3)["feature"]
    np.testing.assert_allclose(rows, expected.pooler_output, atol=1e-5)
    np.testing.assert_allclose(rows, expected.last_hidden_state[:, 0], atol=1e-5)


@pytest.mark.parametrize(("name", "kind", "padding"), [("clip", "CLIP", True), ("siglip", "Siglip", "max_length")])
def test_image_and_text_models_give_the_embeddings_of_transformers(
    name: str, kind: str, padding: Any, models: Path
) -> None:
    folder, images = models / name, pictures(3)
    pixels = getattr(transformers, f"{kind}ImageProcessorPil").from_pretrained(folder)(images, return_tensors="pt")
    length = {"clip": 16, "siglip": 12}[name]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(PROMPTS, padding=padding, truncation=True, max_length=length, return_tensors="pt")
    assert tokens.input_ids.shape == (3, length), "one of the prompts is cut"
    with torch.inference_mode():
        expected = getattr(transformers, f"{kind}Model").from_pretrained(folder)(**tokens, **pixels)
    found = encode(folder, images, PROMPTS)
    for output, normalised in (("feature", expected.image_embeds), ("text", expected.text_embeds)):
        rows = found[output] / np.linalg.norm(found[output], axis=1, keepdims=True)
        np.testing.assert_allclose(rows, normalised, atol=1e-5)


def test_a_processor_of_images_and_text_has_the_image_processor_inside(copied: Callable[[str], Path]) -> None:
    folder = copied("clip")
    before = resolve(folder).describe()["preprocessing"]
    (folder / "preprocessor_config.json").unlink()
    image_processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=tiny_encoders.SQUARE)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    transformers.CLIPProcessor(image_processor, tokenizer).save_pretrained(folder)
    assert not (folder / "preprocessor_config.json").exists()
    after = resolve(folder)
    assert before.items() <= after.describe()["preprocessing"].items()
    after.load().encode(pictures(1), ["no"])


@pytest.mark.parametrize("name", ["CLIPFeatureExtractor", "CLIPImageProcessorFast"])
def test_an_image_processor_of_an_older_version(name: str, copied: Callable[[str], Path], models: Path) -> None:
    folder = copied("clip")
    content = json.loads((folder / "preprocessor_config.json").read_bytes())
    key = "feature_extractor_type" if "Extractor" in name else "image_processor_type"
    del content["image_processor_type"]
    (folder / "preprocessor_config.json").write_text(json.dumps({**content, key: name}))
    rows = encode(folder, pictures(2), PROMPTS[:2])["feature"]
    np.testing.assert_array_equal(rows, encode(models / "clip", pictures(2), PROMPTS[:2])["feature"])


def test_a_pooler_without_weights_is_not_used(tmp_path: Path) -> None:
    tiny_encoders.vit(tmp_path / "classifier", has_pooler=False)
    images = pictures(2)
    model = transformers.ViTModel.from_pretrained(tmp_path / "classifier", add_pooling_layer=False)
    pixels = transformers.ViTImageProcessorPil.from_pretrained(tmp_path / "classifier")(images, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**pixels).last_hidden_state[:, 0]
    np.testing.assert_allclose(encode(tmp_path / "classifier", images, [""] * 2)["feature"], expected, atol=1e-5)


def test_a_pooler_with_weights_is_used(models: Path) -> None:
    images = pictures(2)
    pixels = transformers.ViTImageProcessorPil.from_pretrained(models / "vit")(images, return_tensors="pt")
    with torch.inference_mode():
        expected = transformers.ViTModel.from_pretrained(models / "vit")(**pixels).pooler_output
    np.testing.assert_allclose(encode(models / "vit", images, [""] * 2)["feature"], expected, atol=1e-5)


# BioViL-T and BiomedCLIP: the formulas of the authors' classes, written out


def bottlenecks(tensors: dict[str, torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
    """Applies a ResNet as torchvision does."""

    def norm(values: torch.Tensor, name: str) -> torch.Tensor:
        kinds = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(values, *(tensors[f"{name}.{kind}"] for kind in kinds))

    found = F.conv2d(pixels, tensors["conv1.weight"], stride=2, padding=3)
    found = F.max_pool2d(norm(found, "bn1").relu(), 3, 2, 1)
    for stage in range(1, 5):
        layer, stride = f"layer{stage}.0", 1 if stage == 1 else 2
        inner = norm(F.conv2d(found, tensors[f"{layer}.conv1.weight"]), f"{layer}.bn1").relu()
        inner = F.conv2d(inner, tensors[f"{layer}.conv2.weight"], stride=stride, padding=1)
        inner = F.conv2d(norm(inner, f"{layer}.bn2").relu(), tensors[f"{layer}.conv3.weight"])
        shortcut = F.conv2d(found, tensors[f"{layer}.downsample.0.weight"], stride=stride)
        found = (norm(inner, f"{layer}.bn3") + norm(shortcut, f"{layer}.downsample.1")).relu()
    return found


def test_biovil_t_is_what_its_authors_compute(models: Path) -> None:
    folder, images = models / "biovil-t", pictures(3, 300, 700)
    tensors = torch.load(folder / "biovil_t_image_model_proj_size_128.pt", weights_only=True)
    trunk = {name.removeprefix("encoder.encoder."): value for name, value in tensors.items()}
    squares = []
    for image in images:
        values = np.asarray(image).astype(float)
        values -= values.min()
        grey = PIL.Image.fromarray((values / values.max() * 255).astype(np.uint8)).convert("L")
        squares.append(np.asarray(shrink_and_crop(grey, 512, 448, PIL.Image.Resampling.BILINEAR)))
    pixels = torch.tensor(np.stack(squares))[:, None].repeat(1, 3, 1, 1) / 255
    current = F.conv2d(bottlenecks(trunk, pixels), tensors["encoder.backbone_to_vit.weight"])
    assert current.shape[2:] == (14, 14)
    missing = tensors["encoder.missing_previous_emb"].repeat(3, 1, 14, 14)
    head = {name.removeprefix("projector.model."): value for name, value in tensors.items()}
    hidden = F.conv2d(torch.cat([current, missing], 1), head["0.weight"])
    hidden = F.batch_norm(hidden, head["1.running_mean"], head["1.running_var"], head["1.weight"], head["1.bias"])
    expected = F.conv2d(hidden.relu(), head["3.weight"], head["3.bias"]).mean((2, 3))
    found = encode(folder, images, PROMPTS)
    np.testing.assert_allclose(found["feature"], F.normalize(expected, dim=1), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found["text"], axis=1), 1, atol=1e-6)


def test_biovil_t_reads_prompts_as_its_authors_do(models: Path) -> None:
    folder = models / "biovil-t"
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    bert = tiny_encoders.bert(transformers.BertForMaskedLM).eval()
    bert.load_state_dict(tensors, strict=False)
    tokenizer = transformers.BertTokenizer.from_pretrained(folder)
    tokens = tokenizer([text.rstrip("!?.") for text in PROMPTS], padding=True, return_tensors="pt")
    head = {name.removeprefix("cls_projection_head."): value for name, value in tensors.items()}
    with torch.inference_mode():
        cls = bert(**tokens, output_hidden_states=True).hidden_states[-1][:, 0]
    hidden = F.gelu(F.linear(cls, head["dense_to_hidden.weight"], head["dense_to_hidden.bias"]))
    hidden = F.layer_norm(hidden, (12,), head["LayerNorm.weight"], head["LayerNorm.bias"], 1e-12)
    expected = F.linear(hidden, head["dense_to_output.weight"], head["dense_to_output.bias"])
    found = encode(folder, pictures(3), PROMPTS)["text"]
    np.testing.assert_allclose(found, F.normalize(expected, dim=1), atol=1e-5)
    ends = encode(folder, pictures(2), ["no nodule", "no nodule.!"])["text"]
    np.testing.assert_array_equal(ends[0], ends[1])


def test_biomedclip_is_what_its_authors_compute(models: Path) -> None:
    folder, images = models / "biomedclip", pictures(3)
    tensors = safetensors.torch.load_file(folder / "open_clip_model.safetensors")
    trunk = {name.removeprefix("visual.trunk."): value for name, value in tensors.items()}
    squares = [np.asarray(shrink_and_crop(image, 32, 32, PIL.Image.Resampling.BICUBIC)) for image in images]
    pixels = torch.tensor(np.stack(squares)).permute(0, 3, 1, 2) / 255
    pixels = (pixels - torch.tensor([0.48, 0.46, 0.41])[:, None, None]) / torch.tensor([0.27, 0.26, 0.28])[
        :, None, None
    ]

    def linear(values: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(values, trunk[f"{name}.weight"], trunk[f"{name}.bias"])

    def norm(values: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(values, (64,), trunk[f"{name}.weight"], trunk[f"{name}.bias"], 1e-6)

    patches = F.conv2d(pixels, trunk["patch_embed.proj.weight"], trunk["patch_embed.proj.bias"], stride=16)
    hidden = torch.cat([trunk["cls_token"].repeat(3, 1, 1), patches.flatten(2).mT], 1) + trunk["pos_embed"]
    for block in ("blocks.0", "blocks.1"):
        query, key, value = linear(norm(hidden, f"{block}.norm1"), f"{block}.attn.qkv").chunk(3, -1)
        attended = (query @ key.mT / 8).softmax(-1) @ value
        hidden = hidden + linear(attended, f"{block}.attn.proj")
        hidden = hidden + linear(F.gelu(linear(norm(hidden, f"{block}.norm2"), f"{block}.mlp.fc1")), f"{block}.mlp.fc2")
    expected = F.linear(norm(hidden, "norm")[:, 0], tensors["visual.head.proj.weight"])
    found = encode(folder, images, PROMPTS)
    np.testing.assert_allclose(found["feature"], F.normalize(expected, dim=1), atol=1e-5)

    bert = tiny_encoders.bert(transformers.BertModel).eval()
    bert.load_state_dict(
        {name.removeprefix("text.transformer."): value for name, value in tensors.items()}, strict=False
    )
    tokenizer = transformers.BertTokenizer.from_pretrained(folder)
    tokens = tokenizer(PROMPTS, padding="max_length", truncation=True, max_length=24, return_tensors="pt")
    with torch.inference_mode():
        cls = bert(**tokens).last_hidden_state[:, 0]
    expected = F.linear(F.gelu(F.linear(cls, tensors["text.proj.0.weight"])), tensors["text.proj.2.weight"])
    np.testing.assert_allclose(found["text"], F.normalize(expected, dim=1), atol=1e-5)


def test_a_tokenizer_in_one_file(models: Path, copied: Callable[[str], Path]) -> None:
    for name in ("biovil-t", "biomedclip"):
        folder = copied(name)
        (folder / "vocab.txt").unlink()
        transformers.BertTokenizer.from_pretrained(models / name).save_pretrained(folder)
        assert (folder / "tokenizer.json").is_file() and not (folder / "vocab.txt").exists()
        found = encode(folder, pictures(3), PROMPTS)["text"]
        np.testing.assert_array_equal(found, encode(models / name, pictures(3), PROMPTS)["text"])


def test_the_centre_is_that_of_torchvision() -> None:
    """Which rounds half a pixel to an even number."""
    image = PIL.Image.fromarray(np.arange(7, dtype=np.uint8).repeat(4).reshape(7, 4))
    cut = np.asarray(shrink_and_crop(image, 4, 4, PIL.Image.Resampling.BILINEAR))
    assert cut[:, 0].tolist() == [2, 3, 4, 5]
    cut = np.asarray(shrink_and_crop(image.rotate(90, expand=True), 4, 3, PIL.Image.Resampling.BILINEAR))
    assert (cut[0].tolist(), cut.shape) == ([2, 3, 4], (3, 3))
    assert shrink_and_crop(PIL.Image.new("RGB", (511, 700)), 512, 448, PIL.Image.Resampling.BILINEAR).size == (448, 448)


# Descriptions


@pytest.mark.parametrize("name", [*tiny_encoders.ENCODERS])
def test_an_encoder_is_a_value_and_its_description_is_json(name: str, copied: Callable[[str], Path]) -> None:
    first, second = resolve(copied(name)), resolve(copied(name))
    about = first.describe()
    assert pickle.loads(pickle.dumps(first)) == first
    assert json.loads(json.dumps(about)) == about
    assert second.describe() == about, "the same content in another folder"
    assert {"model", "weights_sha256", "preprocessing", "output", "dtype", "versions"} == {*about}
    assert (first.name, about["model"], about["dtype"]) == (name, name, "float32")
    assert {"torch", "transformers", "pillow"} <= {*about["versions"]}


def test_other_weights_and_other_preprocessing_have_other_descriptions(copied: Callable[[str], Path]) -> None:
    first, weights, preprocessing = (copied("rad-dino") for _ in range(3))
    tiny_encoders.rad_dino(weights, seed=1)
    replace_in(preprocessing / "preprocessor_config.json", image_mean=[0.5] * 3)
    about = [resolve(folder).describe() for folder in (first, weights, preprocessing)]
    assert about[0]["weights_sha256"] != about[1]["weights_sha256"]
    assert about[0]["preprocessing"] == about[1]["preprocessing"] != about[2]["preprocessing"]
    rows = [encode(folder, pictures(1), [""])["feature"] for folder in (first, weights, preprocessing)]
    assert abs(rows[0] - rows[1]).max() > 1e-3 < abs(rows[0] - rows[2]).max()


def test_resolving_imports_no_torch(models: Path) -> None:
    code = "import sys; from pipeline.evaluate.encoders.registry import resolve_encoder as f\n"
    code += f"for name in {NAMED!r}: f(name, {str(models)!r} + '/' + name, None).describe()\n"
    code += f"f({str(models / 'vit')!r}).describe(); assert 'torch' not in sys.modules"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


# The Hub


def test_a_model_on_the_hub_is_pinned_to_its_commit(hub: Hub, models: Path, tmp_path: Path) -> None:
    others = {"tf_model.h5": b"keras", "pytorch_model.bin": b"pickle", "onnx/model.onnx": b"onnx"}
    hub.create("alice/Rad_DINO", files={**contents(models / "rad-dino"), **others})
    first = resolve_encoder("alice/Rad_DINO")
    assert not hub.asked(r"GET .*model\.safetensors"), "resolving downloads no weights"
    about = first.describe()
    assert (first.name, about["model"], len(about["revision"])) == ("rad_dino", "alice/Rad_DINO", 40)
    rows = first.load().encode(pictures(2), ["", ""])["feature"]
    np.testing.assert_array_equal(rows, encode(models / "rad-dino", pictures(2), ["", ""])["feature"])
    assert not hub.asked(r"GET .*(h5|bin|onnx)$")
    tiny_encoders.rad_dino(tmp_path, seed=1)
    hub.push("alice/Rad_DINO", contents(tmp_path))
    assert resolve_encoder("alice/Rad_DINO").describe() != about
    again = resolve_encoder("rad-dino", "alice/Rad_DINO", about["revision"])
    assert again.describe() == about
    np.testing.assert_array_equal(again.load().encode(pictures(2), ["", ""])["feature"], rows)


@pytest.mark.parametrize("name", ["biovil-t", "biomedclip"])
def test_models_of_images_and_text_on_the_hub(name: str, hub: Hub, models: Path) -> None:
    hub.create("alice/model", files={**contents(models / name), "README.md": b"# Model", "model.png": b"png"})
    rows = resolve_encoder(name, "alice/model").load().encode(pictures(2), PROMPTS[:2])
    for output, expected in encode(models / name, pictures(2), PROMPTS[:2]).items():
        np.testing.assert_array_equal(rows[output], expected)
    assert not hub.asked(r"GET .*(md|png)$")


def test_weights_that_are_a_pickle_of_tensors(hub: Hub, models: Path, copied: Callable[[str], Path]) -> None:
    folder = copied("clip")
    (folder / "model.safetensors").unlink()
    torch.save(transformers.CLIPModel.from_pretrained(models / "clip").state_dict(), folder / "pytorch_model.bin")
    hub.create("alice/clip", files=contents(folder))
    expected = encode(models / "clip", pictures(2), PROMPTS[:2])
    for encoder in (resolve(folder), resolve_encoder("clip", "alice/clip")):
        for output, rows in encoder.load().encode(pictures(2), PROMPTS[:2]).items():
            # Tensors of a pickle lie elsewhere in memory, where other instructions multiply them.
            np.testing.assert_allclose(rows, expected[output], rtol=1e-4, atol=1e-6)


def test_run_skips_the_encoders_that_cannot_be_had(
    hub: Hub, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.create("microsoft/rad-dino", files=contents(models / "rad-dino"))
    monkeypatch.setitem(sys.modules, "torchxrayvision", None)  # as if it were not installed
    sources = [str(write_planted(tmp_path, name, 8, seed=seed)) for seed, name in enumerate(("train", "made", "test"))]
    assert main(["run", *sources, str(tmp_path / "results"), "--labels", "none", "--seeds", "1"]) == 0
    told = capsys.readouterr().out.splitlines()
    skipped = [line.partition("skipped: encoder ")[2] for line in told if line.startswith("skipped: encoder ")]
    assert [reason.partition(":")[0] for reason in skipped] == ["xrv", "biovil-t"]
    assert "pip install torchxrayvision" in skipped[0]
    assert "microsoft/BiomedVLP-BioViL-T" in skipped[1]
    assert [*read_index(tmp_path / "results/features/train")] == ["rad-dino"]


# Errors


class Code:
    """What a pickle executes when it is read."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self.file,))


@pytest.mark.parametrize(
    ("name", "file", "removed"),
    [
        ("rad-dino", "pytorch_model.bin", "model.safetensors"),
        ("biovil-t", "biovil_t_image_model_proj_size_128.pt", ""),
        ("biovil-t", "pytorch_model.bin", ""),
        ("biomedclip", "open_clip_pytorch_model.bin", "open_clip_model.safetensors"),
    ],
)
def test_code_in_weights_is_not_executed(
    name: str, file: str, removed: str, copied: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = copied(name)
    (folder / removed).unlink() if removed else None
    torch.save({"weights": Code(tmp_path / "executed")}, folder / file)
    reason = "a file of weights has something other than tensors, which may be code, and is not read: getattr"
    assert error_of(folder) == f"--encoder {name}: {folder} cannot be loaded: {reason}"
    assert not (tmp_path / "executed").exists()


def test_code_in_a_repository_is_not_executed(copied: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copied("rad-dino")
    (folder / "own.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\nclass Own: pass\n")
    for file, kind in (("config.json", "AutoModel"), ("preprocessor_config.json", "AutoImageProcessor")):
        replace_in(folder / file, auto_map={kind: "own.Own", "AutoConfig": "own.Own"})
    resolve(folder).load()  # with the classes of transformers
    folder = folder.rename(folder.parent / "own")
    replace_in(folder / "config.json", model_type="own")
    assert "cannot be loaded: it needs code of its repository, which is not executed" in error_of(folder)
    replace_in(folder / "preprocessor_config.json", image_processor_type="Own")
    assert error_of(folder).endswith("has an image processor that transformers does not have with PIL: Own")
    assert not (tmp_path / "executed").exists()


def test_a_folder_without_a_processor(copied: Callable[[str], Path]) -> None:
    folder = copied("rad-dino")
    (folder / "preprocessor_config.json").unlink()
    assert error_of(folder) == (
        f"{folder} has no preprocessor_config.json, so the preprocessing of its images is not known"
    )
    (folder / "config.json").write_text("{")
    assert error_of(folder).startswith(f"{folder} is no model of transformers: JSONDecodeError")
    (folder / "config.json").unlink()
    assert error_of(folder).startswith(f"{folder} is no model of transformers: it has no config.json")


@pytest.mark.parametrize("name", ["clip", "siglip", "biovil-t", "biomedclip"])
def test_a_text_side_without_a_tokenizer(name: str, copied: Callable[[str], Path]) -> None:
    folder = copied(name)
    for path in (*folder.glob("vocab*"), *folder.glob("tokenizer*")):
        path.unlink()
    assert f"{folder} has no tokenizer: no tokenizer.json or vocab.txt or " in error_of(folder)


def test_a_model_that_reads_text_only(copied: Callable[[str], Path]) -> None:
    folder = copied("vit").rename(copied("vit").parent / "bert")
    tiny_encoders.bert(transformers.BertModel).save_pretrained(folder)
    assert error_of(folder) == f"--encoder bert: {folder} is no vision model: a BertModel reads input_ids"


def test_a_model_that_gives_other_features_each_time(tmp_path: Path) -> None:
    # Of its patches it sees a quarter, chosen at random: of so many, never the same.
    config = transformers.ViTMAEConfig(**{**tiny_encoders.SEEING, "patch_size": 2})
    transformers.ViTMAEModel(config).save_pretrained(tmp_path / "mae")
    transformers.ViTImageProcessorPil(size=tiny_encoders.SQUARE).save_pretrained(tmp_path / "mae")
    assert "gives other features of the same image each time" in error_of(tmp_path / "mae")


@pytest.mark.parametrize(
    ("name", "file", "tensor"),
    [
        ("rad-dino", "model.safetensors", "encoder.layer.1.norm1.weight"),
        ("biomedclip", "open_clip_model.safetensors", "visual.trunk.blocks.1.attn.qkv.weight"),
        ("biomedclip", "open_clip_model.safetensors", "text.transformer.encoder.layer.1.output.dense.weight"),
    ],
)
def test_missing_weights(name: str, file: str, tensor: str, copied: Callable[[str], Path]) -> None:
    folder = copied(name)
    tensors = safetensors.torch.load_file(folder / file)
    del tensors[tensor]
    safetensors.torch.save_file(tensors, folder / file, metadata={"format": "pt"})
    assert "lacks weights, which would be random: " in error_of(folder)


def test_no_weights_at_all(copied: Callable[[str], Path]) -> None:
    folder = copied("rad-dino")
    (folder / "model.safetensors").unlink()
    assert error_of(folder) == f"--encoder rad-dino: {folder} has no model.safetensors and no pytorch_model.bin"
    folder = copied("biovil-t")
    (folder / "biovil_t_image_model_proj_size_128.pt").unlink()
    assert error_of(folder) == f"--encoder biovil-t: {folder} has no biovil_t_image_model_proj_size_128.pt"


def test_a_biomedclip_of_another_architecture(tmp_path: Path) -> None:
    tiny_encoders.biomedclip(tmp_path / "biomedclip", timm_pool="avg")
    assert error_of(tmp_path / "biomedclip").endswith("has timm_pool 'avg'; only '' is known")
    (tmp_path / "biomedclip/open_clip_config.json").write_text('{"model_cfg": {"vision_cfg": {}}}')
    assert "open_clip_config.json that is not BiomedCLIP's" in error_of(tmp_path / "biomedclip")


def test_a_name_with_a_model_of_another_type(models: Path) -> None:
    with pytest.raises(StepError, match=r"--encoder rad-dino: .*/clip is of type clip, not dinov2"):
        resolve_encoder("rad-dino", str(models / "clip"))


def test_a_folder_that_changes_between_resolving_and_loading(copied: Callable[[str], Path]) -> None:
    folder = copied("rad-dino")
    encoder = resolve(folder)
    tiny_encoders.rad_dino(folder, seed=1)
    with pytest.raises(StepError, match="has changed since this run began"):
        encoder.load()


def test_too_little_memory(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = resolve(models / "rad-dino").load()

    def fail(*arguments: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.nn.Linear, "forward", fail)
    with pytest.raises(OutOfMemoryError):
        model.encode(pictures(2), ["", ""])


# Through the program


def test_one_pass_for_several_encoders(
    models: Path, images: dict[str, bytes], tmp_path: Path, table: Rows, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["embed", str(FIXTURE), str(tmp_path / "features"), "--batch-size", "5"]
    for name in ("rad-dino", "clip"):
        run += ["--encoder", name, "--model", f"{name}={models / name}"]
    assert main([*run, "--encoder", str(models / "vit")]) == 0
    index = read_index(tmp_path / "features")
    assert [*index] == ["rad-dino", "clip", "vit"]
    assert "weights_sha256" in index["rad-dino"].about
    prompts = {row["filename"]: row["prompt"] for row in table}
    for name, encoder in index.items():
        found = read_features(tmp_path / "features", encoder)
        decoded = [PIL.Image.open(io.BytesIO(images[name])).convert("RGB") for name in found.filenames]
        wanted = encode(models / name, decoded, [prompts[name] for name in found.filenames])
        assert found.outputs.keys() == wanted.keys()
        for output, values in wanted.items():
            assert np.array_equal(found.outputs[output], values)
    capsys.readouterr()
    assert main(run) == 0
    assert "0 images embedded" in capsys.readouterr().out


def test_a_new_prompt_counts_only_for_encoders_with_a_text_side(
    models: Path, images: dict[str, bytes], tmp_path: Path, table: Rows, capsys: pytest.CaptureFixture[str]
) -> None:
    to_files(tmp_path / "source", images)
    run = ["embed", str(tmp_path / "source"), str(tmp_path / "features"), "--encoder"]
    for prompt, rad_dino, clip in (("", 12, 12), ("Another one.", 0, 1)):
        rows = [{**table[0], "prompt": prompt or table[0]["prompt"]}, *table[1:]]
        (tmp_path / "source/metadata.csv").write_bytes(to_csv(rows))
        for name, count in (("rad-dino", rad_dino), ("clip", clip)):
            assert main([*run, name, "--model", str(models / name)]) == 0
            assert f"{count} images embedded" in capsys.readouterr().out
