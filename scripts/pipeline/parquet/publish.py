"""Publishes a converted folder as a dataset repository on the Hub, in one commit or pull request."""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, get_token
from huggingface_hub.hf_api import RepoFile

import synthchex_75k
from pipeline.errors import StepError, counted, listing
from pipeline.facts import SourceFacts
from pipeline.folder import read_manifest
from pipeline.hub import DatasetRepo
from pipeline.parquet.card import MeasuredDataset, with_license, with_repo_id, write_card
from pipeline.parquet.card_merge import license_of, merge_cards, read_header
from pipeline.parquet.croissant import with_repository
from pipeline.parquet.layout import CARD, CROISSANT, FIGURES, PUBLISHED_DATA_FILES
from pipeline.parquet.pixels import Pixels

MAIN = "main"
SCRIPT_BRANCH = "script"  # as `datasets` 3 named the branch on which it kept the state with a script
NOTHING = MeasuredDataset(0, 0, [], "keep", Pixels((), (0, 0), (0, 0)))  # for a card to try the merge with
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")


class Target(NamedTuple):
    """Where and how to publish.

    Args:
        repo_id: `USER/NAME` of the dataset repository.
        create_pr: Open a pull request instead of a commit.
        private: Make a new repository private.
        revision: The branch, created where it does not exist; or the ref of a pull request, `refs/pr/N`.
        commit_message: Default: one with the number of files.
        replace_card: Keep nothing of the published card.
    """

    repo_id: str
    create_pr: bool = False
    private: bool = False
    revision: str = MAIN
    commit_message: str | None = None
    replace_card: bool = False


class Change(NamedTuple):
    """A commit to make.

    Args:
        parent: The commit that it builds on; None where there is no repository.
        starts_branch: The branch does not exist.
        additions: Content, in memory or as a file, by path in the repository.
        hashes: SHA-256 and git's hash of each of them and of unchanged files, or only the first.
        deletions: Paths in the repository.
        unchanged: Paths in the repository of files with the wanted content.
        keeps_script: Create the branch `SCRIPT_BRANCH` at the parent first.
        card_diff: Lines that differ between the published card and the new one.
    """

    parent: str | None
    starts_branch: bool
    additions: dict[str, Path | bytes]
    hashes: dict[str, set[str]]
    deletions: list[str]
    unchanged: list[str]
    keeps_script: bool
    card_diff: list[str]


def check(target: Target) -> None:
    """Checks token, namespace, repository and published card, before the long work.

    Raises:
        StepError: One of them does not permit to publish.
    """
    if not get_token():
        raise StepError("no token: run `hf auth login`, or set HF_TOKEN to a token with write access")
    repo = DatasetRepo(target.repo_id)
    account = repo.request(repo.api.whoami)
    role = (account.get("auth", {}).get("accessToken") or {}).get("role")
    if role == "read":
        raise StepError("the token only reads: create one with write access at https://huggingface.co/settings/tokens")
    namespace = target.repo_id.split("/")[0]
    writable = [account["name"], *(org["name"] for org in account.get("orgs", []))]
    info = repo.info()
    if namespace not in writable and not (info and (target.create_pr or target.revision.startswith("refs/pr/"))):
        advice = "; for a pull request to somebody's repository, pass --create-pr" if info else ""
        raise StepError(f"{target.repo_id}: you may write to {', '.join(writable)}; name one of these{advice}")
    if info and target.private and not info.private:
        raise StepError(f"{target.repo_id} exists and is public; change that in its settings, or omit --private")
    if target.revision.startswith("refs/") and not repo.info(target.revision):
        raise StepError(f"{target.repo_id} has no {target.revision}")
    info = repo.info(target.revision) or info
    if info:
        published = _read_card(repo, info.sha, repo.files(info.sha), target)
        _merge_card(write_card(NOTHING, SourceFacts(), "", []), published, target)


def publish(folder: Path, target: Target, dry_run: bool = False) -> None:
    """Publishes a folder that is complete and checked.

    Args:
        folder: The folder.
        target: Where and how.
        dry_run: Only print the commit and how it changes the card.

    Raises:
        StepError: It is not possible, or not now. The repository has the whole commit or nothing of it; uploaded files
            are not uploaded again.
    """
    repo = DatasetRepo(target.repo_id)
    change = plan_change(folder, target, repo)
    print(describe(change, target), flush=True)
    if dry_run and change.card_diff:
        print("\n".join(change.card_diff))
    _check_card(change, target, repo)
    if dry_run:
        return
    if not change.additions and not change.deletions:
        print(f"nothing to do: {repo.url}")
        return
    with _exit_at_signal():
        url = commit(change, target, repo)
    print(f'published: {url}\nload:      datasets.load_dataset("{target.repo_id}"{_revision_argument(target, url)})')


