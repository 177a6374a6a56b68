"""Publishes a converted folder: one commit, or pull request, that makes a dataset repository on the Hub right."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from _checksum import sealed
from _croissant import CROISSANT, at_url, read_files
from _figures import FIGURES
from _parquet_card import CARD, DATA_FILES, files_beside, for_repo, read_header
from _steps import StepError, one_line
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

import synthchex_75k

MAIN = "main"
SCRIPT_BRANCH = "script"  # where `datasets` 3 kept the state before it removed a script
OLD_DATA = re.compile(r"data/train-[^/]*\.parquet")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
# Of all that the HTTP client raises: requests' until huggingface_hub 1, then httpx's.
CLIENT_ERROR: type[Exception] = [kind for kind in HfHubHTTPError.__mro__ if kind.__module__ != "builtins"][-1]
TRANSIENT = {408, 429, 500, 502, 503, 504}
CONFLICT = {409, 412}
TRIES = 5

Result = TypeVar("Result")


class PublishError(StepError):
    """What stands in the way of publishing; the message says what is wrong, where, and what to do."""


class OutcomeUnknownError(Exception):
    """A request that changes something got no answer: it may have been done."""


class Target(NamedTuple):
    """Where to publish.

    Args:
        repo_id: `USER/NAME` of the dataset repository.
        create_pr: Open a pull request instead of a commit.
        private: Make the repository private if it is not there yet.
        revision: The branch, made if it is not there yet; or the ref of a pull request, `refs/pr/N`.
        commit_message: Default: one that says how many files there are.
    """

    repo_id: str
    create_pr: bool = False
    private: bool = False
    revision: str = MAIN
    commit_message: str | None = None


class Change(NamedTuple):
    """A commit to be made.

    Args:
        parent: The commit that it builds on; nothing where there is no repository yet.
        starts_branch: The branch is not there yet.
        additions: Contents, in memory or as files, by path in the repository.
        sums: SHA-256 and git's hash of each of them, or only the first.
        deletions: Paths in the repository.
        unchanged: Paths that are there as they should be.
        kept_fields: Fields of the card's header that somebody has added.
        keeps_script: Before it, the branch `SCRIPT_BRANCH` is made of the parent.
    """

    parent: str | None
    starts_branch: bool
    additions: dict[str, Path | bytes]
    sums: dict[str, set[str]]
    deletions: list[str]
    unchanged: list[str]
    kept_fields: list[str]
    keeps_script: bool


def check(target: Target) -> None:
    """Checks before the long work what can be checked: the token, the namespace, the repository.

    Raises:
        PublishError: It will not do.
    """
    if not get_token():
        raise PublishError("no token: run `hf auth login`, or set HF_TOKEN to one that may write")
    account = _ask(target, HfApi().whoami)
    role = (account.get("auth", {}).get("accessToken") or {}).get("role")
    if role == "read":
        raise PublishError("the token only reads: make one that may write at https://huggingface.co/settings/tokens")
    namespace = target.repo_id.split("/")[0]
    mine = [account["name"], *(org["name"] for org in account.get("orgs", []))]
    info = _info(target, None)
    if namespace not in mine and not (info and (target.create_pr or target.revision.startswith("refs/pr/"))):
        advice = "; for a pull request to somebody's repository, pass --create-pr" if info else ""
        raise PublishError(f"{target.repo_id}: you may write to {', '.join(mine)}; name one of these{advice}")
    if info and target.private and not info.private:
        raise PublishError(f"{target.repo_id} is there and public; change that in its settings, or omit --private")
    if target.revision.startswith("refs/") and not _info(target, target.revision):
        raise PublishError(f"{target.repo_id} has no {target.revision}")


def publish(folder: Path, target: Target, dry_run: bool = False) -> None:
    """Publishes a folder that is complete and checked.

    Args:
        folder: The folder.
        target: Where to.
        dry_run: Only print what would be done.

    Raises:
        PublishError: It cannot be done, or not now. Nothing is half done: a repository has either the whole commit or
            nothing of it, and what was transferred is not transferred again.
    """
    change = plan_change(folder, target)
    print(describe(change, target), flush=True)
    if dry_run:
        return
    if not change.additions and not change.deletions:
        print(f"nothing to do: {_page(target)}")
        return
    with _leaving_at_once():
        url = commit(change, target)
    print(f'published: {url}\nload:      datasets.load_dataset("{target.repo_id}"{_revision_argument(target, url)})')


# What to change


def plan_change(folder: Path, target: Target) -> Change:
    """Compares the folder with the repository.

    Raises:
        PublishError: The Hub does not answer, or what is there cannot be read.
    """
    info = _info(target, target.revision) or _info(target, None)
    there = _list_files(target, info.sha) if info else {}
    published = _read(target, CARD, info.sha) if CARD in there else ""
    contents, kept_fields = _contents(folder, target, published)
    sums = {path: _hashes(content) for path, content in contents.items()}
    sums |= {f"data/{file.name}": {file.sha256} for file in read_files((folder / CROISSANT).read_text("utf-8"))}
    unchanged = [path for path in contents if path in there and _sum(there[path]) in sums[path]]
    stale = [path for path in there if path not in contents and (OLD_DATA.fullmatch(path) or path in FIGURES)]
    script = f"{target.repo_id.split('/')[1]}.py"
    replaced = [script, *_archives(target, info.sha, there, script)] if script in there else []
    refs = _refs(target) if info else set()
    return Change(
        parent=info.sha if info else None,
        starts_branch=bool(info) and not target.revision.startswith("refs/") and target.revision not in refs,
        additions={path: content for path, content in contents.items() if path not in unchanged},
        sums=sums,
        deletions=sorted({*stale, *replaced}),
        unchanged=unchanged,
        kept_fields=kept_fields,
        keeps_script=bool(replaced) and not target.create_pr and target.revision == MAIN and SCRIPT_BRANCH not in refs,
    )


def describe(change: Change, target: Target) -> str:
    """Says what a commit does, a line for each file."""
    how = "pull request to" if target.create_pr else "commit to"
    new = "" if change.parent else f" (new, {'private' if target.private else 'public'})"
    branch = f", branch {target.revision}" + (" (new)" if change.starts_branch else "")
    lines = [f"{how} {target.repo_id}{new}{'' if target.create_pr else branch}: {_message(change, target)}"]
    if change.keeps_script:
        lines.append(f"  before it: branch `{SCRIPT_BRANCH}` keeps the state with the script, {change.parent}")
    lines += (f"  upload     {path}, {_size(content):,} bytes" for path, content in change.additions.items())
    lines += (f"  delete     {path}" for path in change.deletions)
    lines += (f"  unchanged  {path}" for path in change.unchanged)
    if change.kept_fields:
        lines.append(f"  of the card's header are kept: {', '.join(change.kept_fields)}")
    return "\n".join(lines)


def _contents(folder: Path, target: Target, published: str) -> tuple[dict[str, Path | bytes], list[str]]:
    """Returns what the repository should hold, and the fields of its card that others have added."""
    card = (folder / CARD).read_text(encoding="utf-8")
    beside = {name: (folder / name).read_bytes() for name in files_beside(card)}
    beside[CROISSANT] = at_url(beside[CROISSANT].decode(), _page(target)).encode()
    try:
        text = for_repo(card, target.repo_id, published, beside)
        kept_fields = sorted(read_header(published).keys() - read_header(card).keys())
    except ValueError as error:
        raise PublishError(f"{target.repo_id}: {CARD}: {error}; mend it there, then run this again") from error
    data = {path.relative_to(folder).as_posix(): path for path in sorted(folder.glob(DATA_FILES))}
    return {CARD: sealed(text.encode()), **beside, **data}, kept_fields


def _archives(target: Target, revision: str, there: dict[str, RepoFile], script: str) -> list[str]:
    """Returns the archives that the script of a repository reads.

    A script like ours reads those that make the repository a SOURCE; any other one names them.
    """
    archives = [path for path in there if path.endswith(ARCHIVES)]
    try:
        rows = synthchex_75k.plan(f"hf://datasets/{target.repo_id}@{revision}", on_mismatch="skip")
        return [path for path in archives if any(row.path.endswith(f"/{path}") for row in rows)]
    except synthchex_75k.SourceError:
        text = _read(target, script, revision)
        return [path for path in archives if path.rpartition("/")[2] in text]


def _hashes(content: Path | bytes) -> set[str]:
    """Returns the hashes by which the Hub knows a content: SHA-256, and git's of what is small."""
    if isinstance(content, Path):
        return set()  # a Parquet file, whose SHA-256 is in croissant.json
    return {hashlib.sha256(content).hexdigest(), hashlib.sha1(b"blob %d\0%s" % (len(content), content)).hexdigest()}


