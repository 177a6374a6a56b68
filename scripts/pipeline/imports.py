"""Packages that are optional, functions that are named as MODULE:FUNCTION, and models, whose own code stays out."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import MissingPackageError, StepError, TerminatedError, describe_error, one_line

# What to install where `pip install` wants another text than the module's name.
INSTALL = {
    **dict.fromkeys(["torch", "transformers"], "torch 'transformers>=5.4'"),
    **dict.fromkeys(["accelerate", "diffusers", "peft"], "torch diffusers 'transformers>=5' accelerate peft"),
    "gradio": "'gradio>=6.31'",
    "sklearn": "scikit-learn",
    "timm": "torch torchvision timm accelerate",
    "torch_fidelity": "torch-fidelity torchvision",
    # On Python 3.10 and 3.11; its newer versions cannot be installed.
    "radiomics": "numpy setuptools wheel versioneer && pip install --no-build-isolation pyradiomics==3.0.1",
}


def check_installed(*packages: str, needed_by: str = "this model") -> None:
    """Checks that optional packages are installed, without importing them.

    Args:
        packages: Names of their modules.
        needed_by: What needs them, for the message.

    Raises:
        MissingPackageError: One is not.
    """
    for package in packages:
        if not importlib.util.find_spec(package):
            raise MissingPackageError(_missing(package, needed_by))


def find_module(name: str, option: str = "--callable") -> Path | None:
    """Returns the file of a function's module, without importing it; None where it has none.

    Args:
        name: `MODULE:FUNCTION`; the module is looked for in the working directory too.
        option: That of the command line that named it, for messages.

    Raises:
        StepError: There is no such module, or the name is no such text.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        raise StepError(f"{option} {name}: name a function as MODULE:FUNCTION")
    _add_working_directory()
    try:
        found = importlib.util.find_spec(module)  # which imports the packages that a module is in
    except ModuleNotFoundError:
        found = None
    except Exception as error:  # any package may raise anything
        raise StepError(f"{option} {name}: {describe_error(error)}") from error
    if not found:
        raise StepError(f"{option} {name}: no module {module} in this folder or installed")
    return Path(found.origin) if found.origin and Path(found.origin).is_file() else None


def import_optional(package: str) -> Any:
    """Imports an optional package.

    Raises:
        MissingPackageError: It is not installed, or one that it needs is not.
        StepError: It cannot be imported.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingPackageError(f"{_missing(package)} ({one_line(error)})") from error
    except Exception as error:  # any package may raise anything, as one that is made for another torch
        raise StepError(f"the Python module {package} cannot be imported: {describe_error(error)}") from error


def import_function(name: str, option: str = "--callable") -> Callable[..., Any]:
    """Imports a function.

    Args:
        name: `MODULE:FUNCTION`; the module is looked for in the working directory too.
        option: That of the command line that named it, for messages.

    Returns:
        The function; if it ends the program, as `sys.exit` does, it raises a StepError instead.

    Raises:
        StepError: It cannot be imported, or is no function.
    """
    module, _, attribute = name.partition(":")
    _add_working_directory()
    try:
        with _no_exit(f"{option} {name}"):
            function: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except StepError:
        raise
    except Exception as error:  # any module may raise anything
        raise StepError(f"{option} {name}: {describe_error(error)}; name a function as MODULE:FUNCTION") from error
    if not callable(function):
        raise StepError(f"{option} {name}: not a function; name one as MODULE:FUNCTION")

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        with _no_exit(f"{option} {name}"):
            return function(*arguments)

    return call


@contextlib.contextmanager
def loading(model: str, instead: str = "") -> Iterator[None]:
    """Turns what a library raises while it loads a model into a StepError, and executes no code of its repository.

    Where a model needs such code, `transformers` asks on the standard input whether to execute it. With
    `trust_remote_code=False` it does not ask, but it and `diffusers` do not hand that to all parts of a model. So the
    standard input is empty meanwhile: no answer is a no. The question is printed all the same.

    Args:
        model: What is loaded, for messages: `--model NAME`.
        instead: What to do about a model that needs code. Default: nothing is advised.

    Raises:
        StepError: It cannot be loaded.
    """
    usual, sys.stdin = sys.stdin, io.StringIO()
    try:
        yield
    except StepError:
        raise
    except Exception as error:  # any model may raise anything
        reason = describe_error(error)
        if isinstance(error, ValueError) and "trust_remote_code" in str(error):  # which is the advice of the libraries
            reason = "it needs code of its repository, which is not executed" + (f"; {instead}" if instead else "")
        raise StepError(f"{model} cannot be loaded: {reason}") from error
    finally:
        sys.stdin = usual


@contextlib.contextmanager
def _no_exit(what: str) -> Iterator[None]:
    """Turns SystemExit into a StepError: with its exit code, a run would look finished."""
    try:
        yield
    except TerminatedError:
        raise
    except SystemExit as error:
        raise StepError(f"{what} ended the program ({describe_error(error, with_place=True)})") from error


def _missing(package: str, needed_by: str = "this model") -> str:
    return f"{needed_by} needs the Python module {package}: pip install {INSTALL.get(package, package)}"


def _add_working_directory() -> None:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