# What to change


def plan_change(folder: Path, target: Target, repo: DatasetRepo) -> Change:
    """Compares the folder with the repository.

    Raises:
        StepError: The Hub does not answer, or the published card is damaged.
    """
    info = repo.info(target.revision) or repo.info()
    remote = repo.files(info.sha) if info else {}
    published = _read_card(repo, info.sha, remote, target) if info else ""
    entries = read_manifest(folder)["files"]
    contents: dict[str, Path | bytes] = {
        name: folder / name if name.startswith("data/") else (folder / name).read_bytes() for name in entries
    }
    contents |= _texts(folder, target, published, repo.url)
    hashes = {
        path: _hashes(content) if isinstance(content, bytes) else {entries[path]["sha256"]}
        for path, content in contents.items()
    }
    unchanged = [path for path in contents if path in remote and _hash(remote[path]) in hashes[path]]
    stale = [
        path for path in remote if path not in contents and (PUBLISHED_DATA_FILES.fullmatch(path) or path in FIGURES)
    ]
    script = f"{target.repo_id.split('/')[1]}.py"
    replaced = [script, *_archives(repo, info.sha, remote, script)] if script in remote else []
    refs = repo.refs() if info else set()
    return Change(
        parent=info.sha if info else None,
        starts_branch=bool(info) and not target.revision.startswith("refs/") and target.revision not in refs,
        additions={path: content for path, content in contents.items() if path not in unchanged},
        hashes=hashes,
        deletions=sorted({*stale, *replaced}),
        unchanged=unchanged,
        keeps_script=bool(replaced) and not target.create_pr and target.revision == MAIN and SCRIPT_BRANCH not in refs,
        card_diff=_diff(published, contents[CARD]) if published else [],
    )


def describe(change: Change, target: Target) -> str:
    """Describes a commit, with a line for each file."""
    how = "pull request to" if target.create_pr else "commit to"
    new = "" if change.parent else f" (new, {'private' if target.private else 'public'})"
    branch = f", branch {target.revision}" + (" (new)" if change.starts_branch else "")
    lines = [f"{how} {target.repo_id}{new}{'' if target.create_pr else branch}: {_message(change, target)}"]
    if change.keeps_script:
        lines.append(f"  first      branch `{SCRIPT_BRANCH}` keeps the state with the script, {change.parent}")
    lines += (f"  upload     {path}, {_size(content):,} bytes" for path, content in change.additions.items())
    lines += (f"  delete     {path}" for path in change.deletions)
    lines += (f"  unchanged  {path}" for path in change.unchanged)
    return "\n".join(lines)


def _read_card(repo: DatasetRepo, revision: str, remote: dict[str, RepoFile], target: Target) -> str:
    """Returns the text of the published card; empty if it does not exist."""
    content = repo.read(CARD, revision) if CARD in remote else b""
    try:
        return content.decode(errors="replace" if target.replace_card else "strict")
    except UnicodeDecodeError as error:
        raise _card_error(target, "is not UTF-8") from error


def _merge_card(card: str, published: str, target: Target) -> str:
    try:
        return card if target.replace_card else merge_cards(card, published)
    except ValueError as error:
        raise _card_error(target, str(error)) from error


def _card_error(target: Target, problem: str) -> StepError:
    advice = "correct it on the Hub and run the command again, or pass --replace-card"
    return StepError(f"{target.repo_id}: {CARD}: {problem}; {advice}")


def _texts(folder: Path, target: Target, published: str, url: str) -> dict[str, bytes]:
    """Returns card and croissant.json for the repository."""
    card = with_repo_id((folder / CARD).read_text(encoding="utf-8"), target.repo_id)
    own = license_of(read_header(card), url)
    header = read_header(_merge_card(card, published, target))
    name, license_ = header.get("pretty_name"), license_of(header, url)
    if license_ and license_ != own:
        card = with_license(card, license_ if isinstance(license_, list) else [license_])
    card = _merge_card(card, published, target)
    croissant = (folder / CROISSANT).read_text(encoding="utf-8")
    croissant = with_repository(croissant, url, name if isinstance(name, str) else None, license_)
    return {CROISSANT: croissant.encode(), CARD: card.encode()}


def _check_card(change: Change, target: Target, repo: DatasetRepo) -> None:
    """Checks the header of a new card, as the Hub does after all files are uploaded."""
    card = change.additions.get(CARD)
    if isinstance(card, bytes) and (errors := repo.card_errors(card.decode())):
        raise _card_error(target, f"the Hub refuses the header: {listing(errors)}")


def _diff(published: str, card: Any) -> list[str]:
    before, after = (text.split("\n") for text in (published, card.decode()))
    return [*difflib.unified_diff(before, after, f"{CARD} (published)", f"{CARD} (new)", lineterm="")]


