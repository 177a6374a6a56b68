"""Requests to a Hub on localhost, through the unmodified client."""

import email.utils
import re
import time
from typing import Any

import pytest

from pipeline import hub as hub_module
from pipeline.hub import DatasetRepo, HubError, check_repo_id
from servers.local_hub import Hub

REPO = "alice/chex"
INFO = r"GET /api/datasets/alice/chex$"


@pytest.fixture
def repo(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> DatasetRepo:
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    monkeypatch.setattr(hub_module, "FIRST_DELAY", 0.1)
    hub.create(REPO, files={"README.md": b"\xff\r\n", "data/a.parquet": b"PAR1"})
    return DatasetRepo(REPO)


def test_repository_is_described(repo: DatasetRepo, hub: Hub) -> None:
    sha = repo.info().sha
    assert sha == hub.repos[REPO].refs["refs/heads/main"]
    assert repo.info("next") is None
    assert DatasetRepo("alice/none").info() is None
    assert repo.refs() == {"main"}
    files = repo.files(sha)
    assert {*files} == {".gitattributes", "README.md", "data/a.parquet"}
    assert [file.path for file in files.values() if file.lfs] == ["data/a.parquet"]
    assert repo.read("README.md", sha) == b"\xff\r\n"
    assert repo.url == f"{hub.url}/datasets/{REPO}"


def test_header_of_a_card_is_checked(repo: DatasetRepo) -> None:
    assert repo.card_errors("---\nlicense: mit\n---\n") == []
    (error,) = repo.card_errors("---\nlicense: mine\n---\n")
    assert '"license" must be one of' in error


@pytest.mark.parametrize("how", [408, 429, 500, 502, 503, 504, "drop"])
def test_transient_errors_are_retried(
    repo: DatasetRepo, hub: Hub, how: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.fail(INFO, how, Retry_After=0)
    assert repo.info().sha
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("; retrying in 0.1 s" if how == "drop" else "; retrying in 0 s")
    assert (str(how) in line) if isinstance(how, int) else line.startswith(f"no answer from {hub.url}: ")


def test_retry_after_may_be_a_date(repo: DatasetRepo, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    start = time.time()
    hub.fail(INFO, 429, Retry_After=email.utils.formatdate(start + 3, usegmt=True))  # in whole seconds
    assert repo.info().sha
    assert time.time() - start > 2
    (delay,) = re.findall(r"retrying in (.*) s\n", capsys.readouterr().err)
    assert float(delay) <= 3


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (400, ""),
        (401, " — the token is not valid: run `hf auth login`, or set HF_TOKEN"),
        (403, " — the token may not do this: it needs write access to this repository"),
        (409, " — the repository has changed meanwhile: run the command again"),
        (412, " — the repository has changed meanwhile: run the command again"),
        (503, " — run the command again later: uploaded files are kept"),
    ],
)
def test_permanent_errors_name_cause_and_remedy(repo: DatasetRepo, hub: Hub, how: int, message: str) -> None:
    hub.fail(INFO, how, range(1, 100), Retry_After=0)
    with pytest.raises(HubError) as caught:
        repo.info()
    text = str(caught.value)
    assert text.startswith(f"{REPO}: ") and text.endswith(message)
    assert (str(how) if how > 400 else "set to fail") in text and "\n" not in text
    assert len(hub.asked(INFO)) == (5 if how == 503 else 1)


def test_a_very_long_retry_after_ends_the_tries(repo: DatasetRepo, hub: Hub) -> None:
    hub.fail(INFO, 429, range(1, 100), Retry_After=86_400)
    with pytest.raises(HubError, match="run the command again later"):
        repo.info()
    assert len(hub.asked(INFO)) == 1


def test_answer_of_a_proxy_is_a_transient_error(repo: DatasetRepo, hub: Hub) -> None:
    hub.fail(INFO, "html")
    assert repo.info().sha


def test_download_is_retried_after_a_lost_connection(repo: DatasetRepo, hub: Hub) -> None:
    sha = repo.info().sha
    hub.fail("/resolve/", "drop")
    assert repo.read("README.md", sha) == b"\xff\r\n"


def test_refused_connection_names_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "MAX_TRIES", 1)
    with pytest.raises(HubError) as caught:
        DatasetRepo(REPO, "http://127.0.0.1:9").info()
    text = str(caught.value)
    assert text.startswith(f"{REPO}: no answer from http://127.0.0.1:9: ") and "refused" in text
    assert text.endswith(" — check the network and HF_ENDPOINT, then run the command again: uploaded files are kept")
    assert "\n" not in text


def test_error_of_the_program_is_not_retried(repo: DatasetRepo, hub: Hub) -> None:
    with pytest.raises(HubError, match=f"{REPO}: no such branch$"):
        repo.request(lambda: (_ for _ in ()).throw(ValueError("no such branch")))


@pytest.mark.parametrize(("text", "message"), [("chex", "name the user or organization too"), ("a/b/c", "a/b/c")])
def test_names_that_are_no_repository(text: str, message: str) -> None:
    assert check_repo_id("alice/chex") == "alice/chex"
    with pytest.raises(ValueError, match=message):
        check_repo_id(text)


# Requests that must not take effect twice


def branch(repo: DatasetRepo, hub: Hub) -> str:
    """Creates a branch as if that could be done twice."""
    number = len(hub.repos[REPO].under("refs/heads/"))
    repo.api.create_branch(REPO, branch=f"b{number}", repo_type="dataset")
    return f"b{number}"


@pytest.mark.parametrize(("how", "looks"), [("lose", 1), ("drop", 1), (500, 1), (504, 1), (503, 0), (429, 0)])
def test_result_is_looked_for_before_a_repetition(repo: DatasetRepo, hub: Hub, how: Any, looks: int) -> None:
    found = []

    def find() -> str | None:
        found.append(hub.repos[REPO].under("refs/heads/").keys() - {"main"})
        return next(iter(found[-1]), None)

    hub.fail(r"POST .*/branch/", how, Retry_After=0)
    assert repo.request(lambda: branch(repo, hub), find) == "b1"
    assert {*hub.repos[REPO].under("refs/heads/")} == {"main", "b1"}
    assert len(found) == looks


def test_conflict_after_a_lost_answer_may_be_with_the_own_commit(repo: DatasetRepo, hub: Hub) -> None:
    results = iter([None, "made"])  # the first attempt takes effect after the first look
    hub.fail(r"POST .*/branch/", 504, Retry_After=0)
    hub.fail(r"POST .*/branch/", 412, range(2, 3), Retry_After=0)
    assert repo.request(lambda: branch(repo, hub), lambda: next(results)) == "made"
    assert [*results] == []


def test_one_delay_between_a_lost_answer_and_looking(
    repo: DatasetRepo, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hub_module, "FIRST_DELAY", 1)
    hub.fail(r"POST .*/branch/", "lose")
    start = time.monotonic()
    repo.request(lambda: branch(repo, hub), lambda: "b1")
    assert time.monotonic() - start >= 1
    assert re.findall(r"retrying in (.*) s\n", capsys.readouterr().err) == ["1"]
