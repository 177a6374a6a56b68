"""`generate_images.py` with pipelines of diffusers, small and of random weights, and with Ray."""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import safetensors.torch
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

import tiny_pipelines
from conftest import ROOT, Rows, contents, plan, to_csv
from generate_images import main
from pipeline.generate.presets import PRESETS, Part, Preset
from ray_workers import ray_workers
from servers.local_hub import Hub

pytestmark = pytest.mark.slow
Run = Callable[..., tuple[int, str, str]]
PROGRAM = [sys.executable, str(ROOT / "scripts/generate_images.py")]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with each of the pipelines."""
    folder = tmp_path_factory.mktemp("models")
    for name, make in tiny_pipelines.PIPELINES.items():
        make().save_pretrained(folder / name)
    return folder


@pytest.fixture
def run(tmp_path: Path, table: Rows, models: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Generates `out` from the first prompts, two steps each; returns exit code, output and messages."""

    def generate(model: str, *options: str, to: str = "out", rows: Rows = table[:6], size: int = 32) -> Any:
        (tmp_path / "prompts.csv").write_bytes(to_csv(rows))
        name = str(models / model) if model in tiny_pipelines.PIPELINES else model
        arguments = [str(tmp_path / "prompts.csv"), str(tmp_path / to), "--model", name, "--steps", "2"]
        code = main([*arguments, "--size", str(size), *options])
        return (code, *capsys.readouterr())

    return generate


def images_of(folder: Path) -> dict[str, bytes]:
    return {path.name: PIL.Image.open(path).tobytes() for path in sorted(folder.glob("data/*.png"))}


def step_of(folder: Path) -> dict[str, Any]:
    (step,) = json.loads((folder / "provenance.json").read_bytes())["steps"]
    return dict(step)


# The same request gives the same image


@pytest.mark.parametrize("model", [*tiny_pipelines.PIPELINES])
def test_batches_and_restarts_change_nothing(model: str, run: Run, tmp_path: Path) -> None:
    assert run(model, "--batch-size", "1", to="one")[0] == 0
    assert run(model, "--batch-size", "4", "--limit", "3", to="four")[0] == 0
    assert run(model, "--batch-size", "4", to="four")[0] == 0
    one, four = images_of(tmp_path / "one"), images_of(tmp_path / "four")
    assert one == four
    assert len({*one.values()}) == 6
    assert run(model, "--seed", "1", to="seed")[0] == 0
    assert not {*one.values()} & {*images_of(tmp_path / "seed").values()}


def test_killed_and_resumed(models: Path, run: Run, tmp_path: Path, table: Rows) -> None:
    run("sana", to="whole", rows=table)
    command = [*PROGRAM, str(tmp_path / "prompts.csv"), str(tmp_path / "killed"), "--model", str(models / "sana")]
    command += ["--steps", "2", "--size", "32", "--batch-size", "1"]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while len([*(tmp_path / "killed").glob("data/*.png")]) < 3:
        assert program.poll() is None, program.communicate()
        time.sleep(0.001)
    program.send_signal(signal.SIGKILL)
    program.communicate()
    subprocess.run(command, check=True, capture_output=True)
    assert images_of(tmp_path / "killed") == images_of(tmp_path / "whole")
    assert len(step_of(tmp_path / "killed")["runs"]) == 2


