"""Publishing, from a source to a page, against a Hub on localhost and through the unmodified clients."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard, snapshot_download

from conftest import FIXTURE, ROOT, Rows, Source, contents, files_of, to_zip
from convert_to_parquet import main
from servers.local_hub import Hub

REPO = "alice/chex"
OPTIONS = ["--max-shard-size", "400KB", "--num-proc", "1", "--uncertainty", "keep", "--no-figures"]  # 3 files
COMMIT = r"POST .*/commit/"
UPLOAD = r"PUT .*/lfs/"
SCRIPT = b"""import datasets
ARCHIVE = "ALL_FILES.zip"
class Chex(datasets.GeneratorBasedBuilder): ...
"""
PAGE = b"""---
license: mit
doi: 10.57967/hf/1
extra_gated_prompt: Be kind.
tags:
- medical
- edinburgh
dataset_info:
  config_name: chex
  features: []
---
# Old page
"""


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_alice")


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("converted") / "o"
    assert main([str(FIXTURE), str(output), *OPTIONS]) == 0
    return output


@pytest.fixture
def output(converted: Path, tmp_path: Path) -> Path:
    """The fixture, converted, without pictures."""
    return Path(shutil.copytree(converted, tmp_path / "o"))


@pytest.fixture
def publish(output: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Publishes; returns exit code, output and messages."""

    def run(*options: str, source: Path = FIXTURE, repo: str = REPO) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(source), str(output), *OPTIONS, "--push-to-hub", repo, *options])
        return (code, *capsys.readouterr())

    return run


def names(output: Path) -> set[str]:
    return {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}


def head(hub: Hub, repo: str = REPO, ref: str = "refs/heads/main") -> str:
    return hub.repos[repo].refs[ref]


# A new repository


def test_publish_and_load(
    publish: Any, output: Path, hub: Hub, expected: Rows, rows_of: Callable[..., Rows], tmp_path: Path
) -> None:
    code, said, _ = publish("--figures")
    assert code == 0
    assert set(hub.files(REPO)) == {".gitattributes", *names(output)}
    assert {"README.md", "croissant.json", "figures/labels.png", "figures/examples.png"} <= set(hub.files(REPO))
    assert len(hub.repos[REPO].commits) == 2, "the first, which the Hub makes, and ours"
    assert len(hub.asked(COMMIT)) == 1
    assert not hub.repos[REPO].private
    assert f"published: {hub.url}/datasets/{REPO}/commit/{head(hub)}" in said
    for options in ({"streaming": True}, {"cache_dir": str(tmp_path / "cache")}):
        assert rows_of(load_dataset(REPO, split="train", **options)) == expected


def test_the_page_is_that_of_the_repository(publish: Any, hub: Hub) -> None:
    publish()
    page = hub.files(REPO)["README.md"].decode()
    assert f'load_dataset("{REPO}", split="train")' in page
    assert f"hf://datasets/{REPO}/data/*.parquet" in page
    assert "USER/NAME" not in page
    assert json.loads(hub.files(REPO)["croissant.json"])["url"] == f"{hub.url}/datasets/{REPO}"


def test_what_is_downloaded_is_what_verify_wants(publish: Any, hub: Hub, tmp_path: Path) -> None:
    publish("--figures")
    downloaded = snapshot_download(REPO, repo_type="dataset", local_dir=tmp_path / "down", ignore_patterns=".*")
    assert is_intact(Path(downloaded, "README.md"))
    assert main([str(FIXTURE), downloaded, *OPTIONS[2:], "--verify"]) == 0


def test_private(publish: Any, hub: Hub) -> None:
    assert publish("--private")[0] == 0
    assert hub.repos[REPO].private
    assert publish("--private")[0] == 0, "and again"


def test_pictures_that_are_omitted_go(publish: Any, hub: Hub) -> None:
    publish("--figures")
    assert "figures/labels.png" in hub.files(REPO)
    assert publish()[0] == 0
    assert not any("figures" in path for path in hub.files(REPO))
    assert "figures" not in hub.files(REPO)["README.md"].decode()


# Again


def test_publishing_again_does_nothing(publish: Any, hub: Hub) -> None:
    publish()
    before = head(hub)
    hub.requests.clear()
    code, said, _ = publish()
    assert (code, head(hub)) == (0, before)
    assert f"nothing to do: {hub.url}/datasets/{REPO}" in said
    assert not [request for request in hub.requests if not request.what.startswith(("GET", "HEAD"))]


