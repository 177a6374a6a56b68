"""Models that write reports: real classes with random weights, trained, killed, resumed, and scored."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch

import tiny_vlm
import tiny_vlms
from conftest import ROOT, contents, to_files
from evaluate_images import main
from pipeline.checkpoint import Checkpoint
from pipeline.evaluate.reports.report_model import IGNORED, LoraOptions, ReportModel
from pipeline.evaluate.results.results import read_results
from pipeline.evaluate.results.results_section import Section
from processes import held
from reporting import make_sources
from servers.local_hub import MAIN, Hub

pytestmark = pytest.mark.slow
PROGRAM = [sys.executable, str(ROOT / "scripts" / "evaluate_images.py")]
LAYERS = (
    "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj,lm_head"  # lm_head, or so small a model learns nothing
)
QUICK = ["--batch-size", "8", "--learning-rate", "1e-2", "--lora-rank", "8", "--max-new-tokens", "24"]
QUICK += ["--patient-column", "patientID", "--target-modules", LAYERS]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """With several, the last bits of sums depend on what else the machine does."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(usual)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model whose weights are random."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny_vlm.build(folder)
    return folder


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    return make_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture
def arguments(sources: tuple[str, str, str], model: Path, tmp_path: Path) -> list[str]:
    return ["reports", *sources, str(tmp_path / "r.json"), "--model", str(model), *QUICK]


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return [*csv.DictReader(file)]


def losses(folder: Path) -> list[float]:
    return [loss for _, loss in json.loads((folder / "training.json").read_bytes())["losses"]]


def section(path: Path) -> Section:
    found = read_results(path).reports
    assert found
    return found


