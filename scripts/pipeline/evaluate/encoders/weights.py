"""Files of checkpoints: configuration, and tensors without code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.checkpoint import Checkpoint
from pipeline.errors import StepError, describe_error, listing
from pipeline.imports import import_optional

VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model")
TOKENIZER_FILES = (
    *VOCABULARIES,
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt"),
)


class UnfitError(Exception):
    """Why a checkpoint cannot be used; the message goes on after its name."""


def read_json(path: Path, what_is_wrong: str) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        path: The file.
        what_is_wrong: Begin of the message if there is none.

    Raises:
        StepError: There is none.
    """
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise StepError(f"{what_is_wrong}: it has no {path.name}") from None
    except (OSError, ValueError) as error:
        raise StepError(f"{what_is_wrong}: {describe_error(error)}") from None
    if not isinstance(content, dict):
        raise StepError(f"{what_is_wrong}: {path.name} holds no object")
    return content


def read_tensors(path: Path) -> dict[str, Any]:
    """Reads the tensors of a file; code in it, as a pickle may have, is an error and is not executed."""
    if path.suffix == ".safetensors":
        return dict(import_optional("safetensors.torch").load_file(path))
    return dict(import_optional("torch").load(path, map_location="cpu", weights_only=True))


def fetch_weights(checkpoint: Checkpoint, safe: Sequence[str], pickled: Sequence[str], *others: str) -> Path:
    """Returns the folder of a checkpoint with its weights, safetensors or, where there are none, pickles.

    Args:
        checkpoint: A folder, or a name on the Hub.
        safe: Patterns of names of safetensors, the usual one first.
        pickled: The same of pickles.
        *others: Patterns of other files to download.

    Raises:
        UnfitError: There are neither.
        StepError: They cannot be downloaded.
    """
    for patterns in (safe, pickled):
        folder = checkpoint.fetch(*others, *patterns)
        if any(path for pattern in patterns for path in folder.glob(pattern)):
            return folder
    raise UnfitError(f"has no {safe[0]} and no {pickled[0]}")


def check_tokenizer(folder: Path) -> None:
    """Checks that a folder has a vocabulary: without one, transformers makes a tokenizer that knows no word.

    Raises:
        UnfitError: It has none.
    """
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise UnfitError(f"has no tokenizer: no {' or '.join(VOCABULARIES)}")


def first_file(folder: Path, *names: str) -> Path:
    """Returns the first of some files that a folder has.

    Raises:
        UnfitError: It has none.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UnfitError(f"has no {' or '.join(names)}")


def missing_in(loading_info: dict[str, Any]) -> set[str]:
    """Returns the names of weights that a checkpoint lacks or has in another shape, as `transformers` found them."""
    return {*loading_info["missing_keys"], *(key for key, *_ in loading_info["mismatched_keys"])}


def check_complete(missing: set[str]) -> None:
    """Checks that no weights are missing.

    Raises:
        UnfitError: Some are; the message names them.
    """
    if missing:
        raise UnfitError(f"lacks weights, which would be random: {listing(sorted(missing), 3)}")


def below(prefix: str, tensors: dict[str, Any]) -> dict[str, Any]:
    """Returns the tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def count_layers(tensors: dict[str, Any], prefix: str) -> int:
    """Returns how many numbers follow a prefix in the names of tensors."""
    return len({name.split(".")[0] for name in below(prefix, tensors)})
