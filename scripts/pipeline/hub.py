"""Requests to the Hugging Face Hub: retried after transient errors, with errors that name the cause and the remedy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import (
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    build_hf_headers,
    get_session,
    hf_raise_for_status,
    validate_repo_id,
)

from pipeline.errors import StepError, one_line
from pipeline.retry import TRANSIENT_STATUS, backoff, with_retry

# The common base of all that the HTTP client raises: requests' until huggingface_hub 1, then httpx's.
CLIENT_ERROR: type[Exception] = [kind for kind in HfHubHTTPError.__mro__ if kind.__module__ != "builtins"][-1]
NOT_FOUND = (RepositoryNotFoundError, RevisionNotFoundError)
CONFLICT = {409, 412}
NOT_EXECUTED = {429, 503}  # the server refused to act
HANDLED = (CLIENT_ERROR, RuntimeError, ValueError)  # what huggingface_hub raises
MAX_TRIES = 5
FIRST_DELAY = 1  # seconds before the second try

Result = TypeVar("Result")


class HubError(StepError):
    """A request to the Hub failed for good; the message names the repository, the cause and the remedy."""


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
        endpoint: Address of the Hub. Default: HF_ENDPOINT, else https://huggingface.co.
    """

    def __init__(self, repo_id: str, endpoint: str | None = None) -> None:
        self.repo_id = repo_id
        self.api = HfApi(endpoint)
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

    def read(self, path: str, revision: str) -> bytes:
        """Returns the content of a file."""
        source: dict[str, Any] = {"repo_type": "dataset", "revision": revision}
        return Path(self.request(lambda: self.api.hf_hub_download(self.repo_id, path, **source))).read_bytes()

    def refs(self) -> set[str]:
        """Returns the names of the branches, and the refs of pull requests."""
        kind: dict[str, Any] = {"repo_type": "dataset", "include_pull_requests": True}
        refs = self.request(lambda: self.api.list_repo_refs(self.repo_id, **kind))
        return {ref.name for ref in refs.branches} | {ref.ref for ref in refs.pull_requests or []}

    def card_errors(self, card: str) -> list[str]:
        """Returns the Hub's objections to the header of a card."""

        def validate() -> Any:
            content = {"content": card, "repoType": "dataset"}
            address = f"{self.api.endpoint}/api/validate-yaml"
            response = get_session().post(address, json=content, headers=build_hf_headers())
            if response.status_code != 400:  # with which the Hub answers for an invalid header
                hf_raise_for_status(response)
            return response.json()

        return [error["message"] for error in self.request(validate).get("errors", [])]

    def request(
        self,
        request: Callable[[], Result],
        find_result: Callable[[], Result | None] | None = None,
        expected: tuple[type[Exception], ...] = (),
        kept: str = ": uploaded files are kept",
        access: str = "write access to this repository",
    ) -> Result:
        """Makes a request, up to `MAX_TRIES` times where errors are transient.

        Args:
            request: What to call.
            find_result: For a request that must not take effect twice: called before each repetition of a request that
                may have been executed; returns its result if it was executed, else None.
            expected: Errors to raise as they are.
            kept: What to add to the advice to run the command again.
            access: What the token needs, for the advice.

        Returns:
            What the request returns.

        Raises:
            HubError: It failed for good.
        """
        may_be_done = False

        def attempt() -> Result:
            found = find_result() if may_be_done and find_result else None
            return request() if found is None else found

        def delay_after(error: Exception, tries: int) -> float | None:
            nonlocal may_be_done
            status = _status(error)
            conflicts_with_itself = may_be_done and find_result is not None and status in CONFLICT
            if isinstance(error, expected) or tries == MAX_TRIES - 1:
                return None
            if not _is_transient(error) and not conflicts_with_itself:
                return None
            may_be_done = may_be_done or status not in NOT_EXECUTED
            return backoff(_headers(error), tries, FIRST_DELAY)

        try:
            return with_retry(attempt, delay_after, self._describe)
        except expected:
            raise
        except HANDLED as error:
            raise HubError(f"{self.repo_id}: {self._describe(error)}{_advice(error, kept, access)}") from error

    def _describe(self, error: BaseException) -> str:
        """Describes an error in one line."""
        cause = next((one for one in _causes(error) if isinstance(one, CLIENT_ERROR)), error)
        texts = [one_line(one) or type(one).__name__ for one in dict.fromkeys([error, cause])]
        return " ".join([f"no answer from {self.api.endpoint}:"] * _has_no_answer(error) + texts)


def model_commit(repo_id: str, revision: str | None) -> str:
    """Returns the commit that a revision of a model's repository is now.

    Args:
        repo_id: `USER/NAME`.
        revision: Commit, branch or tag. Default: the main branch.

    Raises:
        HubError: It does not exist, needs a login, or the Hub cannot be reached.
    """
    repo = DatasetRepo(repo_id)
    access = "access to this model: accept its license on its page"
    try:
        info: Any = repo.request(
            lambda: repo.api.model_info(repo_id, revision=revision), expected=NOT_FOUND, kept="", access=access
        )
    except NOT_FOUND as error:
        name = f"{repo_id}@{revision}" if revision else repo_id
        raise HubError(
            f"{name}: no such model or revision on the Hub, or it needs a login (`hf auth login`) and its license "
            f"accepted: {one_line(error)[:200]}"
        ) from error
    except OSError as error:  # of the client's offline mode
        advice = "without a network, name a folder, or the 40 digits of a commit as the revision"
        raise HubError(f"{repo_id}: {one_line(error)[:200]}; {advice}") from error
    return str(info.sha)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error, and the errors that it came from."""
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _response(error: BaseException) -> Any:
    responses = (getattr(cause, "response", None) for cause in _causes(error) if isinstance(cause, CLIENT_ERROR))
    return next((response for response in responses if response is not None), None)


def _status(error: BaseException) -> int | None:
    response = _response(error)
    return None if response is None else response.status_code


def _headers(error: BaseException) -> Mapping[str, str]:
    response = _response(error)
    return {} if response is None else response.headers


def _has_no_answer(error: BaseException) -> bool:
    """True where the connection failed; the client's errors for a wrong request are ValueErrors."""
    failed = (isinstance(cause, CLIENT_ERROR) and not isinstance(cause, ValueError) for cause in _causes(error))
    return _status(error) is None and any(failed)


def _is_transient(error: Exception) -> bool:
    status = _status(error)
    if status is not None:
        return status in TRANSIENT_STATUS
    is_of_upload = isinstance(error, RuntimeError)  # as the client's own upload library raises for any failure
    is_no_json = isinstance(error, json.JSONDecodeError)  # a proxy's page instead of the Hub's answer
    return is_of_upload or is_no_json or _has_no_answer(error)


def _advice(error: Exception, kept: str, access: str) -> str:
    advice = {
        401: "the token is not valid: run `hf auth login`, or set HF_TOKEN",
        403: f"the token may not do this: it needs {access}",
        **dict.fromkeys(CONFLICT, "the repository has changed meanwhile: run the command again"),
    }
    again = f"run the command again later{kept}"
    if _has_no_answer(error):
        again = f"check the network and HF_ENDPOINT, then {again.replace(' later', '')}"
    text = advice.get(_status(error) or 0, again if _is_transient(error) else "")
    return f" — {text}" if text else ""