def test_of_a_changed_image_only_its_file_and_the_card_are_transferred(
    publish: Any, output: Path, hub: Hub, source: Source, images: dict[str, bytes]
) -> None:
    publish("--figures")
    before, parquet = hub.files(REPO), contents(output)
    changed = [*images][3]  # not one of those that the card shows
    hub.requests.clear()
    assert publish("--figures", source=source(images={**images, changed: images[[*images][5]]}))[0] == 0
    different = {name for name, data in contents(output).items() if data != parquet[name]}
    (file,) = (name for name in different if name.startswith("data/"))
    assert different == {file, "README.md", "croissant.json"}
    assert {name for name, data in hub.files(REPO).items() if data != before[name]} == different
    assert [request.received for request in hub.asked(UPLOAD)] == [(output / file).stat().st_size]
    small = sum(len(hub.files(REPO)[name]) for name in ("README.md", "croissant.json"))
    assert sum(request.received for request in hub.asked(COMMIT)) < 2 * small


def test_files_that_are_replaced_are_removed(publish: Any, output: Path, hub: Hub) -> None:
    stale = {
        "data/train-00000-of-00002-0123456789abcdef.parquet": b"PAR1",
        "data/train-00009-of-00010.parquet": b"PAR1",
    }
    others = {"data/test-00000-of-00001.parquet": b"PAR1", "logo.png": b"PNG", "data/notes.txt": b"keep"}
    others["data/train-extra/a.parquet"] = b"PAR1"
    hub.create(REPO, files={**stale, **others})
    assert publish()[0] == 0
    assert set(hub.files(REPO)) == {".gitattributes", *others, *names(output)}
    assert {name: hub.files(REPO)[name] for name in others} == others


def test_a_large_repository_is_listed_to_its_end(publish: Any, output: Path, hub: Hub) -> None:
    stale = [f"data/train-{number:05}-of-00050.parquet" for number in range(50)]
    hub.create(REPO, files=dict.fromkeys(stale, b"PAR1"))
    assert publish()[0] == 0
    assert set(hub.files(REPO)) == {".gitattributes", *names(output)}


# A repository with a script


@pytest.fixture
def scripted(hub: Hub, images: dict[str, bytes], tmp_path: Path) -> dict[str, bytes]:
    """Somebody's repository, which current versions of `datasets` refuse; returns what is to stay."""
    to_zip(tmp_path / "ALL_FILES.zip", {**images, "metadata.csv": (FIXTURE / "metadata.csv").read_bytes()})
    archive = (tmp_path / "ALL_FILES.zip").read_bytes()
    stay = {"overview.png": b"PNG", "LICENSE": b"MIT"}
    hub.create(REPO, files={"chex.py": SCRIPT, "ALL_FILES.zip": archive, "README.md": PAGE, **stay})
    return stay


def test_a_script_and_its_archives_make_room(
    publish: Any, output: Path, hub: Hub, scripted: dict[str, bytes], rows_of: Callable[..., Rows], expected: Rows
) -> None:
    before = head(hub)
    code, said, _ = publish()
    assert code == 0
    assert set(hub.files(REPO)) == {".gitattributes", *scripted, *names(output)}
    assert {name: hub.files(REPO)[name] for name in scripted} == scripted
    assert head(hub, ref="refs/heads/script") == before
    assert re.search(rf"branch `script` keeps the state with the script, {before}", said)
    assert rows_of(load_dataset(REPO, split="train", streaming=True)) == expected


def test_what_people_added_to_the_header_stays(publish: Any, hub: Hub, scripted: dict[str, bytes]) -> None:
    _, said, _ = publish()
    header = DatasetCard(hub.files(REPO)["README.md"].decode()).data.to_dict()
    assert (header["doi"], header["extra_gated_prompt"]) == ("10.57967/hf/1", "Be kind.")
    assert header["license"] == "apache-2.0", "which is the dataset's"
    assert (header["tags"][0], header["tags"][-1]) == ("medical", "edinburgh")
    assert [split["num_examples"] for split in header["dataset_info"]["splits"]] == [12], "the script's is gone"
    assert "of the card's header are kept: doi, extra_gated_prompt" in said
    assert publish()[1].count("upload") == 0, "and it settles"


def test_configurations_that_people_added_stay(publish: Any, hub: Hub) -> None:
    page = """---
configs:
- config_name: default
  data_files: data/*.csv
- config_name: extra
  data_files: extra/*.parquet
dataset_info:
- config_name: extra
  features:
  - name: a
    dtype: int64
---
"""
    extra = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), extra)
    hub.create(REPO, files={"README.md": page.encode(), "extra/a.parquet": extra.getvalue()})
    assert publish()[0] == 0
    assert len(load_dataset(REPO, "default", split="train")) == 12
    assert load_dataset(REPO, "extra", split="train")[0] == {"a": 1}