def test_from_images_to_scores(
    arguments: list[str], sources: tuple[str, str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("real", "synthetic", "mixed", "augmented")
    assert main([*arguments, "--epochs", "12"]) == 0
    work = tmp_path / "r.reports"
    assert {path.name for path in work.iterdir()} == {*(f"{name}-0" for name in settings), "texts.csv"}
    test = {row["filename"]: row for row in rows_of(Path(sources[2]) / "metadata.csv")}
    rows = rows_of(work / "texts.csv")
    assert [(row["setting"], row["filename"]) for row in rows] == [
        (name, filename) for name in settings for filename in sorted(test)
    ]
    for row in rows:
        of_test = test[row["filename"]]
        assert (row["reference"], row["patient"]) == (of_test["prompt"], of_test["patientID"])
        assert row["text"]
    for number, name in enumerate(settings):
        found = losses(work / f"{name}-0")
        assert len(found) == 32, "all settings take as many steps: 12 epochs of 21 images, 8 a step"
        assert sum(found[-4:]) / 4 < 0.8 * found[0]
        assert rows_of(work / f"{name}-0" / "texts.csv") == rows[10 * number : 10 * number + 10]
    assert len({row["text"] for row in rows}) > 1

    reports = section(tmp_path / "r.json")
    values = {(one.metric, one.setting): one for one in reports.metrics}
    for metric in ("bleu_1", "bleu_4", "rouge_l"):
        assert {setting for name, setting in values if name == metric} == {*settings}
        assert {setting for name, setting in values if name == f"{metric}_difference"} == {*settings} - {"real"}
    one = values["rouge_l", "mixed"]
    assert (one.method, one.n) == ("tiny", {"test": 10, "patients": 4})
    assert {reference.name for reference in one.references} == {
        "real",
        "shuffled reports",
        "most frequent training report",
    }
    assert {name: (side.rows, side.patients) for name, side in reports.sides.items()} == {
        "train": (24, 8),
        "synthetic": (24, None),
        "test": (10, 4),
    }
    assert reports.options["steps"] == {f"{name}-0": 32 for name in settings}
    assert "bleu_4_difference" in capsys.readouterr().out

    before = contents(work)
    assert main([*arguments, "--epochs", "12"]) == 0, "a second run has nothing to do"
    assert contents(work) == before
    assert section(tmp_path / "r.json").metrics == reports.metrics

    assert main(["score", str(work / "texts.csv"), str(tmp_path / "s.json"), "--model", "tiny"]) == 0
    for one in section(tmp_path / "s.json").metrics:
        wanted = values[one.metric, one.setting]
        references = tuple(reference for reference in wanted.references if "most frequent" not in reference.name)
        notes = tuple(note for note in wanted.notes if "synthetic image" not in note)
        assert one == wanted._replace(references=references, notes=notes)


@pytest.mark.parametrize("file", [*tiny_vlm.ASKS_FOR_CODE])
def test_code_of_a_model_is_not_executed(
    file: str, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tiny_vlm.build_with_code(tmp_path, file)
    monkeypatch.setattr("sys.stdin", io.StringIO(tiny_vlm.YES))
    code = main([*arguments, "--model", str(own), "--settings", "real", "--epochs", "1"])
    told = capsys.readouterr()
    tiny_vlm.check_refusal(own, file, code, told.out + told.err)


def kill_when(command: list[str], is_time: Callable[[], bool]) -> None:
    """Runs the program, and kills it at a time."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    while not is_time():
        assert run.poll() is None, "it ended too early"
        time.sleep(0.002)
    run.send_signal(signal.SIGKILL)
    run.wait()


def test_a_killed_run_continues(arguments: list[str], tmp_path: Path) -> None:
    arguments += ["--settings", "synthetic", "--epochs", "8", "--device-batch-size", "2"]
    whole = [*arguments, "--work", str(tmp_path / "whole")]
    killed = [*arguments, "--work", str(tmp_path / "killed")]
    assert main(whole) == 0
    run = tmp_path / "killed" / "synthetic-0"

    command = [*PROGRAM, *killed]
    first = held(command, "training.json", tmp_path / "never")  # it does not end first
    kill_when(first, lambda: len([*run.glob("checkpoints/*/complete")]) > 1)
    left = sorted(run.glob("checkpoints/checkpoint-*"))
    assert left and not (run / "training.json").exists()
    (run / "checkpoints" / "checkpoint-9999").mkdir()  # half-written
    (run / "checkpoints" / "checkpoint-9999" / "trainer_state.json").write_bytes(b'{"glob')
    lines = run / "texts-0.jsonl"
    second = held(command, lines.name, tmp_path / "never", passing=1)  # of several appends
    kill_when(second, lambda: lines.exists() and lines.stat().st_size > 0)
    done = lines.read_bytes()
    assert (run / "training.json").exists() and 0 < done.count(b"\n") < 10
    lines.write_bytes(done[:-7])  # as a power cut may leave it
    assert main(killed) == 0

    one, other = contents(tmp_path / "whole"), contents(tmp_path / "killed")
    assert {*one} == {*other}
    for name in ("texts.csv", "synthetic-0/texts.csv", "synthetic-0/adapter/adapter_model.safetensors"):
        assert one[name] == other[name], name
    assert losses(tmp_path / "whole" / "synthetic-0") == losses(run)


def test_a_run_of_other_options_is_not_replaced(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments += ["--settings", "real", "--epochs", "1"]
    assert main(arguments) == 0
    before = contents(tmp_path)
    assert main([*arguments, "--learning-rate", "2e-2"]) == 1
    assert "real-0 is of another run: learning_rate differ" in capsys.readouterr().err
    assert contents(tmp_path) == before
    assert main([*arguments, "--learning-rate", "2e-2", "--overwrite"]) == 0
    changed = contents(tmp_path)
    assert changed["r.reports/real-0/training.json"] != before["r.reports/real-0/training.json"]


def test_limit_and_seeds(arguments: list[str], tmp_path: Path) -> None:
    assert main([*arguments, "--settings", "real", "--seeds", "2", "--limit", "8", "--epochs", "1"]) == 0
    rows = rows_of(tmp_path / "r.reports" / "texts.csv")
    assert [row["seed"] for row in rows] == ["0"] * 8 + ["1"] * 8
    found = section(tmp_path / "r.json")
    assert {one.n["seeds"] for one in found.metrics} == {2}
    assert found.sides["train"].rows == 8


def test_run_takes_the_revision_of_the_model(
    sources: tuple[str, str, str], model: Path, hub: Hub, tmp_path: Path
) -> None:
    repo = hub.create("alice/tiny", files=contents(model))
    commit = repo.refs["refs/heads/v1"] = repo.refs[MAIN]
    hub.push("alice/tiny", {"config.json": b"{}"})  # a model that cannot be loaded
    given = ["--report-model", "alice/tiny", "--report-revision", "v1", "--limit", "8", "--settings", "real"]
    given += ["--encoder", "embedding:pixels", "--labels", "none", "--seeds", "1", "--patient-column", "patientID"]
    assert main(["run", *sources, str(tmp_path / "results"), *given]) == 0
    found = section(tmp_path / "results" / "results.json")
    assert found.options["model"] == {"name": "alice/tiny", "revision": commit}
    assert found.sides["train"].rows == 8


# Errors before the model is loaded


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({1: "no-such-folder"}, "no-such-folder"),
        ({2: "no-such-folder"}, "no-such-folder"),
        ({3: None}, "among the training and the test images"),
        ({4: "taken.json"}, "no results can be added to this file"),
        ({"--patient-column": "age"}, "no column age"),
        ({"--batch-size": "6"}, "--batch-size 6 is no multiple of --device-batch-size 4"),
        ({"--epochs": "0"}, "must be positive"),
        ({"--lora-dropout": "1"}, "--lora-dropout 1.0 is no share below 1"),
        ({"--revision": "main"}, "a revision is for models on the Hub; model is a local path"),
        ({"--work": "taken.json"}, "is a file; name a folder with --work"),
    ],
)
def test_bad_input_is_named_before_the_model_is_loaded(
    change: dict[Any, str | None],
    message: str,
    sources: tuple[str, str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    to_files(tmp_path, {"model/config.json": b"{}", "taken.json": b"[]"})  # a model that cannot be loaded
    given = ["reports", *sources, "r.json", "--model", "model", *QUICK]
    for place, value in change.items():
        if isinstance(place, int):
            given[place] = value or sources[0]
        else:
            given += [place, str(value)]
    before = contents(tmp_path)
    assert main(given) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert contents(tmp_path) == before, "nothing was written"


def test_a_model_that_cannot_be_loaded(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to_files(tmp_path / "model", {"config.json": b"{}"})
    arguments[arguments.index("--model") + 1] = str(tmp_path / "model")
    assert main(arguments) == 1
    assert f"error: --model {tmp_path}/model cannot be loaded: " in capsys.readouterr().err.splitlines()[-1]


# The model


def load(folder: Path, max_tokens: int = 12) -> ReportModel:
    return ReportModel(Checkpoint(str(folder)).pin(), "What is here?", max_tokens)


def pictures(count: int) -> list[PIL.Image.Image]:
    return [PIL.Image.linear_gradient("L").rotate(30 * number).convert("RGB") for number in range(count)]


def test_only_tokens_of_the_report_have_a_part_in_the_loss(model: Path) -> None:
    loaded = load(model)
    tokenizer: Any = loaded._tokenizer
    reports = ["no", "a long text, beyond"]
    batch = loaded.training_batch(pictures(2), reports)
    prompt = "user: <image><image><image><image>What is here?assistant: "
    for ids, labels, mask, text in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], reports):
        kept = labels != IGNORED
        wanted = text[:12] + "</s>" * (len(text) <= 12)  # a token is a byte; what is cut off has no end
        assert tokenizer.decode(ids[kept]) == tokenizer.decode(labels[kept]) == wanted
        assert tokenizer.decode(ids[mask.bool()]) == prompt + wanted
        assert (kept & ~mask.bool()).sum() == 0
    assert loaded.too_long(reports) == 1


@pytest.mark.parametrize("family", ["llava", *tiny_vlms.FAMILIES])
def test_padding_changes_neither_loss_nor_text(family: str, model: Path, tmp_path: Path) -> None:
    if family != "llava":
        model = tmp_path / family
        tiny_vlms.FAMILIES[family](model)
    loaded, reports = load(model), ["no", "a large one", "x"]
    images = [image.resize(size) for image, size in zip(pictures(3), [(60, 90), (90, 40), (56, 56)])]
    loaded.add_adapters(LoraOptions(rank=2), 0)
    loaded.model.eval()
    parts = [loaded.training_batch([image], [report]) for image, report in zip(images, reports)]
    sizes = [int((part["labels"] != IGNORED).sum()) for part in parts]
    with torch.no_grad():
        alone = [float(loaded.model(**part).loss) for part in parts]
        together = float(loaded.model(**loaded.training_batch(images, reports)).loss)
    assert together == pytest.approx(sum(loss * size for loss, size in zip(alone, sizes)) / sum(sizes), rel=1e-5)
    loaded.model(**loaded.training_batch(images, reports)).loss.backward()
    adapted = [value.grad for value in loaded.model.parameters() if value.requires_grad]
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in adapted)
    assert loaded.write(images) == [loaded.write([image])[0] for image in images]


def test_texts_do_not_depend_on_the_batch_and_are_the_most_probable(model: Path) -> None:
    loaded, images = load(model), pictures(4)
    together = loaded.write(images)
    assert together == [loaded.write([image])[0] for image in images]
    batch = loaded.training_batch(images[:1], [""])
    ids = batch.pop("input_ids")[:, :-1]
    for _ in range(12):  # step by step, without generate
        with torch.no_grad():
            logits = loaded.model(input_ids=ids, pixel_values=batch["pixel_values"]).logits[0, -1]
        ids = torch.cat([ids, logits.argmax()[None, None]], dim=1)
    assert loaded._tokenizer.decode(ids[0, -12:], skip_special_tokens=True).replace("\0", "�").strip() == together[0]


def test_penalties_of_the_model_do_not_change_the_texts(model: Path, tmp_path: Path) -> None:
    punished = Path(shutil.copytree(model, tmp_path / "punished"))
    settings = json.loads((punished / "generation_config.json").read_bytes())
    settings |= {"repetition_penalty": 9.0, "no_repeat_ngram_size": 1, "do_sample": True, "temperature": 9.0}
    to_files(punished, {"generation_config.json": json.dumps(settings).encode()})
    written = []
    for folder in (model, punished):
        loaded = load(folder)
        loaded.add_adapters(LoraOptions(rank=2), 0)
        written.append(loaded.write(pictures(3)))
    assert written[0] == written[1]


def test_a_folder_of_another_program_is_never_removed(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to_files(tmp_path, {"r.reports/real-0/notes.txt": b"mine"})
    assert main([*arguments, "--settings", "real", "--overwrite"]) == 1
    assert "real-0 has no run.json, so it is of another program" in capsys.readouterr().err
    assert (tmp_path / "r.reports/real-0/notes.txt").read_bytes() == b"mine"


def test_adapters_are_on_the_language_model_by_default(model: Path) -> None:
    loaded = load(model)
    loaded.add_adapters(LoraOptions(rank=2), 0)
    names = [name for name, value in loaded.model.named_parameters() if value.requires_grad]
    assert names
    assert all("lora_" in name and "language_model" in name and "lm_head" not in name for name in names)


def test_a_model_without_a_chat_template_gets_the_plain_instruction(model: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    to_files(bare, {path.name: path.read_bytes() for path in model.iterdir() if "template" not in path.name})
    loaded = load(bare)
    batch = loaded.training_batch(pictures(1), ["no"])
    assert loaded._tokenizer.decode(batch["input_ids"][0]) == "<image>" * 4 + "\nWhat is here?\nno</s>"
    assert len(loaded.write(pictures(2))) == 2


def test_two_processes_share_the_work(arguments: list[str], tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    given = [*torchrun, PROGRAM[1], *arguments, "--settings", "real", "--epochs", "6", "--device-batch-size", "4"]
    run = subprocess.run(given, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    folder = tmp_path / "r.reports" / "real-0"
    assert {path.name for path in folder.glob("*.jsonl")} == {"texts-0.jsonl", "texts-1.jsonl"}
    assert [row["filename"] for row in rows_of(folder / "texts.csv")] == [f"q{number:03}.jpg" for number in range(10)]
    assert len(losses(folder)) == 16, "a step has the images of both processes"
    assert run.stdout.count("rouge_l") == 1, "one of them prints"
    before = contents(folder)
    shutil.rmtree(folder / "adapter")  # it is not needed any more
    assert main([*arguments, "--settings", "real", "--epochs", "6", "--device-batch-size", "4"]) == 0
    assert {name: data for name, data in before.items() if "adapter" not in name} == contents(folder)
