"""Packages that are optional, and functions that the command line names as MODULE:FUNCTION."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from typing import Any

from pipeline.errors import StepError, describe_error, one_line

# What to install where `pip install` wants another text than the module's name.
INSTALL = {"torch": "torch 'transformers>=5'", "transformers": "torch 'transformers>=5'"}
INSTALL |= dict.fromkeys(["accelerate", "diffusers", "peft"], "torch diffusers 'transformers>=5' accelerate peft")
OPTIONAL = {*INSTALL, "openai"}


def check_installed(module: str) -> None:
    """Checks that a module can be found, in the working directory too, without importing it.

    Raises:
        StepError: It cannot.
    """
    _add_working_directory()
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        found = None
    if not found:
        raise StepError(_missing(module))


def import_optional(package: str) -> Any:
    """Imports an optional package.

    Raises:
        StepError: It cannot be imported.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise StepError(f"{_missing(package)} ({one_line(error)})") from error


def import_function(name: str) -> Callable[..., Any]:
    """Imports a function.

    Args:
        name: `MODULE:FUNCTION`; the module is looked for in the working directory too.

    Raises:
        StepError: It cannot be imported, or is no function.
    """
    module, _, attribute = name.partition(":")
    _add_working_directory()
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # any module may raise anything
        raise StepError(f"--callable {name}: {describe_error(error)}; name a function as MODULE:FUNCTION") from error
    if not callable(function):
        raise StepError(f"--callable {name}: not a function; name one as MODULE:FUNCTION")
    return function


def _missing(module: str) -> str:
    place = f": pip install {INSTALL.get(module, module)}" if module in OPTIONAL else " in this folder or installed"
    return f"this model needs the Python module {module}{place}"


def _add_working_directory() -> None:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