def test_the_state_with_the_script_is_kept_once(publish: Any, hub: Hub, scripted: dict[str, bytes]) -> None:
    before = head(hub)
    publish()
    hub.push(REPO, {"chex.py": SCRIPT})
    assert publish()[0] == 0
    assert "chex.py" not in hub.files(REPO)
    assert head(hub, ref="refs/heads/script") == before


def test_archives_that_a_script_names_go_and_others_stay(publish: Any, hub: Hub) -> None:
    archives = {"ALL_FILES.zip": b"of a shape of its own", "masks.zip": b"of somebody else"}
    hub.create(REPO, files={"chex.py": SCRIPT, "other.py": b"", **archives})
    assert publish()[0] == 0
    assert {"masks.zip", "other.py"} <= set(hub.files(REPO))
    assert not {"ALL_FILES.zip", "chex.py"} & set(hub.files(REPO))


def test_archives_that_no_script_reads_stay(publish: Any, hub: Hub) -> None:
    hub.create(REPO, files={"masks.zip": b"of somebody else"})
    assert publish()[0] == 0
    assert "masks.zip" in hub.files(REPO)


def test_a_header_that_the_hub_refuses(publish: Any, hub: Hub) -> None:
    hub.create(REPO, files={"README.md": b"---\nconfigs:\n- data_files: extra/*.parquet\n---\n"})
    code, _, error = publish()
    assert code == 1
    assert f'error: {REPO}: Invalid metadata in README.md. - "configs" must have a "config_name" each' in error
    assert "croissant.json" not in hub.files(REPO)


def test_a_header_that_cannot_be_read_is_not_thrown_away(publish: Any, hub: Hub) -> None:
    hub.create(REPO, files={"README.md": b"---\ndoi: [\n---\n"})
    code, _, error = publish()
    assert code == 1
    assert re.search(rf"error: {REPO}: README.md: the header of the card cannot be read: .*; mend it there", error)
    assert "data/train-00000-of-00003.parquet" not in hub.files(REPO)


# Pull requests and branches


def test_a_pull_request(
    publish: Any, output: Path, hub: Hub, scripted: dict[str, bytes], expected: Rows, rows_of: Callable[..., Rows]
) -> None:
    before = hub.files(REPO)
    code, said, _ = publish("--create-pr")
    assert code == 0
    assert hub.files(REPO) == before
    assert "refs/heads/script" not in hub.repos[REPO].refs
    assert set(hub.files(REPO, "refs/pr/1")) == {".gitattributes", *scripted, *names(output)}
    assert f"published: {hub.url}/datasets/{REPO}/discussions/1" in said
    assert rows_of(load_dataset(REPO, revision="refs/pr/1", split="train", streaming=True)) == expected
    description = hub.repos[REPO].commits[head(hub, ref="refs/pr/1")].description
    assert head(hub) in description, "how to keep the state with the script"


