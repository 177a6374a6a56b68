"""Evaluates synthetic images against real ones: how close they are, with error bars.

1. embed     turns the images of a SOURCE into features, once for each encoder
2. fidelity  computes all metrics from the features of real and of synthetic images
3. privacy   measures whether synthetic images tell more of the training images than of other patients' images
4. utility   trains classifiers on real and on synthetic images, and tests them on real ones
5. reports   fine-tunes a model that writes reports on real and on synthetic images, and scores its reports
6. score     scores reports that were written elsewhere
7. report    shows results as a page
8. run       does 1 to 4 and 7 with the installed packages, and 5 if asked for

`evaluate_images.py embed --help` and so on describe the options of each.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipeline.cli import (
    add_command,
    add_on_mismatch,
    exit_code,
    finite,
    input_file,
    local_folder,
    make_parser,
    names,
    output_file,
    positive,
    start,
)
from pipeline.engine import ENGINES
from pipeline.evaluate.embedding.embed import embed
from pipeline.evaluate.encoders.registry import ENCODERS
from pipeline.evaluate.fidelity.fidelity import fidelity
from pipeline.evaluate.page.report import report
from pipeline.evaluate.privacy.pairing import PAIRED_BY
from pipeline.evaluate.privacy.privacy import privacy
from pipeline.evaluate.reports.report_scores import score
from pipeline.evaluate.reports.reports import reports
from pipeline.evaluate.results.results_fidelity import PROTOCOLS
from pipeline.evaluate.run import AUTOMATIC, run
from pipeline.evaluate.settings import SETTINGS
from pipeline.evaluate.utility.backbone import PRECISIONS, RANDOM
from pipeline.evaluate.utility.utility import utility
from synthchex_75k import LABELS

ENCODER_LINES = "\n".join(f"  {name:10} {about}" for name, about in ENCODERS.items())
EMBED = f"""
encoders:
{ENCODER_LINES}
  PATH or USER/NAME  any vision model of transformers, a folder or on the Hub
  MODULE:FUNCTION    a function; needs numpy only, see below

FEATURES_DIR:
  data/ENCODER-*.parquet  file name, CRC-32, size, prompt and labels of images, and the outputs of an encoder
  features.json           which files there are, and everything that the features depend on
  .manifest.jsonl         fingerprint and SHA-256 of each file

After an interruption run the same command again: finished files are verified and kept. Another run with other encoders
adds to the folder. An image that changed under its name is embedded again, and the others are not.

--encoder my_model:embed calls embed(images) of my_model.py, in this folder or installed, with a list of PIL images in
8-bit RGB. It returns an array of shape (images, width).

examples:
  python scripts/evaluate_images.py embed path/to/release path/to/features
  python scripts/evaluate_images.py embed path/to/release path/to/features --encoder my_model:embed --limit 5000
"""
FIDELITY = """
RESULTS_JSON holds each metric overall and for each label: value, standard error, 95 % interval, n on both sides, and
the floor, which is the same metric between two halves of the real images. scripts/README.md tells what each metric
means and when not to believe it.

examples:
  python scripts/evaluate_images.py fidelity path/to/real-features path/to/features path/to/results.json
  python scripts/evaluate_images.py fidelity path/to/real-features path/to/features path/to/results.json --labels none
"""
PRIVACY = """
Each metric stands beside what it is without memorisation, or for real images that the generator did not see. None is
proof of privacy; scripts/README.md tells what each of them tells and what not.

Without --heldout most metrics are refused, since nobody knows then how near to the training images other images are.
Held-out images are of other patients and of the same kind: split by patients before training, and embed both sides
with --patient-column.

--pair compares each synthetic image with the training image that it was made for:
  filename  SyntheticImg_NAME.png belongs to NAME.png or NAME.jpg
  prompt    the training image has the same prompt

examples:
  python scripts/evaluate_images.py privacy path/to/train-features path/to/features path/to/results.json
  python scripts/evaluate_images.py privacy path/to/train-features path/to/features path/to/results.json \\
    --heldout path/to/real-features
  python scripts/evaluate_images.py privacy path/to/train-features path/to/features path/to/results.json \\
    --pair filename --train path/to/real-train --synthetic path/to/release --reid path/to/reid.pth
"""
UTILITY = """
settings:
  real       all real training images
  synthetic  as many synthetic ones
  mixed      real images of half of the patients, and synthetic ones in place of the other half
  augmented  those of real and those of synthetic together

