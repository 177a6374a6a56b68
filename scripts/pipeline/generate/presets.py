"""The ten diffusers models of CheXGenBench (arXiv 2505.10496), as data.

Steps, guidance and sizes are those of the benchmark's generation script; its eleventh model, LLM-CXR, has code of its
own. The names of the checkpoints are those of the authors' collection on the Hub; those marked below follow the
pattern of the others and were not seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

COLLECTION = "https://huggingface.co/collections/raman07/chexgenbench-models-6823ec3c57b8ecbcc296e3d2"
CHECKPOINTS = "raman07/CheXGenBench-Models-"


@dataclass(frozen=True)
class Part:
    """A component of a pipeline that has a checkpoint of its own.

    Attributes:
        library: `diffusers` or `transformers`.
        class_name: Its class.
        checkpoint: Folder, or name on the Hub; None: made from `options` alone.
        subfolder: Of the checkpoint.
        options: More for `from_pretrained`, or for the class.
        revision: Commit on the Hub, once it is pinned.
        sha256: Of a folder, once it is pinned.
    """

    library: str
    class_name: str
    checkpoint: str | None
    subfolder: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    revision: str | None = None
    sha256: str | None = None

    def describe(self) -> dict[str, Any]:
        """Returns what decides what it computes, as provenance has it."""
        weights = {"model": self.checkpoint, "revision": self.revision, "weights_sha256": self.sha256}
        known = {name: value for name, value in weights.items() if value}
        return {**known, "class": self.class_name, **self.options}


@dataclass(frozen=True)
class Preset:
    """A model, and how it is asked.

    Attributes:
        pipeline: Class of `diffusers`.
        steps: Denoising steps.
        guidance: Scale of classifier-free guidance.
        size: Width and height: pixels.
        max_tokens: Upper bound of a prompt's length: tokens of the longest text encoder.
        checkpoint: Name on the Hub; "" for a pipeline by parts.
        lora: Name on the Hub and file of a LoRA, or None.
        call: More arguments of a call.
        load: More arguments of loading.
        parts: The components of a pipeline by parts.
    """

    pipeline: str
    steps: int
    guidance: float
    size: int
    max_tokens: int
    checkpoint: str = ""
    lora: tuple[str, str] | None = None
    call: dict[str, Any] = field(default_factory=dict)
    load: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=dict)


def _stable_diffusion(name: str) -> Preset:
    # The benchmark loads them without a safety checker: it takes radiographs for something else.
    load = {"safety_checker": None, "requires_safety_checker": False}
    return Preset("StableDiffusionPipeline", 50, 7.5, 512, 77, f"{CHECKPOINTS}{name}", load=load)


# RadEdit's model card puts the pipeline together from three repositories. Its text encoder is a BERT; loaded as one, it
# needs no code from the Hub.
BIOVIL = "microsoft/BiomedVLP-BioViL-T"
RADEDIT = {
    "unet": Part("diffusers", "UNet2DConditionModel", "microsoft/radedit", "unet"),
    "vae": Part("diffusers", "AutoencoderKL", "stabilityai/sdxl-vae"),
    "text_encoder": Part("transformers", "BertModel", BIOVIL, options={"add_pooling_layer": False}),
    "tokenizer": Part("transformers", "BertTokenizer", BIOVIL, options={"model_max_length": 128}),
    "scheduler": Part(
        "diffusers",
        "DDIMScheduler",
        None,
        options={
            "beta_schedule": "linear",
            "clip_sample": False,
            "prediction_type": "epsilon",
            "timestep_spacing": "trailing",
            "steps_offset": 1,
        },
    ),
}
PRESETS = {
    "sana": Preset("SanaPipeline", 20, 4.5, 512, 300, f"{CHECKPOINTS}Sana-e20"),
    "pixart-sigma": Preset("PixArtSigmaPipeline", 20, 4.5, 512, 300, f"{CHECKPOINTS}Pixart-Sigma"),
    "sd-v1-4": _stable_diffusion("SDV-1-4"),  # not seen
    "sd-v1-5": _stable_diffusion("SDV-1-5"),  # not seen
    "sd-v2": _stable_diffusion("SDV-2"),  # not seen
    "sd-v2-1": _stable_diffusion("SDV-2-1"),
    "sd-v3-5": Preset(
        pipeline="StableDiffusion3Pipeline",
        steps=40,
        guidance=4.5,
        size=1024,
        max_tokens=512,
        checkpoint="stabilityai/stable-diffusion-3.5-medium",
        lora=(f"{CHECKPOINTS}SDV3-5", "sd3-5_medium_lora.safetensors"),
    ),
    "radedit": Preset("StableDiffusionPipeline", 100, 7.5, 512, 128, parts=RADEDIT),
    "lumina-2": Preset(
        pipeline="Lumina2Pipeline",
        steps=50,
        guidance=4.0,
        size=1024,
        max_tokens=256,
        checkpoint="Alpha-VLLM/Lumina-Image-2.0",
        lora=(f"{CHECKPOINTS}Lumina2", "lumina2_lora.safetensors"),
        call={"cfg_trunc_ratio": 0.25, "cfg_normalization": True},
    ),
    # The benchmark's code has no loader for it: steps and guidance are the pipeline's own.
    "flux-1-dev": Preset(
        pipeline="FluxPipeline",
        steps=28,
        guidance=3.5,
        size=1024,
        max_tokens=512,
        checkpoint="black-forest-labs/FLUX.1-dev",
        lora=(f"{CHECKPOINTS}SDV-Flux", ""),
    ),
}