def test_a_pull_request_to_somebody_elses_repository(publish: Any, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create(REPO)
    monkeypatch.setenv("HF_TOKEN", "hf_bob")
    code, _, error = publish()
    assert (code, "pass --create-pr" in error) == (1, True)
    assert publish("--create-pr")[0] == 0
    assert "README.md" in hub.files(REPO, "refs/pr/1")


def test_one_more_commit_to_a_pull_request(publish: Any, hub: Hub) -> None:
    hub.create(REPO)
    publish("--create-pr", "--figures")
    code = publish("--revision", "refs/pr/1")[0]
    assert (code, "README.md" in hub.files(REPO)) == (0, False)
    assert "README.md" in hub.files(REPO, "refs/pr/1")
    assert "figures/labels.png" not in hub.files(REPO, "refs/pr/1")
    code, _, error = publish("--revision", "refs/pr/7")
    assert (code, error) == (1, f"error: {REPO} has no refs/pr/7\n")


@pytest.mark.parametrize("is_new", [True, False], ids=["new repository", "old repository"])
def test_a_branch(publish: Any, output: Path, hub: Hub, is_new: bool) -> None:
    if not is_new:
        hub.create(REPO, files={"chex.py": SCRIPT})
    code, said, _ = publish("--revision", "next", "--commit-message", "Try it")
    assert code == 0
    assert "README.md" not in hub.files(REPO)
    assert set(hub.files(REPO, "next")) == {".gitattributes", *names(output)}
    assert set(hub.repos[REPO].under("refs/heads/")) == {"main", "next"}
    assert hub.repos[REPO].commits[head(hub, ref="refs/heads/next")].title == "Try it"
    assert f'load_dataset("{REPO}", revision="next")' in said


# Only looking


@pytest.mark.parametrize("there", [True, False], ids=["a script is there", "nothing is there"])
def test_a_dry_run(publish: Any, hub: Hub, there: bool) -> None:
    if there:
        hub.create(REPO, files={"chex.py": SCRIPT, "ALL_FILES.zip": b"no zip", "README.md": PAGE})
    code, said, _ = publish("--dry-run")
    assert code == 0
    lines = said[said.index("commit to") :].splitlines()
    assert lines[0] == (
        f"commit to {REPO}{'' if there else ' (new, public)'}, branch main: Publish as Parquet: 3 files"
    )
    assert re.search(r"^  upload     data/train-00000-of-00003\.parquet, [\d,]+ bytes$", "\n".join(lines), re.M)
    assert [line.split()[1] for line in lines if "delete" in line] == (["ALL_FILES.zip", "chex.py"] if there else [])
    assert any("branch `script` keeps" in line for line in lines) == there
    assert not [request for request in hub.requests if not request.what.startswith(("GET", "HEAD"))]
    assert len(hub.repos) == there


# Who may


@pytest.mark.parametrize(
    ("token", "repo", "options", "message"),
    [
        (None, REPO, (), "no token: run `hf auth login`, or set HF_TOKEN to one that may write"),
        ("hf_alice_read", REPO, (), "the token only reads: make one that may write at"),
        ("hf_nobody", REPO, (), "the token is not valid"),
        ("hf_alice", "nobody/chex", (), "nobody/chex: you may write to alice, lab; name one of these"),
        ("hf_alice", "nobody/chex", ("--create-pr",), "nobody/chex: you may write to alice, lab; name one of these"),
        ("hf_alice", "lab/public", ("--private",), "lab/public is there and public"),
    ],
)
def test_what_cannot_be_published_is_told_before_the_work(
    token: str | None,
    repo: str,
    options: tuple[str, ...],
    message: str,
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    hub.create("lab/public")
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    assert main([str(FIXTURE), str(tmp_path / "o"), "--push-to-hub", repo, *options]) == 1
    said = "".join(capsys.readouterr())
    assert f"error: {message}" in re.sub(r"error: .* — ", "error: ", said)
    assert not (tmp_path / "o").exists()
    assert token is None or token not in said


def test_an_organization(publish: Any, hub: Hub) -> None:
    assert publish(repo="lab/chex")[0] == 0
    assert "README.md" in hub.files("lab/chex")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--create-pr"],
        ["--dry-run"],
        ["--revision", "next"],
        ["--push-to-hub", "chex"],
        ["--push-to-hub", "a/b/c"],
        ["--push-to-hub", REPO, "--verify"],
        ["--push-to-hub", REPO, "--create-pr", "--revision", "next"],
    ],
    ids=" ".join,
)
def test_arguments_that_do_not_go_together(arguments: list[str], hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(FIXTURE), str(tmp_path / "o"), *arguments])
    assert ended.value.code == 2
    assert not hub.requests


# What goes wrong


def test_a_damaged_folder_is_mended_before_it_is_published(publish: Any, output: Path, hub: Hub) -> None:
    path = files_of(output)[2]
    good = path.read_bytes()
    path.write_bytes(good[:70_000] + bytes([good[70_000] ^ 1]) + good[70_001:])
    assert publish()[0] == 0
    assert hub.files(REPO)[f"data/{path.name}"] == good


def test_the_hub_says_when_to_come_again(publish: Any, hub: Hub) -> None:
    for matching in ("whoami", r"/api/repos/create", COMMIT):
        hub.fail(matching, 429, Retry_After=1)
    start = time.monotonic()
    code, _, error = publish()
    assert code == 0
    assert time.monotonic() - start > 3
    assert error.count("again in 1 s") == 3
    assert len(hub.repos[REPO].commits) == 2


@pytest.mark.parametrize(
    ("matching", "how"),
    [
        *((r"GET .*/tree/", how) for how in (503, "drop")),
        *((UPLOAD, how) for how in (500, "cut")),
        *((COMMIT, how) for how in (500, 503, "drop", "cut")),
    ],
)
def test_what_fails_once_is_tried_again(publish: Any, output: Path, hub: Hub, matching: str, how: Any) -> None:
    hub.create(REPO)
    hub.fail(matching, how, Retry_After=0)
    assert publish()[0] == 0
    assert set(hub.files(REPO)) == {".gitattributes", *names(output)}
    assert len(hub.repos[REPO].commits) == 2