def _archives(repo: DatasetRepo, revision: str, remote: dict[str, RepoFile], script: str) -> list[str]:
    """Returns the archives that the script of a repository reads.

    A script like ours reads those that make the repository a SOURCE; any other script names them.
    """
    archives = [path for path in remote if path.endswith(ARCHIVES)]
    try:
        with _without_warnings(synthchex_75k.logger):  # the rows are not used
            rows = synthchex_75k.plan(f"hf://datasets/{repo.repo_id}@{revision}", on_mismatch="skip")
        return [path for path in archives if any(row.path.endswith(f"/{path}") for row in rows)]
    except synthchex_75k.SourceError:
        text = repo.read(script, revision).decode(errors="replace")
        return [path for path in archives if path.rpartition("/")[2] in text]


@contextmanager
def _without_warnings(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _hashes(content: bytes) -> set[str]:
    """Returns the hashes by which the Hub knows a content: SHA-256, and git's of a small file."""
    return {hashlib.sha256(content).hexdigest(), hashlib.sha1(b"blob %d\0%s" % (len(content), content)).hexdigest()}


def _hash(file: RepoFile) -> str:
    return file.lfs.sha256 if file.lfs else file.blob_id


def _size(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


# Changing it


def commit(change: Change, target: Target, repo: DatasetRepo) -> str:
    """Makes the commit, after creating what it needs and uploading large files.

    Returns:
        The address of the commit or the pull request.

    Raises:
        HubError: It failed.
    """
    where: dict[str, Any] = {"repo_id": target.repo_id, "repo_type": "dataset"}
    parent = change.parent
    if parent is None:
        repo.request(lambda: repo.api.create_repo(**where, private=target.private or None, exist_ok=True))
        parent = repo.info().sha
        change = change._replace(parent=parent, starts_branch=target.revision not in repo.refs())
    branches = [SCRIPT_BRANCH] * change.keeps_script + [target.revision] * change.starts_branch
    for branch in branches:
        new: dict[str, Any] = {**where, "branch": branch, "revision": parent, "exist_ok": True}
        repo.request(lambda new=new: repo.api.create_branch(**new))  # type: ignore[misc]
    additions = [CommitOperationAdd(path, content) for path, content in change.additions.items()]
    options: dict[str, Any] = {**where, "revision": target.revision, "create_pr": target.create_pr}
    repo.request(lambda: repo.api.preupload_lfs_files(additions=additions, free_memory=False, **options))
    options |= {
        "operations": [*(CommitOperationDelete(path, is_folder=False) for path in change.deletions), *additions],
        "commit_message": _message(change, target),
        "commit_description": _description(change),
        "parent_commit": parent,
    }
    refs = repo.refs()
    return repo.request(lambda: _create_commit(repo, options), lambda: _find_commit(change, target, repo, refs))


def _create_commit(repo: DatasetRepo, options: dict[str, Any]) -> str:
    made = repo.api.create_commit(**options)
    return made.pr_url or made.commit_url


def _find_commit(change: Change, target: Target, repo: DatasetRepo, refs: set[str]) -> str | None:
    """Returns the address of a commit whose answer was lost, if it was made; `refs` are those before it."""
    opened = {ref for ref in repo.refs() - refs if ref.startswith("refs/pr/")}
    for ref in opened if target.create_pr else {target.revision}:
        remote = repo.files(ref)
        is_added = all(path in remote and _hash(remote[path]) in change.hashes[path] for path in change.additions)
        if is_added and not remote.keys() & {*change.deletions}:
            number = ref.removeprefix("refs/pr/")
            return f"{repo.url}/" + (f"discussions/{number}" if target.create_pr else f"tree/{ref}")
    return None


def _message(change: Change, target: Target) -> str:
    count = sum(path.startswith("data/") for path in change.hashes)
    return target.commit_message or f"Publish as Parquet: {counted(count, 'file')}"


def _description(change: Change) -> str:
    if not any(path.endswith(".py") for path in change.deletions) or change.keeps_script:
        return ""
    return f"The loading script is removed. To keep the state with it, create a branch at {change.parent} first."


def _revision_argument(target: Target, url: str) -> str:
    number = re.search(r"/discussions/(\d+)$", url)
    revision = f"refs/pr/{number[1]}" if number else target.revision
    return "" if revision == MAIN else f', revision="{revision}"'


@contextmanager
def _exit_at_signal() -> Iterator[None]:
    """Ends the process at Ctrl-C: nothing needs tidying, and `huggingface_hub` would first finish its uploads."""

    def leave(number: int, _: object) -> None:
        print(
            "\ninterrupted. Run the same command again: only missing files are uploaded.", file=sys.stderr, flush=True
        )
        os._exit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