@pytest.mark.xdist_group("ray")
def test_two_workers_of_which_one_is_killed(models: Path, run: Run, tmp_path: Path, table: Rows) -> None:
    rows = [{**row, "filename": f"{number}{row['filename']}"} for number in range(8) for row in table]
    (tmp_path / "prompts.csv").write_bytes(to_csv(rows))
    options = ["--model", str(models / "sana"), "--steps", "2", "--size", "32", "--batch-size", "2"]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # as Ray's workers: more threads change the last bit of pixels
    whole = [*PROGRAM, str(tmp_path / "prompts.csv"), str(tmp_path / "whole"), *options]
    subprocess.run(whole, env=one_thread, check=True, capture_output=True)
    command = [*PROGRAM, str(tmp_path / "prompts.csv"), str(tmp_path / "ray"), *options]
    command += ["--engine", "ray", "--workers", "2"]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while len([*(tmp_path / "ray").glob("data/*.png")]) < 2 or len(workers := ray_workers(program)) < 2:
        assert program.poll() is None, program.communicate()[0]
        time.sleep(0.01)
    workers[0].kill()
    output, _ = program.communicate()
    assert program.returncode == 0, output
    assert images_of(tmp_path / "ray") == images_of(tmp_path / "whole")
    assert plan(tmp_path / "ray")


# What is asked of a pipeline


@pytest.mark.parametrize("model", [*tiny_pipelines.PIPELINES])
def test_images_have_the_size_asked_for(model: str, run: Run, tmp_path: Path) -> None:
    run(model, size=64)
    assert {PIL.Image.open(path).size for path in (tmp_path / "out/data").iterdir()} == {(64, 64)}


def test_the_image_is_that_of_the_pipeline(models: Path, run: Run, tmp_path: Path, table: Rows) -> None:
    run("stable-diffusion", "--guidance", "3")
    pipeline = DiffusionPipeline.from_pretrained(models / "stable-diffusion")
    with open(tmp_path / "out/metadata.csv", encoding="utf-8") as file:
        seed = int(file.read().splitlines()[1].rpartition(",")[2])
    generator = torch.Generator("cpu").manual_seed(seed)
    options = {"height": 32, "width": 32, "num_inference_steps": 2, "guidance_scale": 3.0}
    image = pipeline(table[0]["prompt"], generator=generator, **options).images[0]
    assert images_of(tmp_path / "out")[table[0]["filename"]] == image.tobytes()


def test_options_change_the_image_and_are_recorded(run: Run, tmp_path: Path) -> None:
    run("sana")
    run("sana", "--guidance", "9", to="guidance")
    run("sana", "--complex-human-instruction", "none", to="instruction")
    folders = [tmp_path / name for name in ("out", "guidance", "instruction")]
    assert len({tuple(images_of(folder).values()) for folder in folders}) == 3
    steps = [step_of(folder) for folder in folders]
    assert [step["guidance"] for step in steps] == [4.5, 9, 4.5]
    assert [step["complex_human_instruction"] for step in steps] == ["default", "default", "none"]
    for step in steps:
        assert (step["pipeline"], step["steps"], step["size"]) == ("SanaPipeline", 2, [32, 32])
        assert step["call"]["use_resolution_binning"] is False
        assert (step["runs"][0]["dtype"], step["runs"][0]["versions"]["torch"]) == ("fp32", torch.__version__)


def test_bf16(run: Run, tmp_path: Path) -> None:
    run("pixart")
    assert run("pixart", "--dtype", "bf16", to="bf16")[0] == 0
    assert images_of(tmp_path / "out") != images_of(tmp_path / "bf16")
    assert step_of(tmp_path / "bf16")["runs"][0]["dtype"] == "bf16"


