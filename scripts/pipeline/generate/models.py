"""Text-to-image models behind one interface: a pipeline of diffusers, or a function."""

from __future__ import annotations

import contextlib
import inspect
import json
import traceback
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import PIL.Image

from pipeline.checkpoint import Checkpoint
from pipeline.errors import StepError, describe_error, listing
from pipeline.generate.presets import Part
from pipeline.imports import import_function, import_optional, loading
from pipeline.machine import device_name, memory_errors
from pipeline.progress import notice

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
# These overflow in fp16; diffusers' documentation of the pipeline keeps them in bfloat16.
KEPT_IN_BF16 = {"SanaPipeline": ("text_encoder", "vae")}

INSTEAD_OF_CODE = "write a function, --callable MODULE:FUNCTION"


class Failure(NamedTuple):
    """Why there is no image."""

    reason: str


Drawn = PIL.Image.Image | Failure


class Model(Protocol):
    """A text-to-image model."""

    device: str  # its name, for provenance
    dtype: str

    def generate(self, prompts: list[str], seeds: list[int]) -> list[Drawn]:
        """Generates an image for each prompt.

        Raises:
            OutOfMemoryError: The batch is too large.
            StepError: No image will be generated.
            Exception: Whatever the model raises.
        """


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
            about["parts"] = {name: part.describe() for name, part in self.parts.items()}
        if self.lora:
            about["lora"] = self.lora.checkpoint.describe() | ({"file": self.lora.file} if self.lora.file else {})
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
        self.device = device_name("cuda")

    def generate(self, prompts: list[str], seeds: list[int]) -> list[Drawn]:
        """See `Model`."""
        with memory_errors():
            images: list[Drawn] = [*self._function([*prompts], [*seeds])]
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
        self.device = device_name(device)
        self._task, self._draws_each_alone = task, device == "cpu"
        with loading(f"--model {task.name}", INSTEAD_OF_CODE):
            with notice(f"loading {task.name} …"):
                self._pipeline = _load_pipeline(task, getattr(torch, DTYPES[self.dtype]))
            if self.dtype == "fp16":
                for part in KEPT_IN_BF16.get(task.pipeline, ()):
                    getattr(self._pipeline, part).to(torch.bfloat16)
            self._pipeline.to(device)
        self._pipeline.set_progress_bar_config(disable=True)

    def generate(self, prompts: list[str], seeds: list[int]) -> list[Drawn]:
        """See `Model`."""
        if self._draws_each_alone and len(prompts) > 1:
            return [image for one in zip(prompts, seeds) for image in self.generate([one[0]], [one[1]])]
        np = import_optional("numpy")
        generators = [self._torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        with memory_errors(), _input_errors(self._task.pipeline), warnings.catch_warnings():
            # Some pipelines turn a lack of memory into a warning, and fail later for another reason.
            warnings.filterwarnings("error", message="(?s).*VAE tiling")
            result = self._pipeline(prompt=prompts, generator=generators, output_type="np", **self._task.call)
        flagged = getattr(result, "nsfw_content_detected", None) or [False] * len(prompts)
        images: list[Drawn] = []
        for pixels, is_flagged in zip(result.images, flagged, strict=True):
            if is_flagged:
                images.append(Failure("the pipeline's safety checker made it black"))
            elif not np.isfinite(pixels).all():
                images.append(Failure(f"it has NaN pixels, in {self.dtype}; try --dtype bf16 or fp32"))
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


def class_of(checkpoint: Checkpoint) -> str:
    """Returns the class of a pipeline.

    Raises:
        StepError: The checkpoint is no pipeline, or cannot be downloaded.
    """
    return str(pipeline_index(checkpoint)["_class_name"])


def pipeline_index(checkpoint: Checkpoint) -> dict[str, Any]:
    """Returns the `model_index.json` of a pipeline: class names by component, and `_class_name`.

    Raises:
        StepError: The checkpoint is no pipeline, or cannot be downloaded.
    """
    path = checkpoint.fetch("model_index.json") / "model_index.json"
    try:
        index: dict[str, Any] = json.loads(path.read_bytes())
        index["_class_name"] += ""
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StepError(f"--model {checkpoint.name} is no pipeline of diffusers: {describe_error(error)}") from None
    return index


def _load_pipeline(task: PipelineTask, dtype: Any) -> Any:
    diffusers = import_optional("diffusers")
    for library in (diffusers, import_optional("transformers")):
        library.utils.logging.disable_progress_bar()
    if task.checkpoint:
        options = {"revision": task.checkpoint.revision, "dtype": dtype, "trust_remote_code": False, **task.options}
        pipeline = diffusers.DiffusionPipeline.from_pretrained(task.checkpoint.name, **options)
    else:
        parts = {name: _load_part(part, dtype) for name, part in task.parts.items()}
        no_checker = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        pipeline = getattr(diffusers, task.pipeline)(**parts, **no_checker)
    if task.lora:
        _add_lora(pipeline, task.lora)
    return pipeline


def _load_part(part: Part, dtype: Any) -> Any:
    kind = getattr(import_optional(part.library), part.class_name)
    if not part.checkpoint:
        return kind(**part.options)
    options = {**part.options, "revision": part.revision}
    options |= {"subfolder": part.subfolder} if part.subfolder else {}
    options |= {} if part.class_name.endswith("Tokenizer") else {"dtype": dtype}
    return kind.from_pretrained(part.checkpoint, **options)


def _add_lora(pipeline: Any, lora: Lora) -> None:
    path = lora.checkpoint.fetch("*.safetensors")
    files = [path] if path.is_file() else sorted(path.glob(lora.file or "*.safetensors"))
    if len(files) != 1:
        found = f"{len(files)} files ({listing([file.name for file in files])})" if files else "no file"
        raise StepError(f"--lora {lora.checkpoint.name} has {found} that may be the LoRA; name one .safetensors file")
    pipeline.load_lora_weights(str(files[0].parent), weight_name=files[0].name, use_safetensors=True)
    if not any(pipeline.get_list_adapters().values()):  # diffusers only logs that
        raise StepError(f"--lora {lora.checkpoint.name} has no weights for any part of {type(pipeline).__name__}")


@contextlib.contextmanager
def _input_errors(pipeline: str) -> Iterator[None]:
    """Turns what a pipeline's check of its arguments raises into an error that ends the run."""
    try:
        yield
    except ValueError as error:
        if any(frame.name == "check_inputs" for frame in traceback.extract_tb(error.__traceback__)):
            raise StepError(f"{pipeline}: {error}") from error
        raise


def _best_dtype(torch: Any, device: str) -> str:
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "fp32"
