"""Generates an image for each prompt of a CSV, with a text-to-image model.

OUTPUT_DIR is a SOURCE from the first image on:
  data/NAME.png      the images; NAME is the prompt's file name, id or line; NAME_1.png, … are further ones
  metadata.csv       file name, prompt, 14 raw labels (empty where PROMPTS_CSV has none), seed of the image
  provenance.json    model, revision or hash of its weights, options, versions, hardware, times
  failed.csv         file names of images that failed, and why; only if there are any
  .manifest.jsonl    fingerprint and SHA-256 of each finished file

The seed of an image is a hash of --seed, what names the prompt, and the number of the image. So the same request gives
the same image, whatever the batch size, the order, the other prompts and the number of workers are, as far as the
hardware computes alike. After an interruption run the same command again: finished images are verified and kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.cli import exit_code, finite, local_folder, make_parser, positive, start
from pipeline.engine import ENGINES
from pipeline.generate.generate import generate
from pipeline.generate.models import DTYPES
from pipeline.generate.options import INSTRUCTIONS
from pipeline.generate.presets import PRESETS

PRESET_LINES = "\n".join(
    f"  {name:13} {preset.pipeline}, {preset.steps} steps, guidance {preset.guidance:g}, {preset.size} pixels, "
    f"{preset.max_tokens} tokens{', LoRA' if preset.lora else ''}"
    for name, preset in PRESETS.items()
)
EXAMPLES = f"""
presets of --model, the diffusers models of CheXGenBench:
{PRESET_LINES}

--callable my_model:draw calls draw(prompts, seeds) of my_model.py, in this folder or installed, with a list of texts
and one of integers. It returns a list of PIL images. Seed the random numbers of each image with its seed.

examples:
  python scripts/generate_images.py path/to/prompts.csv path/to/images --model sana
  python scripts/generate_images.py path/to/prompts.csv path/to/images --model path/to/pipeline --steps 30 --limit 8
  python scripts/generate_images.py path/to/prompts.csv path/to/images --callable my_model:draw
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs the program.

    Args:
        arguments: Of the command line. Default: those of this process.

    Returns:
        The exit code: 0; 1 after an error, or where an image failed; 130 after Ctrl-C.
    """
    options = vars(parser().parse_args(arguments))
    return exit_code(lambda: generate(**options), "Finished images")


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    result = make_parser(main, EXAMPLES, generate)
    add = result.add_argument
    add("prompts_csv", metavar="PROMPTS_CSV", type=Path, help="CSV with prompts, and if it has them names and labels")
    add("output", metavar="OUTPUT_DIR", type=local_folder, help="folder for the result alone, created if needed")
    add("--model", metavar="MODEL", help="preset, see below; folder of a diffusers pipeline; or its name on the Hub")
    in_python = "a Python function that takes prompts and seeds and returns images; --model then is its name"
    add("--callable", dest="function", metavar="MODULE:FUNCTION", help=in_python)
    add("--revision", metavar="SHA", help="commit, branch or tag of a model on the Hub (default: main)")
    add("--lora", metavar="LORA", help="folder, file or name on the Hub of a LoRA (default: that of the preset)")
    add("--size", type=positive, metavar="PIXELS", help="width and height (default: that of the preset, else 512)")
    add("--steps", type=positive, metavar="N", help="denoising steps (default: of the preset, else of the pipeline)")
    guidance = "scale of classifier-free guidance (default: of the preset, else of the pipeline)"
    add("--guidance", type=finite, metavar="X", help=guidance)
    instruction = "the text that Sana puts before each prompt; CheXGenBench used the default"
    add("--complex-human-instruction", choices=INSTRUCTIONS, help=instruction)
    add("--images-per-prompt", type=positive, metavar="N", help="images of each prompt")
    add("--seed", type=int, metavar="N", help="seed of the run")
    naming = "name images by this column, or by the number of the line (default: file name, else id, else line)"
    add("--name-by", metavar="COLUMN|line", help=naming)
    add("--batch-size", type=positive, metavar="N", help="images at once; halved when memory runs out")
    dtypes = "auto: bf16 on a GPU that has it, fp16 on others, fp32 without a GPU"
    add("--dtype", choices=["auto", *DTYPES], help=dtypes)
    add("--engine", choices=ENGINES, help="generate in this process, or in workers of Ray")
    of_ray = "processes that generate, with --engine ray; each uses a GPU if there are any"
    add("--workers", type=positive, metavar="N", help=of_ray)
    add("--limit", type=positive, metavar="N", help="generate at most N more images (default: all)")
    add("--overwrite", action="store_true", help="replace finished images of another model or other options")
    return result


if __name__ == "__main__":
    start(main)
