"""Image-text-to-text models of `transformers` that write reports: prompts, training batches, greedy decoding, LoRA."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import PIL.Image

from pipeline.checkpoint import Checkpoint
from pipeline.errors import StepError, describe_error
from pipeline.evaluate.encoders.weights import read_json
from pipeline.imports import import_optional, loading
from pipeline.machine import memory_errors

INSTRUCTION = "Describe the findings of this chest radiograph."
IGNORED = -100  # label of a token that has no part in the loss
LANGUAGE_MODEL, ALL_LINEAR = "language-model", "all-linear"
CONFIG = "config.json"


class LoraOptions(NamedTuple):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685).

    Attributes:
        rank: Of the matrices.
        alpha: Their product counts alpha / rank.
        dropout: Share of their inputs that is dropped in training.
        target_modules: `LANGUAGE_MODEL` or `ALL_LINEAR`, or ends of names of modules.
    """

    rank: int = 64
    alpha: int = 128
    dropout: float = 0.05
    target_modules: tuple[str, ...] = (LANGUAGE_MODEL,)


def check_report_model(checkpoint: Checkpoint) -> None:
    """Checks that a checkpoint is a model of `transformers`, without loading it, and without its packages.

    Raises:
        StepError: It has no configuration, or that cannot be read.
    """
    read_json(checkpoint.fetch(CONFIG) / CONFIG, f"{checkpoint.name} is no model of transformers")


def compute_type() -> str:
    """Returns the name of the type that a model computes in on this machine."""
    torch = import_optional("torch")
    return "bfloat16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float32"


