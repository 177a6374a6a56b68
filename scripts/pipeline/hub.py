"""Requests to the Hugging Face Hub: retried after transient errors, with errors that name the cause and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import (
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    validate_repo_id,
)

from pipeline.errors import StepError, one_line
from pipeline.retry import TRANSIENT_STATUS, backoff, with_retry

# The common base of all that the HTTP client raises: requests' until huggingface_hub 1, then httpx's.
CLIENT_ERROR: type[Exception] = [kind for kind in HfHubHTTPError.__mro__ if kind.__module__ != "builtins"][-1]
NOT_FOUND = (RepositoryNotFoundError, RevisionNotFoundError)
CONFLICT = {409, 412}
MAX_TRIES = 5

Result = TypeVar("Result")


class HubError(StepError):
    """A request to the Hub failed for good; the message names the repository, the cause and the remedy."""


class UnknownOutcomeError(Exception):
    """A request that must not be repeated got no answer: it may or may not have taken effect."""


def check_repo_id(text: str) -> str:
    """Returns the name of a repository, `USER/NAME`.

    Raises:
        ValueError: It is no such name.
    """
    try:
        validate_repo_id(text)
    except HFValidationError as error:
        raise ValueError(str(error)) from None
    if text.count("/") != 1:
        raise ValueError(f"{text}: name the user or organization too, USER/NAME")
    return text


class DatasetRepo:
    """A dataset repository on the Hub.

    Args:
        repo_id: `USER/NAME`.
    """

    def __init__(self, repo_id: str) -> None:
        self.repo_id = repo_id
        self.api = HfApi()
        self.url = f"{self.api.endpoint}/datasets/{repo_id}"

    def info(self, revision: str | None = None) -> Any:
        """Returns the Hub's description of the repository; None where it, or the revision, does not exist."""
        try:
            return self.request(lambda: self.api.dataset_info(self.repo_id, revision=revision), expected=NOT_FOUND)
        except NOT_FOUND:
            return None

    def files(self, revision: str) -> dict[str, RepoFile]:
        """Returns the files of a revision by path."""
        tree: dict[str, Any] = {"repo_type": "dataset", "revision": revision, "recursive": True}
        listed = self.request(lambda: [*self.api.list_repo_tree(self.repo_id, **tree)])
        return {entry.path: entry for entry in listed if isinstance(entry, RepoFile)}

    def read_text(self, path: str, revision: str) -> str:
        """Returns the text of a file."""
        source: dict[str, Any] = {"repo_type": "dataset", "revision": revision}
        local = self.request(lambda: self.api.hf_hub_download(self.repo_id, path, **source))
        return Path(local).read_text(encoding="utf-8", errors="replace")

    def refs(self) -> set[str]:
        """Returns the names of the branches, and the refs of pull requests."""
        kind: dict[str, Any] = {"repo_type": "dataset", "include_pull_requests": True}
        refs = self.request(lambda: self.api.list_repo_refs(self.repo_id, **kind))
        return {ref.name for ref in refs.branches} | {ref.ref for ref in refs.pull_requests or []}

    def request(
        self,
        request: Callable[[], Result],
        repeatable: bool = True,
        expected: tuple[type[Exception], ...] = (),
    ) -> Result:
        """Makes a request, up to `MAX_TRIES` times where errors are transient.

        Args:
            request: What to call.
            repeatable: Whether a request that got no answer may be made again.
            expected: Errors to raise as they are.

        Returns:
            What the request returns.

        Raises:
            HubError: It failed for good.
            UnknownOutcomeError: It is not `repeatable`, and may have taken effect.
        """

        def delay_after(error: Exception, tries: int) -> float | None:
            if isinstance(error, expected) or tries == MAX_TRIES - 1 or not _is_transient(error):
                return None
            response = _response(error)
            status = response.status_code if response is not None else None
            if not repeatable and status not in (429, 503):  # with these the server has not acted
                raise UnknownOutcomeError from error
            return backoff(response.headers if response is not None else {}, tries)

        try:
            return with_retry(request, delay_after)
        except expected:
            raise
        except (CLIENT_ERROR, RuntimeError, ValueError) as error:
            raise HubError(f"{self.repo_id}: {_text(error)}{_advice(error)}") from error


def _client_error(error: BaseException) -> BaseException:
    """Returns the error of the HTTP client that an error came from, or the error itself."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, CLIENT_ERROR):
        cause = cause.__cause__ or cause.__context__
    return cause or error


def _response(error: BaseException) -> Any:
    return getattr(_client_error(error), "response", None)


def _is_transient(error: Exception) -> bool:
    if not isinstance(error, (CLIENT_ERROR, RuntimeError, ValueError)):
        return False
    response = _response(error)
    if response is not None:
        return response.status_code in TRANSIENT_STATUS
    return not isinstance(_client_error(error), ValueError)  # a failed connection; a ValueError is about the request


def _text(error: BaseException) -> str:
    texts = [one_line(one) or type(one).__name__ for one in dict.fromkeys([error, _client_error(error)])]
    return " ".join(texts)


def _advice(error: Exception) -> str:
    response = _response(error)
    advice = {
        401: "the token is not valid: run `hf auth login`, or set HF_TOKEN",
        403: "the token may not do this: it needs write access to this repository",
        **dict.fromkeys(CONFLICT, "the repository has changed meanwhile: run the command again"),
    }
    retry_later = "run the command again later: uploaded files are kept" if _is_transient(error) else ""
    text = advice.get(response.status_code, retry_later) if response is not None else retry_later
    return f" — {text}" if text else ""