Validation and test images are real, no patient is on two sides, and twins of their images, synthetic ones made from
their names or prompts, are not trained on.

examples:
  python scripts/evaluate_images.py utility path/to/real-train path/to/release path/to/real-test path/to/results.json \\
    --probe path/to/train-features path/to/features path/to/real-features --patient-column patientID
  python scripts/evaluate_images.py utility path/to/real-train path/to/release path/to/real-test path/to/results.json \\
    --backbone resnet50 --patient-column patientID
  torchrun --nproc-per-node 8 scripts/evaluate_images.py utility path/to/real-train path/to/release path/to/real-test \\
    path/to/results.json --backbone resnet50 --patient-column patientID
"""
REPORTS = """
FOLDER:
  SETTING-SEED/run.json   everything that decides a run
  SETTING-SEED/adapter    the trained adapters, as peft loads them
  SETTING-SEED/texts.csv  what the model wrote of each test image
  texts.csv               all of them, for `score`

After an interruption run the same command again: it continues from the last checkpoint, or with the next image.

examples:
  python scripts/evaluate_images.py reports path/to/real path/to/release path/to/real-test path/to/results.json \\
      --model llava-hf/llava-1.5-7b-hf --patient-column patientID
  python scripts/evaluate_images.py reports path/to/real path/to/release path/to/real-test path/to/results.json \\
      --model path/to/model --settings real,synthetic --limit 2000 --epochs 1
  torchrun --nproc-per-node 4 scripts/evaluate_images.py reports path/to/real path/to/release path/to/real-test \\
      path/to/results.json --model path/to/model
"""
SCORE = """
TEXTS_CSV has the columns reference and text; filename, setting, seed and patient where they are known. Texts of several
settings or seeds need a file name each. A metric whose package is not installed is left out, with a line that tells it.

examples:
  python scripts/evaluate_images.py score path/to/texts.csv path/to/results.json
"""
REPORT = """
The page shows images of the sources that were embedded, if they are there. Real images may be covered by a data use
agreement: --no-images leaves all of them out.

examples:
  python scripts/evaluate_images.py report path/to/results.json --html path/to/results.html
  python scripts/evaluate_images.py report path/to/one.json path/to/other.json --html path/to/both.html --no-images
"""
RUN = """
What it leaves out by default: reports, which needs --report-model; training on images, which needs --backbone; and the
metrics of encoders beyond rad-dino, xrv and biovil-t. For inception_score and frd too, name all encoders:
--encoder rad-dino --encoder xrv --encoder biovil-t --encoder inception --encoder radiomics. Re-identification and the
protocol of CheXGenBench are options of privacy and fidelity alone.

It does what is missing, and can be interrupted at any time: images that have features are not embedded again, and a
section of results.json that was computed from the same features and options is kept. What needs a package that is not
installed is skipped, and the last lines tell what to install.

RESULTS_DIR:
  features/train, features/synthetic, features/test   FEATURES_DIR of each source
  results.json                                        sections fidelity, privacy, utility, and reports if asked for
  results.html                                        the page

The generator must not have been trained on REAL_TEST: fidelity compares with it, and privacy uses it as held-out
images. Name the column of patients if there is one: without it, intervals are too narrow.

examples:
  python scripts/evaluate_images.py run path/to/real path/to/release path/to/test-set path/to/results
  python scripts/evaluate_images.py run path/to/real path/to/release path/to/test-set path/to/results \\
      --limit 5000 --patient-column patient