class ReportModel:
    """A model with its processor, on a GPU if there is one; there in bfloat16 if the GPU can, else in float32.

    Args:
        checkpoint: The model, pinned.
        instruction: What the model is asked about each image.
        max_tokens: Upper bound of a report's length: tokens.

    Attributes:
        model: The model of `transformers`; with adapters, that of `peft`.
        dtype: Name of the type that it computes in.

    Raises:
        StepError: A package is missing, or the model cannot be loaded or is of another kind.
    """

    def __init__(self, checkpoint: Checkpoint, instruction: str, max_tokens: int) -> None:
        torch, transformers = import_optional("torch"), import_optional("transformers")
        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()
        self._torch: Any = torch
        self._transformers: Any = transformers
        self._instruction, self._max_tokens, self._name = instruction, max_tokens, checkpoint.name
        self.dtype = compute_type()
        on_gpu = torch.cuda.is_available()
        self.device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
        options: dict[str, Any] = {"trust_remote_code": False}
        options |= {} if checkpoint.is_local else {"revision": checkpoint.revision}
        with loading(f"--model {checkpoint.name}"):
            self._processor: Any = transformers.AutoProcessor.from_pretrained(checkpoint.name, **options)
            self.model = transformers.AutoModelForImageTextToText.from_pretrained(
                checkpoint.name, dtype=getattr(torch, self.dtype), **options
            )
        config = self.model.config
        if config.is_encoder_decoder or getattr(config.get_text_config(), "is_encoder_decoder", False):
            raise StepError(
                f"--model {checkpoint.name}: a decoder of its own writes the text; name a decoder-only model"
            )
        tokenizer: Any = getattr(self._processor, "tokenizer", None)
        if tokenizer is None or tokenizer.eos_token_id is None:
            raise StepError(f"--model {checkpoint.name} has no tokenizer with an end of text")
        self._tokenizer = tokenizer
        self._tokenizer.padding_side = "left"  # where batches are generated from
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._prompt = self._make_prompt()
        # Not the model's own, which may have penalties.
        self.model.generation_config = transformers.GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_tokens,
            eos_token_id=self._ends_of_text(),
            pad_token_id=self._tokenizer.pad_token_id,
        )
        self.model.to(self.device)

    def add_adapters(self, lora: LoraOptions, seed: int) -> None:
        """Adds adapters to train; their first weights depend on the seed.

        Raises:
            StepError: `peft` is missing, or the model has no such modules.
        """
        peft = import_optional("peft")
        self._transformers.set_seed(seed)
        options = {"r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout, "bias": "none"}
        try:
            config = peft.LoraConfig(target_modules=self._targets(lora.target_modules), **options)
            self.model = peft.get_peft_model(self.model, config)
        except (ValueError, TypeError) as error:
            raise StepError(f"--target-modules {','.join(lora.target_modules)}: {describe_error(error)}") from error

    def load_adapters(self, folder: Path) -> None:
        """Loads trained adapters.

        Args:
            folder: Where `model.save_pretrained` wrote them.
        """
        peft = import_optional("peft")
        self.model = peft.PeftModel.from_pretrained(self.model, str(folder)).to(self.device)

    def too_long(self, reports: Sequence[str]) -> int:
        """Returns how many reports are longer than the bound, so that a model is trained on their beginnings."""
        return sum(len(tokens) > self._max_tokens for tokens in self._tokens(reports))

    def training_batch(self, images: Sequence[PIL.Image.Image], reports: Sequence[str]) -> dict[str, Any]:
        """Returns images and reports as the model takes them, with labels: of the reports' tokens alone.

        A row is the prompt, the report, the end of the text, and padding. A report beyond the bound has no end.

        Args:
            images: In 8-bit RGB.
            reports: Of each image.
        """
        torch, end = self._torch, self._tokenizer.eos_token_id
        batch = self._encode(images)
        mask = batch["attention_mask"].bool()
        answers = [
            [*tokens[: self._max_tokens], *([end] if len(tokens) <= self._max_tokens else [])]
            for tokens in self._tokens(reports)
        ]
        per_token = [name for name, value in batch.items() if value.shape == mask.shape]
        lengths = [int(row.sum()) + len(answer) for row, answer in zip(mask, answers)]
        longest = max(lengths)

        def joined(prompts: Any, parts: Sequence[Any], padding: int) -> Any:
            rows = []
            for prompt, keep, part, length in zip(prompts, mask, parts, lengths):
                rest = torch.full((longest - length,), padding, dtype=prompt.dtype)
                rows.append(torch.cat([prompt[keep], torch.as_tensor(part, dtype=prompt.dtype), rest]))
            return torch.stack(rows)

        ignored = torch.full(mask.shape, IGNORED, dtype=torch.long)
        result = {"labels": joined(ignored, answers, IGNORED)}
        for name, value in batch.items():
            if name not in per_token:
                result[name] = value
            elif name == "input_ids":
                result[name] = joined(value, answers, self._tokenizer.pad_token_id)
            else:  # the mask; or the kind of each token, which is 0 for text
                one = 1 if name == "attention_mask" else 0
                result[name] = joined(value, [[one] * len(answer) for answer in answers], 0)
        return result

    def write(self, images: Sequence[PIL.Image.Image]) -> list[str]:
        """Writes a report for each image, always with the most probable token.

        Args:
            images: In 8-bit RGB.

        Raises:
            OutOfMemoryError: There is too little memory for the batch.
        """
        self.model.eval()
        batch = self._encode(images)
        dtype = getattr(self._torch, self.dtype)
        batch = {
            name: value.to(self.device, dtype if value.is_floating_point() else value.dtype)
            for name, value in batch.items()
        }
        with memory_errors(), self._torch.inference_mode():
            tokens = self.model.generate(**batch)
        written = tokens[:, batch["input_ids"].shape[1] :]
        texts = self._tokenizer.batch_decode(written, skip_special_tokens=True)
        return [text.replace("\0", "\N{REPLACEMENT CHARACTER}").strip() for text in texts]  # NUL fits in no CSV

    def _encode(self, images: Sequence[PIL.Image.Image]) -> dict[str, Any]:
        """Returns images with the prompt as the processor returns them, padded on the left."""
        options = {"add_special_tokens": False} if self._has_special_tokens else {}
        nested = [[image] for image in images]  # for processors that allow several images a prompt
        found = self._processor(
            images=nested, text=[self._prompt] * len(images), padding=True, return_tensors="pt", **options
        )
        return {name: value for name, value in found.items() if hasattr(value, "shape")}

    def _make_prompt(self) -> str:
        """Returns the prompt with the chat template of the model, or without one, the image and the instruction."""
        content = [{"type": "image"}, {"type": "text", "text": self._instruction}]
        if getattr(self._processor, "chat_template", None):
            chat = [{"role": "user", "content": content}]
            try:
                prompt = str(self._processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))
            except Exception as error:  # any template may raise anything
                raise StepError(f"--model {self._name}: its chat template fails: {describe_error(error)}") from error
        else:
            token = getattr(self._processor, "image_token", None)
            prompt = f"{token}\n{self._instruction}\n" if isinstance(token, str) else f"{self._instruction}\n"
        bos = self._tokenizer.bos_token
        self._has_special_tokens = bool(bos) and prompt.startswith(bos)
        return prompt

    def _ends_of_text(self) -> list[int]:
        """Returns the tokens that end a text: that of the tokenizer, and those that the model was made with."""
        own = getattr(self.model.generation_config, "eos_token_id", None)
        others = own if isinstance(own, list) else [own]
        return [*dict.fromkeys([self._tokenizer.eos_token_id, *(token for token in others if token is not None)])]

    def _tokens(self, reports: Sequence[str]) -> list[list[int]]:
        found = self._tokenizer([report.strip() for report in reports], add_special_tokens=False)
        return [list(tokens) for tokens in found["input_ids"]]

    def _targets(self, names: tuple[str, ...]) -> str | list[str]:
        """Returns the modules that get adapters, as `peft` wants them."""
        if names == (ALL_LINEAR,):
            return ALL_LINEAR
        if names != (LANGUAGE_MODEL,):
            return [*names]
        places = {id(module): name for name, module in self.model.named_modules()}
        prefix = places.get(id(self.model.get_decoder()), "")
        head = self.model.get_output_embeddings()
        inside = [
            name
            for name, module in self.model.named_modules()
            if isinstance(module, self._torch.nn.Linear) and module is not head and name.startswith(f"{prefix}.")
        ]
        if not prefix or not inside:
            raise StepError(
                f"--model {self._name}: its language model was not found; pass --target-modules {ALL_LINEAR}"
            )
        return inside
