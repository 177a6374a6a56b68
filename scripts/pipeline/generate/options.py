"""Which model to ask, and how: the options of the command line, checked and made definite."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.checkpoint import Checkpoint
from pipeline.errors import StepError
from pipeline.files import sha256_of
from pipeline.generate.models import FunctionTask, Lora, PipelineTask, class_of, parameters_of
from pipeline.generate.presets import COLLECTION, PRESETS, Part, Preset
from pipeline.hub import NOT_FOUND, HubError
from pipeline.imports import check_installed, find_module

DEFAULT_SIZE = 512  # pixels, where no preset has another
INSTRUCTIONS = ("default", "none")
# Of any pipeline that has such an argument: native sizes, not a rounded size that is scaled afterwards; and prompts as
# they are, for the cleaning of captions depends on the packages that are installed.
ALWAYS = {"use_resolution_binning": False, "clean_caption": False}


class ModelOptions(NamedTuple):
    """Which model, and how it is asked; see `generate` for the fields."""

    model: str | None
    function: str | None
    revision: str | None
    lora: str | None
    size: int | None
    steps: int | None
    guidance: float | None
    dtype: str
    complex_human_instruction: str

    def check(self) -> None:
        """Checks the options together, and that the packages are installed, before anything long starts.

        Raises:
            StepError: They do not go together, or one is missing.
        """
        if self.function:
            of_pipelines = {name: value for name, value in self._asdict().items() if name not in ("model", "function")}
            given = [name for name, value in of_pipelines.items() if value not in (None, "auto", "default")]
            if given:
                names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
                raise StepError(f"{names}: a function of --callable decides that itself")
            find_module(self.function)
            return
        if not self.model:
            raise StepError("name a model with --model, or a function with --callable")
        if self._preset and self._preset.parts and self.revision:
            raise StepError(f"--revision: {self.model} consists of parts of several repositories")
        for package in ["torch", "transformers", "diffusers", *(["peft"] if self._lora else [])]:
            check_installed(package)

    def resolve(self) -> PipelineTask | FunctionTask:
        """Finds out what the model is: weights are pinned, and defaults become values.

        Raises:
            StepError: It does not exist, or an option is not one of this pipeline.
        """
        if self.function:
            module = find_module(self.function)
            return FunctionTask(self.model or self.function, self.function, sha256_of(module) if module else None)
        assert self.model
        preset, lora = self._preset, self._lora
        name = preset.checkpoint if preset else self.model
        with _advice_for_presets(self.model):
            checkpoint = Checkpoint(name, self.revision).pin() if name else None
            lora = lora and lora._replace(checkpoint=lora.checkpoint.pin())
            parts = {part: _pin_part(what) for part, what in preset.parts.items()} if preset else {}
        pipeline = class_of(checkpoint) if checkpoint else preset.pipeline if preset else ""
        load, call = preset.load if preset else {}, self._call(pipeline)
        return PipelineTask(self.model, pipeline, checkpoint, lora, parts, load, call, self.dtype)

    @property
    def _preset(self) -> Preset | None:
        return PRESETS.get(self.model or "")

    @property
    def _lora(self) -> Lora | None:
        if self.lora:
            return Lora(Checkpoint(self.lora), "")
        return (
            Lora(Checkpoint(self._preset.lora[0]), self._preset.lora[1]) if self._preset and self._preset.lora else None
        )

    def _call(self, pipeline: str) -> dict[str, Any]:
        """Returns the arguments of a call, prompts and generators apart."""
        parameters = parameters_of(pipeline)
        if not {"prompt", "generator", "output_type", "height", "width"} <= {*parameters}:
            raise StepError(f"{pipeline} is no text-to-image pipeline; use --callable")
        preset = self._preset
        size = self.size or (preset.size if preset else DEFAULT_SIZE)
        wanted: dict[str, Any] = {"height": size, "width": size, **ALWAYS}
        if preset:
            wanted |= {"num_inference_steps": preset.steps, "guidance_scale": preset.guidance}
            wanted |= {"max_sequence_length": preset.max_tokens, **preset.call}
        given: dict[str, Any] = {"num_inference_steps": self.steps, "guidance_scale": self.guidance}
        given["complex_human_instruction"] = False if self.complex_human_instruction == "none" else None
        given = {name: value for name, value in given.items() if value is not None}
        for name in given:
            if name not in parameters:
                raise StepError(f"{pipeline} has no {name.replace('_', ' ')}; leave out the option")
        call = {name: value for name, value in {**wanted, **given}.items() if name in parameters}
        for name in ("num_inference_steps", "guidance_scale", "max_sequence_length"):
            if name in parameters:
                call.setdefault(name, parameters[name].default)
        return call


def _pin_part(part: Part) -> Part:
    if not part.checkpoint:
        return part
    pinned = Checkpoint(part.checkpoint).pin()
    return dataclasses.replace(part, checkpoint=pinned.name, revision=pinned.revision, sha256=pinned.sha256)


@contextlib.contextmanager
def _advice_for_presets(model: str) -> Iterator[None]:
    """Adds to an error of the Hub where the names of the benchmark's models are."""
    if model in PRESETS and Path(model).is_dir():
        raise StepError(f"--model {model} is a preset and a folder; for the folder pass ./{model}, or rename it")
    try:
        yield
    except HubError as error:
        if model not in PRESETS or not isinstance(error.__cause__, NOT_FOUND):
            raise
        raise StepError(f"{error}; look the name up in {COLLECTION} and pass it as --model") from error
