"""Small JSON files in the folder of a SOURCE, such as `provenance.json`: read with a bound, and checked."""

from __future__ import annotations

import json
import math
import os
import re
from typing import Any

import fsspec

from pipeline.errors import StepError, one_line
from synthchex_75k import Row, SourceError, file_info

MAX_JSON_BYTES = 1 << 20
MAX_DEPTH = 32  # of lists and objects in one another
SURROGATE = re.compile(r"[\ud800-\udfff]")  # an escape can write one; UTF-8 cannot hold it


def pin_commit(source: str, rows: list[Row]) -> str:
    """Returns the address of a SOURCE with the commit at which its rows were planned; other addresses as they are.

    Args:
        source: The SOURCE.
        rows: Its plan.
    """
    commit = re.match(r"hf://.*?@([0-9a-f]{40})/", rows[0].path) if rows else None
    if not commit or not source.startswith("hf://"):
        return source
    filesystem, root = fsspec.core.url_to_fs(source)
    at = filesystem.resolve_path(root)
    return f"hf://{at.repo_type}s/{at.repo_id}@{commit[1]}/{at.path_in_repo}".rstrip("/")


def filesystem_of(address: str) -> tuple[Any, str]:
    """Returns fsspec's file system of an address, and the path in it. Proxy variables are used."""
    proxies = {"client_kwargs": {"trust_env": True}} if address.startswith("http") else {}
    filesystem, path = fsspec.core.url_to_fs(address, **proxies)
    return filesystem, path


def address_in(source: str, name: str) -> str:
    """Returns the address of a file at the top of a SOURCE."""
    return f"{source.rstrip('/')}/{name}"


def read_source_file(source: str, name: str) -> bytes | None:
    """Reads a small file at the top of a SOURCE.

    Args:
        source: The SOURCE, local or remote.
        name: Name of the file.

    Returns:
        Its content; None where it does not exist, and for a SOURCE that is one archive.

    Raises:
        SourceError: It is no regular file, or has more than `MAX_JSON_BYTES`.
        StepError: A remote source failed.
        OSError: It cannot be read.
    """
    if re.search(r"\.(zip|tar)$", source, re.IGNORECASE) and not os.path.isdir(source):
        return None
    address = address_in(source, name)
    if "://" not in address:
        return _read(address) if os.path.lexists(address) else None
    try:
        return _read(address)
    except SourceError:
        raise
    except Exception as error:  # each network client has error classes of its own
        cause = error.__cause__ or error
        if isinstance(error, FileNotFoundError) and _is_missing(address, cause):
            return None
        raise StepError(f"{address} cannot be read: {type(cause).__name__}: {one_line(cause)}") from error


def _is_missing(address: str, cause: BaseException) -> bool:
    """True where a server answered that a file does not exist; fsspec's client for HTTP says so of any failure."""
    is_http = address.startswith("http")
    return not is_http or isinstance(cause, FileNotFoundError) or getattr(cause, "status", None) in (404, 410)


def _read(address: str) -> bytes:
    info = file_info(address)
    if info["type"] != "file":
        raise SourceError(f"{address}: not a regular file; remove it")
    filesystem, path = filesystem_of(address)
    with filesystem.open(path, "rb", block_size=0) as file:  # 0: one request
        content: bytes = file.read(MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise SourceError(f"{address}: more than {MAX_JSON_BYTES:,} bytes; shorten it")
    return content


def parse_object(content: bytes, where: str) -> dict[str, Any]:
    """Reads a JSON object that can be written again: in UTF-8, without numbers or texts that JSON or UTF-8 lack.

    Args:
        content: The file.
        where: Its address, for messages.

    Raises:
        SourceError: It is something else.

    Example:
        >>> parse_object(b'{"a": [1]}', "x.json")
        {'a': [1]}
        >>> parse_object(b'{"a": 1, "a": 2}', "x.json")
        Traceback (most recent call last):
        synthchex_75k.SourceError: x.json: not JSON in UTF-8: the key 'a' is there twice
    """
    try:
        found = json.loads(
            content.decode("utf-8-sig"), object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite
        )
        if not isinstance(found, dict):
            raise ValueError("not an object in braces")
        _check(found, 0)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{where}: not JSON in UTF-8: {one_line(error)}") from None
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return found


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text:.20} is not a number that JSON can hold")
    return number


def _check(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"lists and objects nested deeper than {MAX_DEPTH}")
    if isinstance(value, str) and SURROGATE.search(value):
        raise ValueError(f"a text with a lone surrogate: {value[:40]!a}")
    if isinstance(value, dict):
        _check([*value], depth)
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check(inner, depth + 1)
