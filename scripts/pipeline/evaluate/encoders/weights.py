"""Weights: pinned files, tensors that are read without running code, and why some weights cannot be used."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.checkpoint import Checkpoint
from pipeline.errors import StepError, describe_error, listing
from pipeline.imports import import_optional


class UnfitError(Exception):
    """Why a checkpoint cannot be used; the message goes on after its name."""


def pin_weights_file(model: str | None, revision: str | None, download: Callable[[], Path]) -> Checkpoint:
    """Pins weights that are one file.

    Args:
        model: The file. Default: what `download` returns.
        revision: None: a file has no revision.
        download: Returns the file in the cache of the package that the encoder is from, downloaded if need be.

    Raises:
        StepError: There is no such file, or it cannot be downloaded.
    """
    if revision:
        raise StepError("--revision is for models on the Hub; these weights are a file")
    if model is None:
        try:
            model = str(download())
        except StepError:
            raise
        except Exception as error:  # each package downloads in a way of its own
            reason = describe_error(error)
            raise StepError(f"the weights cannot be downloaded: {reason}; name a file with --model") from error
    if not Path(model).is_file():
        raise StepError(f"--model {model}: no such file; these weights are one file")
    return Checkpoint(model).pin()


def check_unchanged(checkpoint: Checkpoint) -> None:
    """Checks that a folder or file is still what was pinned.

    Raises:
        StepError: It is not.
    """
    if checkpoint.sha256 and checkpoint._replace(sha256=None).pin() != checkpoint:
        raise StepError(f"{checkpoint.name} has changed since this run began, or differs on this machine")


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


def first_file(folder: Path, *names: str) -> Path:
    """Returns the first of some files that a folder has.

    Raises:
        UnfitError: It has none.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UnfitError(f"has no {' or '.join(names)}")


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
    """Reads the tensors of a file by name, in a way that runs no code of the file.

    Raises:
        pickle.UnpicklingError: It is a pickle that has more than tensors.
        UnfitError: Its tensors have no names.
        Exception: Whatever torch raises for a damaged file.
    """
    if path.suffix == ".safetensors":
        return dict(import_optional("safetensors.torch").load_file(path))
    found = import_optional("torch").load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, dict):
        raise UnfitError(f"holds one {type(found).__name__}, not tensors by name")
    return found


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


def why_unusable(error: Exception) -> str:
    """Returns why weights cannot be used, in words that go on after their name.

    Args:
        error: What was raised while they were loaded; the libraries advise to execute code that comes with weights.
    """
    if isinstance(error, UnfitError):
        return str(error)
    reason = describe_error(error)
    if isinstance(error, pickle.UnpicklingError):
        found = re.search(r"GLOBAL (\S+)", str(error))  # the class or function that torch did not call
        reason = "a file of weights has something other than tensors, which may be code, and is not read"
        reason += f": {found[1]}" if found else ""
    elif "trust_remote_code" in str(error):
        reason = "it needs code of its repository, which is not executed; write a function, --encoder MODULE:FUNCTION"
    return f"cannot be loaded: {reason}"