"""
EXAMPLES = """
examples:
  python scripts/evaluate_images.py embed path/to/real path/to/real-features
  python scripts/evaluate_images.py embed path/to/release path/to/features
  python scripts/evaluate_images.py fidelity path/to/real-features path/to/features path/to/results.json
  python scripts/evaluate_images.py report path/to/results.json --html path/to/results.html
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs the program.

    Args:
        arguments: Of the command line. Default: those of this process.

    Returns:
        The exit code: 0; 1 after an error; 130 after Ctrl-C.
    """
    options = vars(parser().parse_args(arguments))
    options.pop("command")
    function = options.pop("run")
    return exit_code(lambda: function(**options), "Finished files")


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    result = make_parser(main, EXAMPLES)
    commands = result.add_subparsers(
        dest="command", required=True, metavar="embed|fidelity|privacy|utility|reports|score|report|run"
    )
    _add_embed(commands)
    _add_fidelity(commands)
    _add_privacy(commands)
    _add_utility(commands)
    _add_reports(commands)
    _add_score(commands)
    _add_report(commands)
    _add_run(commands)
    return result


def _add_embed(commands: Any) -> None:
    add = add_command(commands, embed, EMBED).add_argument
    add("source", metavar="SOURCE", help="folder or archive, or its address")
    add("output", metavar="FEATURES_DIR", type=local_folder, help="folder for features alone, created if needed")
    add("--encoder", action="append", metavar="NAME", help="encoder, see above; may be repeated (default: rad-dino)")
    weights = "folder of the weights, or their name on the Hub; NAME=WEIGHTS for each of several encoders"
    add("--model", action="append", metavar="WEIGHTS", help=f"{weights} (default: those of the authors)")
    revision = "commit, branch or tag of weights on the Hub; NAME=SHA for each of several encoders (default: main)"
    add("--revision", action="append", metavar="SHA", help=revision)
    add("--batch-size", type=positive, metavar="N", help="images at once; halved when memory runs out")
    add("--engine", choices=ENGINES, help="embed in this process, or in workers of Ray")
    of_ray = "processes that embed, with --engine ray; each uses a GPU if there are any"
    add("--workers", type=positive, metavar="N", help=of_ray)
    limit = "embed N images, chosen at random; a larger N adds to them (default: all)"
    add("--limit", type=positive, metavar="N", help=limit)
    patients = "column of the metadata CSV that names the patient of an image (default: none)"
    add("--patient-column", metavar="NAME", help=patients)
    add_on_mismatch(add)
    add("--overwrite", action="store_true", help="replace features of another source, encoder or a larger limit")


def _add_fidelity(commands: Any) -> None:
    add = add_command(commands, fidelity, FIDELITY).add_argument
    add("real", metavar="REAL_FEATURES", type=Path, help="FEATURES_DIR of real images")
    add("synthetic", metavar="SYNTHETIC_FEATURES", type=Path, help="FEATURES_DIR of synthetic images, embedded alike")
    add("results_json", metavar="RESULTS_JSON", type=output_file, help="file for the results")
    protocol = "sound, or the definitions of the CheXGenBench code, with their faults"
    add("--protocol", choices=PROTOCOLS, help=protocol)
    labels = "labels to look at for themselves: all, none, or names separated by commas (default: all)"
    add("--labels", type=_labels, metavar="NAMES", help=labels)
    add("--seed", type=int, metavar="N", help="seed of everything that is drawn")


def _add_privacy(commands: Any) -> None:
    command = add_command(commands, privacy, PRIVACY)
    add = command.add_argument
    add("train", metavar="TRAIN_FEATURES", type=Path, help="FEATURES_DIR of what the generator was trained on")
    add("synthetic", metavar="SYNTHETIC_FEATURES", type=Path, help="FEATURES_DIR of synthetic images, embedded alike")
    add("results_json", metavar="RESULTS_JSON", type=output_file, help="file for the section privacy")
    heldout = "FEATURES_DIR of real images of other patients, which the generator did not see (default: none)"
    add("--heldout", metavar="FEATURES", type=Path, help=heldout)
    add("--seed", type=int, metavar="N", help="seed of everything that is drawn")
    add("--pair", choices=PAIRED_BY, help="what names the training image of a synthetic one (default: no pairs)")
    add = command.add_argument_group("--pair").add_argument
    sources = "for the pixels of pairs (default: features alone)"
    add("--train", dest="train_source", metavar="SOURCE", help=f"source of the training images, {sources}")
    add("--synthetic", dest="synthetic_source", metavar="SOURCE", help=f"source of the synthetic images, {sources}")
    reid = "file, folder or name on the Hub of a Siamese ResNet-50 that tells whether two images are of one patient"
    add("--reid", metavar="CHECKPOINT", help=f"{reid} (default: none)")
    add_on_mismatch(add)


def _add_utility(commands: Any) -> None:
    command = add_command(commands, utility, UTILITY)
    add = command.add_argument
    add("real_train", metavar="REAL_TRAIN", help="source of real images to train and to validate on")
    add("synthetic", metavar="SYNTHETIC", help="source of synthetic images")
    add("real_test", metavar="REAL_TEST", help="source of real images of other patients")
    add("results_json", metavar="RESULTS_JSON", type=output_file, help="file for the section utility")
    add("--settings", type=_settings, metavar="NAMES", help="what to train on, separated by commas, see above")
    features = ("TRAIN_FEATURES", "SYNTHETIC_FEATURES", "TEST_FEATURES")
    about = "train logistic regressions on the features of the three sources, each a FEATURES_DIR"
    add("--probe", nargs=3, type=Path, metavar=features, help=about)
    add("--seeds", type=positive, metavar="N", help="trainings in each setting")
    patients = "column of the metadata CSV of the real sources that names the patient of an image (default: none)"
    add("--patient-column", metavar="NAME", help=patients)
    limit = "take N images of each source, chosen at random as embed does (default: all)"
    add("--limit", type=positive, metavar="N", help=limit)
    add("--seed", type=int, metavar="N", help="the first seed of everything that is drawn")
    add_on_mismatch(add)
    add("--backbone", metavar="NAME", help="fine-tune this network of timm on the images, such as resnet50")
    add = command.add_argument_group("--backbone").add_argument
    weights = f"first weights: file, folder or name on the Hub, or {RANDOM} (default: those of timm on the Hub)"
    add("--weights", metavar="WEIGHTS", help=weights)
    add("--revision", metavar="SHA", help="commit, branch or tag of weights on the Hub (default: main)")
    epochs = "how often the images of setting real are seen; the other settings take as many steps"
    add("--epochs", type=positive, metavar="N", help=epochs)
    add("--batch-size", type=positive, metavar="N", help="images of a step, over all GPUs")
    add("--learning-rate", type=finite, metavar="RATE", help="the highest")
    size = "width and height that images are made for it: pixels (default: what the network was made for)"
    add("--image-size", type=positive, metavar="N", help=size)
    add("--horizontal-flips", action="store_true", help="mirror a half of the images, hearts on the right side too")
    add("--precision", choices=PRECISIONS, help="auto: bf16 on a GPU that has it, else fp32")
    folder = "for decoded images and what a run resumes from (default: RESULTS_JSON with the suffix .utility)"
    add("--checkpoints", type=local_folder, metavar="FOLDER", help=folder)


def _add_reports(commands: Any) -> None:
    add = add_command(commands, reports, REPORTS).add_argument
    add("real_train", metavar="REAL_TRAIN", help="source of real training images, whose prompts are their reports")
    add("synthetic", metavar="SYNTHETIC", help="source of synthetic images with the prompts they were made from")
    add("real_test", metavar="REAL_TEST", help="source of real images of other patients, to write reports of")
    add("results_json", metavar="RESULTS_JSON", type=output_file, help="file for the results; other sections stay")
    model = "image-text-to-text model of transformers, a folder or on the Hub"
    add("--model", required=True, metavar="PATH_OR_NAME", help=model)
    add("--revision", metavar="SHA", help="commit, branch or tag on the Hub (default: main)")
    add("--settings", type=_settings, metavar="NAMES", help="what to train on, separated by commas, as of utility")
    add("--seeds", type=positive, metavar="N", help="training runs of each setting")
    add("--seed", type=int, metavar="N", help="the first seed")
    patients = "column of the metadata of real images that names the patient (default: none)"
    add("--patient-column", metavar="NAME", help=patients)
    add("--instruction", metavar="TEXT", help="what the model is asked about each image")
    add("--epochs", type=finite, metavar="N", help="passes over the images of setting real; all take as many steps")
    add("--batch-size", type=positive, metavar="N", help="images of a step, on all GPUs together")
    add("--device-batch-size", type=positive, metavar="N", help="images at once on a GPU")
    add("--learning-rate", type=finite, metavar="X", help="the highest; it falls to 0 as a cosine")
    add("--lora-rank", type=positive, metavar="N", help="rank of the adapters")
    add("--lora-alpha", type=positive, metavar="N", help="adapters count alpha / rank")
    add("--lora-dropout", type=finite, metavar="X", help="share of the adapters' inputs that training drops")
    targets = "modules with adapters: language-model, all-linear, or ends of names separated by commas"
    add("--target-modules", type=names, metavar="NAMES", help=targets)
    add("--gradient-checkpointing", action="store_true", help="less memory, a third more time")
    add("--max-new-tokens", type=positive, metavar="N", help="upper bound of a report's length, in training too")
    limit = "take N images of each source, chosen at random (default: all)"
    add("--limit", type=positive, metavar="N", help=limit)
    work = "folder for adapters and texts (default: RESULTS_JSON with the ending .reports)"
    add("--work", type=local_folder, metavar="FOLDER", help=work)
    add_on_mismatch(add)
    add("--overwrite", action="store_true", help="replace runs of other images or other options")


def _add_score(commands: Any) -> None:
    add = add_command(commands, score, SCORE).add_argument
    add("texts_csv", metavar="TEXTS_CSV", type=input_file, help="CSV with columns reference and text, see above")
    add("results_json", metavar="RESULTS_JSON", type=output_file, help="file for the results; other sections stay")
    add("--model", metavar="NAME", help="name of the model that wrote the texts (default: name of the CSV)")
    add("--seed", type=int, metavar="N", help="seed of everything that is drawn")


def _add_report(commands: Any) -> None:
    add = add_command(commands, report, REPORT).add_argument
    add("results_json", metavar="RESULTS_JSON", nargs="+", type=Path, help="results; several become columns of a table")
    add("--html", required=True, type=output_file, metavar="PAGE", help="file for the page")
    add("--real", metavar="SOURCE", help="source of the real images of fidelity, if it has moved")
    add("--synthetic", metavar="SOURCE", help="source of the synthetic images, if it has moved")
    add("--train", metavar="SOURCE", help="source of the training images, if it has moved")
    add("--no-images", dest="images", action="store_false", help="show no images and no prompts")
    add("--published", action="store_true", help="show the published values beside results of --protocol chexgenbench")


def _add_run(commands: Any) -> None:
    add = add_command(commands, run, RUN).add_argument
    add("real_train", metavar="REAL_TRAIN", help="source of the real images that the generator was trained on")
    add("synthetic", metavar="SYNTHETIC", help="source of the synthetic images")
    add("real_test", metavar="REAL_TEST", help="source of real images of other patients")
    add("results_dir", metavar="RESULTS_DIR", type=local_folder, help="folder for the results alone")
    automatic = f"as in embed; may be repeated (default: those of {', '.join(AUTOMATIC)} that can be used here)"
    add("--encoder", action="append", metavar="NAME", help=automatic)
    add("--model", action="append", metavar="WEIGHTS", help="weights of encoders, as in embed")
    add("--revision", action="append", metavar="SHA", help="of weights on the Hub, as in embed")
    add("--limit", type=positive, metavar="N", help="take N images of each source, chosen at random (default: all)")
    patients = "column of the real images' metadata that names the patient (default: none)"
    add("--patient-column", metavar="NAME", help=patients)
    add("--batch-size", type=positive, metavar="N", help="images at once; halved when memory runs out")
    add("--engine", choices=ENGINES, help="embed in this process, or in workers of Ray")
    add("--workers", type=positive, metavar="N", help="processes that embed, with --engine ray")
    add_on_mismatch(add)
    labels = "labels to look at for themselves: all, none, or names separated by commas (default: all)"
    add("--labels", type=_labels, metavar="NAMES", help=labels)
    settings = f"what classifiers are trained on: some of {','.join(SETTINGS)}, separated by commas (default: all)"
    add("--settings", type=_settings, metavar="NAMES", help=settings)
    add("--seeds", type=positive, metavar="N", help="how often each classifier is trained")
    add("--backbone", metavar="NAME", help="model of timm to train on images (default: a probe on the features)")
    add("--report-model", metavar="MODEL", help="folder or name on the Hub of a model that learns to write reports")
    add("--report-revision", metavar="SHA", help="commit, branch or tag of that model on the Hub (default: main)")
    add("--seed", type=int, metavar="N", help="seed of everything that is drawn")
    add("--no-images", dest="images", action="store_false", help="show no images and no prompts on the page")
    add("--overwrite", action="store_true", help="replace features of another source, encoder or a larger limit")


def _settings(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if unknown := [name for name in names if name not in SETTINGS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: name some of {', '.join(SETTINGS)}")
    return names


def _labels(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if names in (("all",), ("none",)):
        return LABELS if names == ("all",) else ()
    if unknown := [name for name in names if name not in LABELS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: name all, none, or some of {', '.join(LABELS)}")
    return names


if __name__ == "__main__":
    start(main)
