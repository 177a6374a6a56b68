"""Text-to-image models behind one interface: a pipeline of diffusers, or a function."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import inspect
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import PIL.Image

from pipeline.errors import StepError, describe_error
from pipeline.files import sha256_of
from pipeline.generate.checkpoint import Checkpoint
from pipeline.generate.presets import COLLECTION, PRESETS, Part, Preset
from pipeline.hub import NOT_FOUND, HubError
from pipeline.imports import check_installed, import_function, import_optional
from pipeline.progress import notice

DEFAULT_SIZE = 512  # pixels, where no preset has another
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
INSTRUCTIONS = ("default", "none")
# These overflow in fp16; diffusers' documentation of the pipeline keeps them in bfloat16.
KEPT_IN_BF16 = {"SanaPipeline": ("text_encoder", "vae")}
# Of any pipeline that has such an argument: native sizes, not a rounded size that is scaled afterwards; and prompts as
# they are, for the cleaning of captions depends on the packages that are installed.
ALWAYS = {"use_resolution_binning": False, "clean_caption": False}


class OutOfMemoryError(Exception):
    """The model had too little memory for a batch."""


class Model(Protocol):
    """A text-to-image model."""

    device: str  # its name, for provenance
    dtype: str

    def generate(self, prompts: list[str], seeds: list[int]) -> list[PIL.Image.Image | str]:
        """Generates an image for each prompt; a text in its place tells why there is none.

        Raises:
            OutOfMemoryError: The batch is too large.
            Exception: Whatever the model raises.
        """


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
            check_installed(self.function.partition(":")[0])
        elif not self.model:
            raise StepError("name a model with --model, or a function with --callable")
        else:
            for package in ["torch", "transformers", "diffusers", *(["peft"] if self._lora else [])]:
                check_installed(package)

    def resolve(self) -> PipelineTask | FunctionTask:
        """Finds out what the model is: weights are pinned, and defaults become values.

        Raises:
            StepError: It does not exist, or an option is not one of this pipeline.
        """
        if self.function:
            found = importlib.util.find_spec(self.function.partition(":")[0])
            module = found.origin if found else None
            sha256 = sha256_of(Path(module)) if module and Path(module).is_file() else None
            return FunctionTask(self.model or self.function, self.function, sha256)
        preset = PRESETS.get(self.model or "", Preset("", 0, 0, DEFAULT_SIZE, 0, self.model or ""))
        checkpoint = Checkpoint(preset.checkpoint, self.revision) if preset.checkpoint else None
        if not checkpoint and self.revision:
            raise StepError(f"--revision: {self.model} consists of parts of several repositories")
        with _advice_for_presets(self.model or ""):
            checkpoint = checkpoint and checkpoint.pin()
            lora = self._lora and self._lora._replace(checkpoint=self._lora.checkpoint.pin())
            parts = {name: _pin_part(part) for name, part in preset.parts.items()}
        pipeline = _class_of(checkpoint) if checkpoint else preset.pipeline
        call = self._call(pipeline, preset)
        return PipelineTask(self.model or "", pipeline, checkpoint, lora, parts, preset.load, call, self.dtype)

    @property
    def _lora(self) -> Lora | None:
        preset = PRESETS.get(self.model or "")
        if self.lora:
            path = Path(self.lora)
            folder, file = (str(path.parent), path.name) if path.is_file() else (self.lora, "")
            return Lora(Checkpoint(folder if not file else self.lora), file)
        return Lora(Checkpoint(preset.lora[0]), preset.lora[1]) if preset and preset.lora else None

    def _call(self, pipeline: str, preset: Preset) -> dict[str, Any]:
        """Returns the arguments of a call, prompts and generators apart."""
        parameters = parameters_of(pipeline)
        if not {"prompt", "generator", "output_type"} <= {*parameters}:
            raise StepError(f"{pipeline} is no text-to-image pipeline; use --callable")
        size = self.size or preset.size
        wanted: dict[str, Any] = {"height": size, "width": size, **ALWAYS, **preset.call}
        wanted |= {"max_sequence_length": preset.max_tokens} if preset.max_tokens else {}
        wanted |= {"num_inference_steps": preset.steps, "guidance_scale": preset.guidance} if preset.steps else {}
        wanted = {name: value for name, value in wanted.items() if name in parameters}
        given = {"num_inference_steps": self.steps, "guidance_scale": self.guidance}
        if self.complex_human_instruction == "none":
            given["complex_human_instruction"] = False
        for name, value in given.items():
            if value is not None and name not in parameters:
                raise StepError(f"{pipeline} has no {name.replace('_', ' ')}; leave out the option")
            wanted |= {} if value is None else {name: value}
        for name in ("num_inference_steps", "guidance_scale", "max_sequence_length"):
            if name in parameters:
                wanted.setdefault(name, parameters[name].default)
        return wanted


class Lora(NamedTuple):
    """A LoRA: its checkpoint, and its file there, or "" for the only one."""

    checkpoint: Checkpoint
    file: str


class PipelineTask(NamedTuple):
    """A pipeline of diffusers, with everything that decides what it draws.

    Attributes:
        name: As the user gave it.
        pipeline: Its class.
        checkpoint: Its weights, pinned; None for a pipeline by parts.
        lora: A LoRA to add, or None.
        parts: The components of a pipeline by parts.
        options: More arguments of loading.
        call: Arguments of each call.
        dtype: `auto` or a key of `DTYPES`.
    """

    name: str
    pipeline: str
    checkpoint: Checkpoint | None
    lora: Lora | None
    parts: dict[str, Part]
    options: dict[str, Any]
    call: dict[str, Any]
    dtype: str

    def describe(self) -> dict[str, Any]:
        """Returns what decides the images, as provenance has it."""
        weights = self.checkpoint.describe() if self.checkpoint else {"name": self.name}
        about: dict[str, Any] = {"model": weights.pop("name"), **weights}
        if self.parts:
            about["parts"] = {name: _describe_part(part) for name, part in self.parts.items()}
        if self.lora:
            lora = self.lora.checkpoint.describe()
            about["lora"] = lora if self.lora.file in ("", lora["name"]) else {**lora, "file": self.lora.file}
        call = dict(self.call)
        about |= {"pipeline": self.pipeline, "steps": call.pop("num_inference_steps", None)}
        about |= {"guidance": call.pop("guidance_scale", None), "size": [call.pop("width"), call.pop("height")]}
        if "complex_human_instruction" in parameters_of(self.pipeline):
            about["complex_human_instruction"] = call.pop("complex_human_instruction", "default") or "none"
        return {**about, "dtype": self.dtype, "call": call}

    def load(self) -> Model:
        """Loads the pipeline.

        Raises:
            StepError: It cannot be loaded.
        """
        return DiffusersModel(self)


class FunctionTask(NamedTuple):
    """A function that generates: the model's name, `MODULE:FUNCTION`, and the SHA-256 of the module's file."""

    name: str
    function: str
    module_sha256: str | None

    def describe(self) -> dict[str, Any]:
        """Returns what decides the images, as provenance has it."""
        return {"model": self.name, "callable": self.function, "module_sha256": self.module_sha256}

    def load(self) -> Model:
        """Imports the function.

        Raises:
            StepError: It cannot be imported.
        """
        return FunctionModel(self.function)


class FunctionModel:
    """A function `(prompts, seeds) -> images`, of lists of texts, integers and PIL images."""

    dtype = ""

    def __init__(self, name: str) -> None:
        self._function, self._name = import_function(name), name
        self.device = _describe_device("cuda")

    def generate(self, prompts: list[str], seeds: list[int]) -> list[PIL.Image.Image | str]:
        """See `Model`."""
        with _memory_errors():
            images: list[PIL.Image.Image | str] = [*self._function(prompts, seeds)]
        if len(images) != len(prompts):
            raise StepError(f"--callable {self._name} returned {len(images)} images for {len(prompts)} prompts")
        return images


class DiffusersModel:
    """A pipeline of diffusers in this process, on a GPU if there is one.

    Each image has a random generator of its own, on the CPU, so that it depends neither on the other images of its
    batch nor on the kind of GPU. Without a GPU each image is drawn alone: a batch would be no faster, and its size
    would change the last bit of some pixels, as it does on a GPU.

    Args:
        task: Which pipeline, and how it is asked.

    Raises:
        StepError: It cannot be loaded.
    """

    def __init__(self, task: PipelineTask) -> None:
        torch = self._torch = import_optional("torch")
        has_mps = torch.backends.mps.is_available()
        device = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
        self.dtype = task.dtype if task.dtype != "auto" else _best_dtype(torch, device)
        self.device = _describe_device(device)
        self._call, self._draws_each_alone = task.call, device == "cpu"
        try:
            with notice(f"loading {task.name} …"):
                self._pipeline = _load_pipeline(task, getattr(torch, DTYPES[self.dtype]))
            if self.dtype == "fp16":
                for part in KEPT_IN_BF16.get(task.pipeline, ()):
                    getattr(self._pipeline, part).to(torch.bfloat16)
            self._pipeline.to(device)
        except StepError:
            raise
        except Exception as error:  # any model may raise anything
            raise StepError(f"--model {task.name} cannot be loaded: {describe_error(error)}") from error
        self._pipeline.set_progress_bar_config(disable=True)

    def generate(self, prompts: list[str], seeds: list[int]) -> list[PIL.Image.Image | str]:
        """See `Model`."""
        if self._draws_each_alone and len(prompts) > 1:
            return [image for one in zip(prompts, seeds) for image in self.generate([one[0]], [one[1]])]
        np = import_optional("numpy")
        generators = [self._torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        with _memory_errors(), warnings.catch_warnings():
            # Some pipelines turn a lack of memory into a warning, and fail later for another reason.
            warnings.filterwarnings("error", message="(?s).*VAE tiling")
            result = self._pipeline(prompt=prompts, generator=generators, output_type="np", **self._call)
        flagged = getattr(result, "nsfw_content_detected", None) or [False] * len(prompts)
        images: list[PIL.Image.Image | str] = []
        for pixels, is_flagged in zip(result.images, flagged, strict=True):
            if is_flagged:
                images.append("the pipeline's safety checker made it black")
            elif not np.isfinite(pixels).all():
                images.append(f"it has NaN pixels, in {self.dtype}; try --dtype bf16 or fp32")
            else:
                images.append(PIL.Image.fromarray((pixels * 255).round().astype("uint8")))
        return images


def parameters_of(pipeline: str) -> dict[str, inspect.Parameter]:
    """Returns the parameters of a call of a pipeline, by name.

    Raises:
        StepError: diffusers has no such pipeline.
    """
    found = getattr(import_optional("diffusers"), pipeline, None)
    if found is None:
        raise StepError(f"diffusers has no {pipeline}; update it, or use --callable")
    return dict(inspect.signature(found.__call__).parameters)


def model_files(checkpoint: Checkpoint, *patterns: str) -> Path:
    """Returns a folder with files of a checkpoint; those of the Hub are downloaded.

    Args:
        checkpoint: The checkpoint, pinned.
        *patterns: Of the files' paths.

    Raises:
        StepError: They cannot be downloaded.
    """
    if checkpoint.is_local:
        return Path(checkpoint.name)
    import huggingface_hub

    try:
        found = huggingface_hub.snapshot_download(
            checkpoint.name, revision=checkpoint.revision, allow_patterns=[*patterns]
        )
    except Exception as error:  # each version has errors of its own
        raise StepError(f"{checkpoint.name} cannot be downloaded: {describe_error(error)}") from error
    return Path(found)


def _class_of(checkpoint: Checkpoint) -> str:
    index = model_files(checkpoint, "model_index.json") / "model_index.json"
    try:
        return str(json.loads(index.read_bytes())["_class_name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StepError(f"--model {checkpoint.name} is no pipeline of diffusers: {describe_error(error)}") from None


def _load_pipeline(task: PipelineTask, dtype: Any) -> Any:
    diffusers = import_optional("diffusers")
    for library in (diffusers, import_optional("transformers")):
        library.utils.logging.disable_progress_bar()
    if task.checkpoint:
        options = {"revision": task.checkpoint.revision, "dtype": dtype, **task.options}
        pipeline = diffusers.DiffusionPipeline.from_pretrained(task.checkpoint.name, **options)
    else:
        parts = {name: _load_part(part, dtype) for name, part in task.parts.items()}
        no_checker = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        pipeline = getattr(diffusers, task.pipeline)(**parts, **no_checker)
    if task.lora:
        name, revision, _ = task.lora.checkpoint
        name = str(Path(name).parent) if Path(name).is_file() else name
        options = {"weight_name": task.lora.file} if task.lora.file else {}
        pipeline.load_lora_weights(name, revision=revision, use_safetensors=True, **options)
    return pipeline


def _load_part(part: Part, dtype: Any) -> Any:
    kind = getattr(import_optional(part.library), part.class_name)
    if not part.checkpoint:
        return kind(**part.options)
    options = {**part.options, **({"subfolder": part.subfolder} if part.subfolder else {})}
    if "okenizer" not in part.class_name:
        options["dtype"] = dtype
    return kind.from_pretrained(part.checkpoint, **options)


def _pin_part(part: Part) -> Part:
    if not part.checkpoint:
        return part
    checkpoint = Checkpoint(part.checkpoint).pin()
    options = {**part.options, "revision": checkpoint.revision}
    return dataclasses.replace(part, checkpoint=checkpoint.name, options=options)


def _describe_part(part: Part) -> dict[str, Any]:
    about = {"class": part.class_name, **part.options}
    return {"model": part.checkpoint, **about} if part.checkpoint else about


@contextlib.contextmanager
def _advice_for_presets(model: str) -> Iterator[None]:
    """Adds to an error of the Hub where the names of the benchmark's models are."""
    try:
        yield
    except HubError as error:
        if model not in PRESETS or not isinstance(error.__cause__, NOT_FOUND):
            raise
        raise StepError(f"{error}; look the name up in {COLLECTION} and pass it as --model") from error


@contextlib.contextmanager
def _memory_errors() -> Iterator[None]:
    """Turns an error for lack of memory, however wrapped, into an OutOfMemoryError."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause:
            # By name, since torch is optional: torch.OutOfMemoryError.
            if isinstance(cause, MemoryError) or type(cause).__name__ == "OutOfMemoryError":
                raise OutOfMemoryError(describe_error(cause)) from error
            cause = cause.__cause__ or cause.__context__
        raise


def _best_dtype(torch: Any, device: str) -> str:
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "fp32"


def _describe_device(device: str) -> str:
    """Returns the name of the GPU, if torch is loaded and has one, or of the processor."""
    import platform
    import sys

    torch = sys.modules.get("torch")
    if device == "cuda" and torch and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"{device if device == 'mps' else 'CPU'} {platform.machine()}"
