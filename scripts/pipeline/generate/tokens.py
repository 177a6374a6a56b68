"""Prompts that a model's text encoders cut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.generate.models import INSTEAD_OF_CODE, PipelineTask, pipeline_index
from pipeline.generate.presets import Part
from pipeline.generate.prompts import Request
from pipeline.imports import import_optional, loading

BATCH = 1000  # prompts


def cut_prompts(task: PipelineTask, requests: list[Request]) -> dict[str, list[str]]:
    """Returns the prompts that are longer than the pipeline reads.

    CLIP's encoders read as many tokens as their tokenizer tells (77); others read `max_sequence_length`, if the
    pipeline has one. Of a pipeline with several encoders, the long prompts are cut for one and not for another.

    Args:
        task: The pipeline.
        requests: The images that are asked for.

    Returns:
        By tokenizer and its limit, a text for each prompt: the file name of the first image, and the number of tokens.
    """
    firsts: dict[str, str] = {}  # of each prompt, the file name of its first image
    for request in requests:
        firsts.setdefault(request.prompt, request.filename)
    prompts = [*firsts]
    found: dict[str, list[str]] = {}
    for name, tokenizer in _tokenizers(task):
        limit = _limit(task, tokenizer)
        lengths = (
            len(tokens)
            for start in range(0, len(prompts), BATCH)
            for tokens in tokenizer(prompts[start : start + BATCH], verbose=False)["input_ids"]
        )
        too_long = [f"{firsts[prompt]} ({tokens})" for prompt, tokens in zip(prompts, lengths) if tokens > limit]
        found |= {f"{name}, which reads {limit} tokens": too_long} if too_long else {}
    return found


def _tokenizers(task: PipelineTask) -> Iterator[tuple[str, Any]]:
    """Yields name and tokenizer of each text encoder."""
    transformers = import_optional("transformers")
    if task.checkpoint:
        index, folder = pipeline_index(task.checkpoint), task.checkpoint.fetch("tokenizer*/*")
        names = [name for name in sorted(index) if name.startswith("tokenizer") and index[name][1]]
        found = {name: Part("transformers", index[name][1], str(folder / name)) for name in names}
    else:
        found = {name: part for name, part in task.parts.items() if name.startswith("tokenizer")}
    for name, part in found.items():
        options = {**part.options, "revision": part.revision, "trust_remote_code": False}
        with loading(f"--model {task.name}: its {name}", INSTEAD_OF_CODE):
            tokenizer = getattr(transformers, part.class_name).from_pretrained(part.checkpoint, **options)
        yield name, tokenizer


def _limit(task: PipelineTask, tokenizer: Any) -> int:
    own = int(tokenizer.model_max_length)
    longest = task.call.get("max_sequence_length")
    return own if longest is None or type(tokenizer).__name__.startswith("CLIP") else min(own, longest)