def _sum(file: RepoFile) -> str:
    return file.lfs.sha256 if file.lfs else file.blob_id


def _size(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


# Changing it


def commit(change: Change, target: Target) -> str:
    """Makes the commit, and what it needs.

    Returns:
        The address of the commit or the pull request.

    Raises:
        PublishError: It cannot be made.
    """
    api = HfApi()
    repo: dict[str, Any] = {"repo_id": target.repo_id, "repo_type": "dataset"}
    parent, branches = change.parent, {}
    if parent is None:
        _ask(target, lambda: api.create_repo(**repo, private=target.private or None, exist_ok=True))
        parent = _info(target, None).sha
        change = change._replace(starts_branch=target.revision not in _refs(target))
    if change.keeps_script:
        branches[SCRIPT_BRANCH] = parent
    if change.starts_branch:
        branches[target.revision] = parent
    for branch, start in branches.items():
        _ask(target, lambda: api.create_branch(**repo, branch=branch, revision=start, exist_ok=True))  # noqa: B023
    operations: list[Any] = [CommitOperationDelete(path, is_folder=False) for path in change.deletions]
    operations += (CommitOperationAdd(path, content) for path, content in change.additions.items())
    additions = [operation for operation in operations if isinstance(operation, CommitOperationAdd)]
    options = {**repo, "revision": target.revision, "create_pr": target.create_pr}
    _ask(target, lambda: api.preupload_lfs_files(additions=additions, free_memory=False, **options))
    refs = _refs(target)
    for _ in range(TRIES):
        try:
            made = _ask(
                target,
                lambda: api.create_commit(
                    operations=operations,
                    commit_message=_message(change, target),
                    commit_description=_description(change, target),
                    parent_commit=parent,
                    **options,
                ),
                repeatable=False,
            )
            return made.pr_url or made.commit_url
        except OutcomeUnknownError:
            if url := _made(change, target, refs):
                return url
    raise PublishError(f"{target.repo_id}: the Hub did not take the commit in {TRIES} tries; run this again later")


def _made(change: Change, target: Target, refs: set[str]) -> str | None:
    """Returns the address of a commit whose answer was lost, if it was made."""
    for ref in _refs(target) - refs if target.create_pr else {target.revision}:
        there = _list_files(target, ref)
        added = all(path in there and _sum(there[path]) in change.sums[path] for path in change.additions)
        if added and not there.keys() & {*change.deletions}:
            number = ref.removeprefix("refs/pr/")
            return f"{_page(target)}/" + (f"discussions/{number}" if target.create_pr else f"tree/{ref}")
    return None


def _message(change: Change, target: Target) -> str:
    count = sum(path.startswith("data/") for path in change.sums)
    return target.commit_message or f"Publish as Parquet: {count} {'file' if count == 1 else 'files'}"


def _description(change: Change, target: Target) -> str:
    if not any(path.endswith(".py") for path in change.deletions) or change.keeps_script:
        return ""
    return f"The loading script is removed. To keep the state with it, make a branch of {change.parent} first."


# The Hub


def _info(target: Target, revision: str | None) -> Any:
    """Returns what the Hub says of the repository, nothing if it, or the revision, is not there."""
    missing = (RepositoryNotFoundError, RevisionNotFoundError)
    try:
        return _ask(target, lambda: HfApi().dataset_info(target.repo_id, revision=revision), expected=missing)
    except missing:
        return None


def _list_files(target: Target, revision: str) -> dict[str, RepoFile]:
    tree = {"repo_type": "dataset", "revision": revision, "recursive": True}
    listed = _ask(target, lambda: [*HfApi().list_repo_tree(target.repo_id, **tree)])  # type: ignore[arg-type]
    return {entry.path: entry for entry in listed if isinstance(entry, RepoFile)}


def _read(target: Target, path: str, revision: str) -> str:
    got = _ask(target, lambda: HfApi().hf_hub_download(target.repo_id, path, repo_type="dataset", revision=revision))
    return Path(got).read_text(encoding="utf-8", errors="replace")


def _refs(target: Target) -> set[str]:
    """Returns the branches by their names, and the refs of pull requests."""
    refs = _ask(target, lambda: HfApi().list_repo_refs(target.repo_id, repo_type="dataset", include_pull_requests=True))
    return {ref.name for ref in refs.branches} | {ref.ref for ref in refs.pull_requests or []}


def _page(target: Target) -> str:
    return f"{HfApi().endpoint}/datasets/{target.repo_id}"


def _revision_argument(target: Target, url: str) -> str:
    number = re.search(r"/discussions/(\d+)$", url)
    revision = f"refs/pr/{number[1]}" if number else target.revision
    return "" if revision == MAIN else f', revision="{revision}"'


def _ask(
    target: Target,
    request: Callable[[], Result],
    repeatable: bool = True,
    expected: tuple[type[Exception], ...] = (),
) -> Result:
    """Makes a request, and again where it failed for a while: after what `Retry-After` says, else 1, 2, 4, … seconds.

    Raises:
        PublishError: It failed for good.
        OutcomeUnknownError: It is not `repeatable`, and it may have been done.
        Exception: One that is `expected`.
    """
    for number in range(TRIES):
        try:
            return request()
        except expected:
            raise
        except (CLIENT_ERROR, RuntimeError, ValueError) as error:
            cause = _client_error(error) or error
            response = getattr(cause, "response", None)
            status = response.status_code if response is not None else None
            # Without a status the connection failed; a ValueError is of what was sent.
            passes = not isinstance(cause, ValueError) if status is None else status in TRANSIENT
            if not passes or number == TRIES - 1:
                said = _say(error) if cause is error else f"{_say(error)} {_say(cause)}"
                raise PublishError(f"{target.repo_id}: {said}{_advice(status, passes)}") from error
            said = response.headers.get("Retry-After", "") if response is not None else ""
            wait = int(said) if said.isdigit() else 2**number
            print(f"{_say(cause)}; again in {wait} s", file=sys.stderr)
            time.sleep(wait)
            if not repeatable and status not in (429, 503):  # which say that nothing was done
                raise OutcomeUnknownError from error
    raise AssertionError("the last try returns or raises")


def _client_error(error: BaseException | None) -> BaseException | None:
    """Returns the error of the HTTP client that an error came from."""
    while error and not isinstance(error, CLIENT_ERROR):
        error = error.__cause__ or error.__context__
    return error


def _say(error: BaseException) -> str:
    return one_line(error) or type(error).__name__


def _advice(status: int | None, passes: bool) -> str:
    advice = {
        401: "the token is not valid: run `hf auth login`, or set HF_TOKEN",
        403: "the token may not do this: it must be one that may write to this repository",
        **dict.fromkeys(CONFLICT, "the repository has changed meanwhile: run this again, it looks at the new state"),
    }.get(status or 0, "run this again later: what is transferred is kept" if passes else "")
    return f" — {advice}" if advice else ""


@contextmanager
def _leaving_at_once() -> Iterator[None]:
    """Ends the process at Ctrl-C: there is nothing to tidy, and `huggingface_hub` would first finish its files."""

    def leave(number: int, _: object) -> None:
        print(
            "\ninterrupted. Run the same command again: it looks at what is there and transfers only what is missing.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