@pytest.mark.parametrize("options", [(), ("--create-pr",)], ids=["commit", "pull request"])
def test_an_answer_that_is_lost_makes_no_second_commit(publish: Any, hub: Hub, options: tuple[str, ...]) -> None:
    hub.create(REPO)
    hub.fail(COMMIT, "lose")
    code, said, _ = publish(*options)
    assert code == 0
    assert re.search(
        rf"published: {hub.url}/datasets/{REPO}/{'discussions/1' if options else 'tree/main'}$", said, re.M
    )
    assert len(hub.repos[REPO].commits) == 2
    assert set(hub.repos[REPO].under("refs/pr/")) == ({"1"} if options else set())


@pytest.mark.parametrize("status", [409, 412])
def test_a_repository_that_changes_meanwhile(publish: Any, hub: Hub, status: int) -> None:
    hub.create(REPO)
    if status == 412:
        hub.fail(COMMIT, lambda: hub.push(REPO, {"notes.txt": b"by somebody"}))
    else:
        hub.fail(COMMIT, 409)
    code, _, error = publish()
    assert code == 1
    assert "the repository has changed meanwhile: run this again" in error
    assert "README.md" not in hub.files(REPO)
    uploads = len(hub.asked(UPLOAD))
    assert publish()[0] == 0
    assert len(hub.asked(UPLOAD)) == uploads, "nothing is transferred twice"
    assert {"README.md", *(["notes.txt"] if status == 412 else [])} <= set(hub.files(REPO))


@pytest.mark.parametrize(
    ("matching", "status", "message"),
    [
        (r"/preupload/", 403, "the token may not do this"),
        ("whoami", 503, "run this again later: what is transferred is kept"),
        (COMMIT, 500, "run this again later"),
    ],
)
def test_what_fails_for_good(publish: Any, hub: Hub, matching: str, status: int, message: str) -> None:
    hub.fail(matching, status, range(1, 100), Retry_After=0)
    code, _, error = publish()
    assert code == 1
    assert re.search(rf"^error: {REPO}: .*{message}", error, re.M)
    hub.failures.clear()
    assert publish()[0] == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_upload_that_is_killed_goes_on(output: Path, hub: Hub, number: int) -> None:
    command = [sys.executable, str(ROOT / "scripts/convert_to_parquet.py"), str(FIXTURE), str(output), *OPTIONS]
    gone = threading.Event()

    def hang() -> None:
        gone.wait()
        raise ConnectionAbortedError

    hub.fail(UPLOAD, hang, range(3, 10))
    run = subprocess.Popen(
        [*command, "--push-to-hub", REPO], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 60
    while len([request for request in hub.asked(UPLOAD) if request.status == 200]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    start = time.monotonic()
    run.send_signal(number)
    said, _ = run.communicate(timeout=20)
    gone.set()
    assert time.monotonic() - start < 1, "it does not finish its files first"
    assert run.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert number == signal.SIGKILL or "it looks at what is there and transfers only what is missing" in said
    assert "hf_alice" not in said
    assert "README.md" not in hub.files(REPO)
    hub.failures.clear()
    done = {request.what for request in hub.asked(UPLOAD) if request.status == 200}
    hub.requests.clear()
    subprocess.run([*command, "--push-to-hub", REPO], check=True, capture_output=True)
    assert set(hub.files(REPO)) == {".gitattributes", *names(output)}
    again = [request.what for request in hub.asked(UPLOAD) if request.status == 200]
    assert not done & {*again}
    assert len(again) == len({*again})


def test_the_token_is_nowhere(output: Path, hub: Hub, tmp_path: Path) -> None:
    hub.fail("/preupload/", 500, Retry_After=0)
    environment = {**os.environ, "HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug"}
    del environment["HF_TOKEN"]
    (tmp_path / "token").write_text("hf_alice")  # as `hf auth login` leaves it
    command = [sys.executable, str(ROOT / "scripts/convert_to_parquet.py"), str(FIXTURE), str(output), *OPTIONS]
    run = subprocess.run(
        [*command, "--push-to-hub", REPO],
        env={**environment, "HF_TOKEN_PATH": str(tmp_path / "token")},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0
    assert "hf_alice" not in run.stdout + run.stderr
