"""The machine that a model runs on: its name, the versions of its packages, and errors for lack of memory."""

from __future__ import annotations

import contextlib
import platform
import sys
from collections.abc import Iterator
from importlib import metadata

from pipeline.errors import describe_error


class OutOfMemoryError(Exception):
    """A model had too little memory for a batch."""


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Turns an error for lack of memory, however wrapped, into an OutOfMemoryError."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause:
            # By name, since torch is optional: torch.OutOfMemoryError; for the processor it has no class of its own.
            is_torch = type(cause).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(cause)
            if isinstance(cause, MemoryError) or is_torch:
                raise OutOfMemoryError(describe_error(cause)) from error
            cause = cause.__cause__ or cause.__context__
        raise


def device_name(device: str) -> str:
    """Returns the name of the GPU, if torch is loaded and has one, or of the processor.

    Args:
        device: "cuda", "mps" or "cpu".
    """
    torch = sys.modules.get("torch")
    if device == "cuda" and torch and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"{device if device == 'mps' else 'CPU'} {platform.machine()}"


def versions_of(*packages: str) -> dict[str, str]:
    """Returns the versions of those packages that are installed.

    Example:
        >>> sorted(versions_of("pillow", "no-such-package"))
        ['pillow']
    """
    found = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