def test_lora(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "lora/chest.safetensors"
    file.parent.mkdir()
    tiny_pipelines.save_lora(tiny_pipelines.stable_diffusion(), file)
    run("stable-diffusion")
    assert run("stable-diffusion", "--lora", str(file), to="file")[0] == 0
    assert run("stable-diffusion", "--lora", str(file.parent), to="folder")[0] == 0
    plain, with_file, with_folder = (images_of(tmp_path / name) for name in ("out", "file", "folder"))
    assert plain != with_file == with_folder
    about = step_of(tmp_path / "file")["lora"]
    assert about == {"name": "chest.safetensors", "weights_sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


def test_a_lora_that_fits_nothing(run: Run, tmp_path: Path) -> None:
    lora = tmp_path / "lora"
    lora.mkdir()
    weights = {f"transformer.block.to_q.lora_{side}.weight": torch.ones(2, 2) for side in "AB"}
    safetensors.torch.save_file(weights, lora / "a.safetensors")
    code, _, error = run("stable-diffusion", "--lora", str(lora))
    assert (code, f"--lora {lora} " in error or "cannot be loaded" in error) == (1, True), error
    shutil.copy(lora / "a.safetensors", lora / "b.safetensors")
    code, _, error = run("stable-diffusion", "--lora", str(lora))
    assert (code, "has 2 files (a.safetensors; b.safetensors) that may be the LoRA" in error) == (1, True), error
    assert not (tmp_path / "out").exists()


def test_code_of_a_model_is_never_executed(models: Path, run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    shutil.copytree(models / "stable-diffusion", tmp_path / "model")
    config = tmp_path / "model/tokenizer/tokenizer_config.json"
    told = json.loads(config.read_bytes()) | {"auto_map": {"AutoTokenizer": [None, "evil.Evil"]}}
    config.write_text(json.dumps({**told, "tokenizer_class": "Evil"}))
    for folder in (tmp_path / "model/tokenizer", tmp_path):
        (folder / "evil.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\nclass Evil: pass\n")
    (tmp_path / "accelerate.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    run(str(tmp_path / "model"))
    assert not (tmp_path / "executed").exists()


def test_no_answer_lets_code_of_a_model_be_executed(
    models: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    shutil.copytree(models / "stable-diffusion", model)
    part = model / "feature_extractor"  # of a class that loads its own parts, and is not told what is trusted
    shutil.copytree(model / "tokenizer", part)
    index = json.loads((model / "model_index.json").read_bytes())
    (model / "model_index.json").write_text(json.dumps({**index, part.name: ["transformers", "CLIPProcessor"]}))
    told = {"image_processor_type": "Own", "auto_map": {"AutoImageProcessor": "own.Own"}}
    (part / "preprocessor_config.json").write_text(json.dumps(told))
    (part / "own.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\nclass Own: pass\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))  # to the question of transformers whether to execute it
    code, _, error = run(str(model))
    assert not (tmp_path / "executed").exists()
    assert (code, error.splitlines()[-1]) == (
        1,
        f"error: --model {model} cannot be loaded: it needs code of its repository, which is not executed; write a "
        "function, --callable MODULE:FUNCTION",
    )
    assert sys.stdin.readline() == "y\n", "nobody was asked"


def test_a_damaged_tokenizer(models: Path, run: Run, tmp_path: Path) -> None:
    shutil.copytree(models / "pixart", tmp_path / "model")
    (tmp_path / "model/tokenizer/tokenizer.json").write_text("{")
    code, _, error = run(str(tmp_path / "model"))
    assert (code, f"error: --model {tmp_path / 'model'}: its tokenizer cannot be loaded: " in error) == (1, True), error


def test_linked_weights_are_part_of_the_hash(models: Path, run: Run, tmp_path: Path) -> None:
    shutil.copytree(models / "pixart", tmp_path / "model")
    (tmp_path / "model/transformer").rename(tmp_path / "weights")
    (tmp_path / "model/transformer").symlink_to(tmp_path / "weights")
    (tmp_path / "weights/circle").symlink_to(tmp_path / "model")
    assert run(str(tmp_path / "model"), "--limit", "2")[0] == 0
    weights = next((tmp_path / "weights").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    code, _, error = run(str(tmp_path / "model"))
    assert (code, "weights_sha256 was " in error) == (1, True), error


def test_the_name_of_a_folder_is_not_part_of_the_image(models: Path, run: Run, tmp_path: Path) -> None:
    shutil.copytree(models / "pixart", tmp_path / "one")
    run(str(tmp_path / "one"))
    (tmp_path / "one").rename(tmp_path / "two")
    code, output, _ = run(str(tmp_path / "two"))
    assert (code, "0 generated" in output) == (0, True)


def test_other_weights_need_overwrite(models: Path, run: Run, tmp_path: Path) -> None:
    shutil.copytree(models / "pixart", tmp_path / "model")
    assert run(str(tmp_path / "model"))[0] == 0
    weights = next((tmp_path / "model/transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    code, _, error = run(str(tmp_path / "model"))
    assert (code, "weights_sha256 was " in error) == (1, True), error


# Prompts that are too long


def test_long_prompts_are_named_once(run: Run, tmp_path: Path, table: Rows) -> None:
    rows = [{**table[0], "prompt": "x" * 75}, {**table[1], "prompt": "x" * 76}, {**table[2], "prompt": "x" * 400}]
    code, _, error = run("stable-diffusion", "--images-per-prompt", "2", rows=rows)
    assert code == 0
    names = [row["filename"] for row in rows]
    line = f"2 prompts will be cut for tokenizer, which reads 77 tokens: {names[1]} (78); {names[2]} (402)"
    assert error.splitlines().count(line) == 1, error
    assert step_of(tmp_path / "out")["truncated_prompts"] == {"tokenizer, which reads 77 tokens": 2}
    for model, limit in {"sana": 300, "pixart": 300}.items():
        _, _, error = run(model, rows=rows, to=model)
        assert f"1 prompt will be cut for tokenizer, which reads {limit} tokens: {names[2]} (402)" in error


# Models that fail


def test_nan_is_an_error_by_name(models: Path, run: Run, tmp_path: Path, table: Rows) -> None:
    shutil.copytree(models / "stable-diffusion", tmp_path / "model")
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "model/unet")
    torch.nn.init.constant_(unet.conv_out.bias, float("nan"))
    unet.save_pretrained(tmp_path / "model/unet")
    code, _, error = run(str(tmp_path / "model"))
    assert code == 1
    assert f"- {table[0]['filename']}: it has NaN pixels, in fp32; try --dtype bf16 or fp32" in error
    assert not (tmp_path / "out").exists()


def test_out_of_memory_within_a_pipeline(run: Run, monkeypatch: Any, tmp_path: Path) -> None:
    def with_no_memory(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("0 bytes are free")

    monkeypatch.setattr("diffusers.AutoencoderDC.decode", with_no_memory)  # Sana only warns, and fails elsewhere
    code, _, error = run("sana")
    assert (code, "out of memory with one image at a time: OutOfMemoryError: 0 bytes are free" in error) == (1, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", "nowhere"), "nowhere: no such folder, and not a name on the Hub (USER/NAME)"),
        (("--model", "{empty}"), "is no pipeline of diffusers: FileNotFoundError"),
        (("--model", "{models}/pixart", "--revision", "main"), "a revision is for models on the Hub"),
        (("--model", "{models}/pixart", "--lora", "nowhere"), "nowhere: no such folder"),
        (("--model", "{models}/pixart", "--complex-human-instruction", "none"), "has no complex human instruction"),
        (("--model", "alice/nothing"), "alice/nothing: no such model or revision on the Hub"),
        (
            ("--model", "pixart-sigma"),
            "pixart-sigma is a preset and a folder; for the folder pass ./",
        ),
        (("--model", "radedit", "--revision", "main"), "radedit consists of parts of several repositories"),
        (("--model", "sd-v1-4"), "look the name up in https://huggingface.co/collections/raman07/"),
    ],
)
def test_models_that_are_refused(
    options: tuple[str, ...],
    message: str,
    hub: Hub,
    models: Path,
    tmp_path: Path,
    table: Rows,
    capsys: Any,
    monkeypatch: Any,
) -> None:
    (tmp_path / "prompts.csv").write_bytes(to_csv(table))
    (tmp_path / "empty").mkdir()
    (tmp_path / "pixart-sigma").mkdir()
    monkeypatch.chdir(tmp_path)
    given = [option.format(models=models, empty=tmp_path / "empty") for option in options]
    assert main([str(tmp_path / "prompts.csv"), str(tmp_path / "out"), *given]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_size_that_the_pipeline_refuses(run: Run, tmp_path: Path) -> None:
    code, _, error = run("stable-diffusion", size=33)
    line = "error: StableDiffusionPipeline: `height` and `width` have to be divisible by 8 but are 33 and 33.\n"
    assert (code, error.endswith(line)) == (1, True), error
    assert not (tmp_path / "out").exists()


# The Hub


def test_a_model_on_the_hub_is_pinned(hub: Hub, models: Path, run: Run, tmp_path: Path) -> None:
    hub.create("alice/pixart", files=contents(models / "pixart"))
    assert run("alice/pixart")[0] == 0
    run("pixart", to="local")
    assert images_of(tmp_path / "out") == images_of(tmp_path / "local")
    first = step_of(tmp_path / "out")
    assert (first["model"], len(first["revision"])) == ("alice/pixart", 40)
    torch.manual_seed(1)
    changed = tiny_pipelines.pixart()
    torch.nn.init.normal_(changed.transformer.proj_out.weight)
    changed.save_pretrained(tmp_path / "changed")
    hub.push("alice/pixart", contents(tmp_path / "changed"))
    code, _, error = run("alice/pixart")
    assert (code, f"revision was '{first['revision']}' and is now " in error) == (1, True), error
    assert run("alice/pixart", "--revision", first["revision"])[0] == 0, "the first revision is still there"
    run("alice/pixart", to="new")
    assert images_of(tmp_path / "new") != images_of(tmp_path / "out")


def test_presets_name_classes_that_diffusers_has() -> None:
    import diffusers
    import transformers

    libraries = {"diffusers": diffusers, "transformers": transformers}
    for preset in PRESETS.values():
        assert hasattr(diffusers, preset.pipeline)
        for part in preset.parts.values():
            assert hasattr(libraries[part.library], part.class_name)


def test_a_pipeline_by_parts(monkeypatch: Any, models: Path, run: Run, tmp_path: Path, table: Rows) -> None:
    """RadEdit's text encoder is stored as a masked language model with a type that transformers does not know."""
    bert = BertConfig(vocab_size=40, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    torch.manual_seed(0)
    BertForMaskedLM(bert).save_pretrained(tmp_path / "biovil")
    (tmp_path / "biovil/vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "left", "right"])
    )
    config = json.loads((tmp_path / "biovil/config.json").read_bytes())
    config |= {"model_type": "cxr-bert", "auto_map": {"AutoModel": "modeling_cxrbert.CXRBertModel"}}
    (tmp_path / "biovil/config.json").write_text(json.dumps(config))
    parts = dict(PRESETS["radedit"].parts)
    folders = {"unet": models / "stable-diffusion", "vae": models / "stable-diffusion/vae"}
    folders |= dict.fromkeys(["text_encoder", "tokenizer"], tmp_path / "biovil")
    for name, folder in folders.items():
        part = parts[name]
        parts[name] = Part(part.library, part.class_name, str(folder), part.subfolder, part.options)
    radedit = PRESETS["radedit"]
    local = Preset(radedit.pipeline, radedit.steps, radedit.guidance, radedit.size, radedit.max_tokens, parts=parts)
    monkeypatch.setitem(PRESETS, "radedit", local)
    rows = [{**table[0], "prompt": "left"}, {**table[1], "prompt": "right"}, {**table[2], "prompt": "left " * 200}]
    code, _, error = run("radedit", rows=rows)
    assert code == 0, error
    assert "1 prompt will be cut for tokenizer, which reads 128 tokens" in error
    assert len({*images_of(tmp_path / "out").values()}) == 3
    parts_told = step_of(tmp_path / "out")["parts"]
    assert parts_told["text_encoder"]["class"] == "BertModel"
    assert parts_told["scheduler"]["timestep_spacing"] == "trailing"
    assert BertTokenizer.from_pretrained(str(tmp_path / "biovil"))("left")["input_ids"] == [2, 5, 3]
