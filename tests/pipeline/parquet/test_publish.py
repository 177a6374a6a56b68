"""Publishing a converted folder, against a Hub on localhost and through the unmodified clients."""

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

import pipeline.hub
from conftest import FIXTURE, ROOT, Rows, Source, contents, files_of, to_csv, to_zip
from convert_to_parquet import main
from pipeline.folder import MANIFEST
from pipeline.parquet.publish import Target
from pipeline.parquet.publish import publish as publish_folder
from processes import PATIENCE
from servers.local_hub import Hub

REPO = "alice/chex"
OPTIONS = ["--max-shard-size", "400KB", "--num-proc", "1", "--uncertainty", "keep", "--no-figures"]  # 3 files
COMMIT = r"POST .*/commit/"
VALIDATION = "POST /api/validate-yaml"  # of the card's header
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
    monkeypatch.setattr(pipeline.hub, "FIRST_DELAY", 0.1)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("converted") / "o"
    assert main([str(FIXTURE), str(output), *OPTIONS]) == 0
    return output


@pytest.fixture(scope="module")
def illustrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture, converted, with figures, whose drawing takes long."""
    output = tmp_path_factory.mktemp("illustrated") / "o"
    assert main([str(FIXTURE), str(output), *OPTIONS, "--figures"]) == 0
    return output


@pytest.fixture
def output(converted: Path, tmp_path: Path) -> Path:
    """The fixture, converted, without figures."""
    return Path(shutil.copytree(converted, tmp_path / "o"))


@pytest.fixture
def publish(output: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Publishes; returns exit code, standard output and standard error."""

    def run(*options: str, source: Path = FIXTURE, repo: str = REPO) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(source), str(output), *OPTIONS, "--push-to-hub", repo, *options])
        return (code, *capsys.readouterr())

    return run


def names(output: Path) -> set[str]:
    """Returns the paths of the files to publish: all but the manifest."""
    paths = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert MANIFEST in paths
    return paths - {MANIFEST}


def head(hub: Hub, repo: str = REPO, ref: str = "refs/heads/main") -> str:
    return hub.repos[repo].refs[ref]


# A new repository


def test_published_repository_loads(
    illustrated: Path,
    hub: Hub,
    expected: Rows,
    rows_of: Callable[..., Rows],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    publish_folder(illustrated, Target(REPO))
    stdout = capsys.readouterr().out
    assert set(hub.files(REPO)) == {".gitattributes", *names(illustrated)}
    assert {"README.md", "croissant.json", "figures/labels.png", "figures/examples.png"} <= set(hub.files(REPO))
    assert len(hub.repos[REPO].commits) == 2, "that of the Hub, and ours"
    assert len(hub.asked(COMMIT)) == 1
    assert not hub.repos[REPO].private
    assert f"published: {hub.url}/datasets/{REPO}/commit/{head(hub)}" in stdout
    for options in ({"streaming": True}, {"cache_dir": str(tmp_path / "cache")}):
        assert rows_of(load_dataset(REPO, split="train", **options)) == expected


def test_card_names_the_repository(publish: Any, hub: Hub) -> None:
    publish()
    page = hub.files(REPO)["README.md"].decode()
    assert f'load_dataset("{REPO}", split="train")' in page
    assert f"hf://datasets/{REPO}/data/*.parquet" in page
    assert "USER/NAME" not in page
    assert json.loads(hub.files(REPO)["croissant.json"])["url"] == f"{hub.url}/datasets/{REPO}"


def test_downloaded_repository_verifies(illustrated: Path, hub: Hub, tmp_path: Path) -> None:
    publish_folder(illustrated, Target(REPO))
    downloaded = snapshot_download(REPO, repo_type="dataset", local_dir=tmp_path / "down", ignore_patterns=".*")
    assert not Path(downloaded, MANIFEST).exists()
    assert main([str(FIXTURE), downloaded, *OPTIONS[2:], "--verify"]) == 0


def test_private_repository(publish: Any, hub: Hub) -> None:
    assert publish("--private")[0] == 0
    assert hub.repos[REPO].private
    assert publish("--private")[0] == 0, "a second time"


def test_figures_are_removed_with_no_figures(publish: Any, illustrated: Path, hub: Hub) -> None:
    publish_folder(illustrated, Target(REPO))
    assert "figures/labels.png" in hub.files(REPO)
    assert publish()[0] == 0
    assert not any("figures" in path for path in hub.files(REPO))
    assert "figures" not in hub.files(REPO)["README.md"].decode()


# Publishing again


def test_publishing_again_changes_nothing(publish: Any, hub: Hub) -> None:
    publish()
    before = head(hub)
    hub.requests.clear()
    code, stdout, _ = publish()
    assert (code, head(hub)) == (0, before)
    assert f"nothing to do: {hub.url}/datasets/{REPO}" in stdout
    assert not [request for request in hub.requests if not request.what.startswith(("GET", "HEAD"))]


@pytest.mark.parametrize("figures", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["", "figures"])
def test_only_changed_files_are_uploaded(
    figures: bool,
    converted: Path,
    illustrated: Path,
    hub: Hub,
    source: Source,
    images: dict[str, bytes],
    tmp_path: Path,
) -> None:
    output = Path(shutil.copytree(illustrated if figures else converted, tmp_path / "o"))
    publish_folder(output, Target(REPO))
    before, parquet = hub.files(REPO), contents(output)
    changed = [*images][3]  # not one of those that the card shows
    hub.requests.clear()
    other = source(images={**images, changed: images[[*images][5]]})
    options = [*OPTIONS, *["--figures"] * figures, "--overwrite", "--push-to-hub", REPO]
    assert main([str(other), str(output), *options]) == 0
    different = {name for name, data in contents(output).items() if data != parquet[name]} - {MANIFEST}
    (file,) = (name for name in different if name.startswith("data/"))
    assert different == {file, "README.md", "croissant.json"}
    assert {name for name, data in hub.files(REPO).items() if data != before[name]} == different
    assert [request.received for request in hub.asked(UPLOAD)] == [(output / file).stat().st_size]
    small = sum(len(hub.files(REPO)[name]) for name in ("README.md", "croissant.json"))
    assert sum(request.received for request in hub.asked(COMMIT)) < 2 * small


def test_old_data_files_are_deleted_and_other_files_stay(publish: Any, output: Path, hub: Hub) -> None:
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


def test_file_list_of_many_pages_is_read_whole(publish: Any, output: Path, hub: Hub) -> None:
    stale = [f"data/train-{number:05}-of-00050.parquet" for number in range(50)]
    hub.create(REPO, files=dict.fromkeys(stale, b"PAR1"))
    assert publish()[0] == 0
    assert set(hub.files(REPO)) == {".gitattributes", *names(output)}


# A repository with a script


@pytest.fixture
def scripted(hub: Hub, images: dict[str, bytes], tmp_path: Path) -> dict[str, bytes]:
    """A repository with a loading script, which current versions of `datasets` refuse; returns the files that stay."""
    to_zip(tmp_path / "ALL_FILES.zip", {**images, "metadata.csv": (FIXTURE / "metadata.csv").read_bytes()})
    archive = (tmp_path / "ALL_FILES.zip").read_bytes()
    stay = {"overview.png": b"PNG", "LICENSE": b"MIT"}
    hub.create(REPO, files={"chex.py": SCRIPT, "ALL_FILES.zip": archive, "README.md": PAGE, **stay})
    return stay


def test_script_and_its_archives_are_deleted(
    publish: Any, output: Path, hub: Hub, scripted: dict[str, bytes], rows_of: Callable[..., Rows], expected: Rows
) -> None:
    before = head(hub)
    code, stdout, _ = publish()
    assert code == 0
    assert set(hub.files(REPO)) == {".gitattributes", *scripted, *names(output)}
    assert {name: hub.files(REPO)[name] for name in scripted} == scripted
    assert head(hub, ref="refs/heads/script") == before
    assert re.search(rf"branch `script` keeps the state with the script, {before}", stdout)
    assert rows_of(load_dataset(REPO, split="train", streaming=True)) == expected


def test_header_fields_of_people_stay(publish: Any, hub: Hub, scripted: dict[str, bytes]) -> None:
    publish()
    header = DatasetCard(hub.files(REPO)["README.md"].decode()).data.to_dict()
    assert (header["doi"], header["extra_gated_prompt"]) == ("10.57967/hf/1", "Be kind.")
    assert header["license"] == "mit"
    assert header["tags"] == ["medical", "edinburgh"]
    assert header["pretty_name"] == "Drawings of chests", "a missing field is added"
    assert [info["config_name"] for info in header["dataset_info"]] == ["default", "labels"], (
        "that of the script is replaced"
    )
    assert publish()[1].count("upload") == 0


CARD_OF_PEOPLE = b"""---
license: cc-by-4.0  # agreed with the hospital
pretty_name: Chest X-rays
tags:
- edinburgh
gated: manual
---
# Our chest X-rays

Written by hand.
"""


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_license_name_and_text_of_people_stay(publish: Any, hub: Hub, line_end: bytes) -> None:
    card = CARD_OF_PEOPLE.replace(b"\n", line_end)
    header, text = card.split(b"---" + line_end + b"#")
    hub.create(REPO, files={"README.md": card})
    assert publish()[0] == 0
    published = hub.files(REPO)["README.md"]
    assert published.startswith(header)
    assert b"---" + line_end + b"#" + text + line_end + b"## Parquet files" in published
    assert published.count(b"BEGIN use") == 1
    about = json.loads(hub.files(REPO)["croissant.json"])
    assert (about["license"], about["name"]) == ("https://choosealicense.com/licenses/cc-by-4.0/", "Chest X-rays")
    assert b"| License | <https://choosealicense.com/licenses/cc-by-4.0/> |" in published, "no other one than above"
    assert b"apache-2.0" not in published
    for _ in range(2):
        assert "nothing to do" in publish()[1]
    assert hub.files(REPO)["README.md"] == published
    edited = published.replace(b"effusions = ", b"x = ").replace(b"by hand", b"with care") + b"The end"
    hub.push(REPO, {"README.md": edited})
    assert publish()[0] == 0
    assert hub.files(REPO)["README.md"] == published.replace(b"by hand", b"with care") + b"The end"


def test_replace_card_replaces_license_and_text(publish: Any, hub: Hub) -> None:
    hub.create(REPO, files={"README.md": CARD_OF_PEOPLE})
    assert publish("--replace-card")[0] == 0
    with_flag = hub.files(REPO)
    hub.clear()
    assert publish()[0] == 0
    assert {**with_flag, "README.md": b""} == {**hub.files(REPO), "README.md": b""}
    assert with_flag["README.md"] == hub.files(REPO)["README.md"]


def test_dry_run_prints_a_diff_of_the_card(publish: Any, hub: Hub) -> None:
    hub.create(REPO, files={"README.md": CARD_OF_PEOPLE})
    code, stdout, _ = publish("--dry-run")
    assert code == 0
    diff = stdout[stdout.index("--- README.md (published)\n+++ README.md (new)\n@@ ") :].splitlines()
    assert not [line for line in diff[2:] if line.startswith("-")]
    assert {" # Our chest X-rays", "+size_categories:", "+## Parquet files"} <= {*diff}
    code, stdout, _ = publish("--dry-run", "--replace-card")
    assert {"-license: cc-by-4.0  # agreed with the hospital", "+license: apache-2.0"} <= {*stdout.splitlines()}
    publish()
    assert "--- README.md" not in publish("--dry-run")[1], "no difference, no diff"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("license:\n- mit\n- cc-by-4.0", ["mit/", "cc-by-4.0/"]),
        ("license: other\nlicense_name: ours\nlicense_link: LICENSE", "alice/chex/blob/main/LICENSE"),
    ],
    ids=["list", "other"],
)
def test_unusual_licenses_in_card_and_croissant(publish: Any, hub: Hub, header: str, expected: Any) -> None:
    hub.create(REPO, files={"README.md": f"---\n{header}\n---\n".encode()})
    assert publish()[0] == 0
    assert hub.files(REPO)["README.md"].decode().startswith(f"---\n{header}\n")
    licenses = json.loads(hub.files(REPO)["croissant.json"])["license"]
    pairs = zip(licenses, expected, strict=True) if isinstance(expected, list) else [(licenses, expected)]
    assert all(address.startswith("http") and address.endswith(end) for address, end in pairs)


def test_added_configurations_stay_and_load(publish: Any, hub: Hub) -> None:
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


def test_no_message_about_unmatched_images_of_the_repository(
    publish: Any,
    hub: Hub,
    images: dict[str, bytes],
    table: list[dict[str, str]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    metadata = to_csv(table[:-3])
    to_zip(tmp_path / "ALL_FILES.zip", {**images, "metadata.csv": metadata})
    hub.create(REPO, files={"chex.py": SCRIPT, "ALL_FILES.zip": (tmp_path / "ALL_FILES.zip").read_bytes()})
    code, stdout, stderr = publish()
    assert code == 0
    assert "ALL_FILES.zip" not in hub.files(REPO)
    assert "left out" not in stdout
    assert not stderr and not caplog.text


def test_script_branch_is_created_once(publish: Any, hub: Hub, scripted: dict[str, bytes]) -> None:
    before = head(hub)
    publish()
    hub.push(REPO, {"chex.py": SCRIPT})
    assert publish()[0] == 0
    assert "chex.py" not in hub.files(REPO)
    assert head(hub, ref="refs/heads/script") == before


def test_archives_named_in_the_script_are_deleted_and_others_stay(publish: Any, hub: Hub) -> None:
    archives = {"ALL_FILES.zip": b"no archive", "masks.zip": b"of another user"}
    hub.create(REPO, files={"chex.py": SCRIPT, "other.py": b"", **archives})
    assert publish()[0] == 0
    assert {"masks.zip", "other.py"} <= set(hub.files(REPO))
    assert not {"ALL_FILES.zip", "chex.py"} & set(hub.files(REPO))


def test_archives_stay_without_a_script(publish: Any, hub: Hub) -> None:
    hub.create(REPO, files={"masks.zip": b"of another user"})
    assert publish()[0] == 0
    assert "masks.zip" in hub.files(REPO)


def test_header_that_the_hub_refuses_is_an_error_before_upload(publish: Any, hub: Hub) -> None:
    hub.create(REPO, files={"README.md": b"---\nconfigs:\n- data_files: extra/*.parquet\n---\n"})
    for options in ((), ("--dry-run",)):
        code, _, stderr = publish(*options)
        assert code == 1
        assert (
            f'error: {REPO}: README.md: the Hub refuses the header: "configs" must have a "config_name" each; '
            "correct it on the Hub and run the command again, or pass --replace-card\n"
        ) in stderr
    assert not hub.asked(UPLOAD) and not hub.asked(COMMIT)
    assert "croissant.json" not in hub.files(REPO)
    assert publish("--replace-card")[0] == 0


@pytest.mark.parametrize(
    ("card", "problem"),
    [
        (b"---\ndoi: [\n---\n", "the header cannot be read: .*"),
        (b"---\ndoi: 1\n", "the header cannot be read: it needs a line `---` above it and below it"),
        (b"---\n- doi\n---\n", "the header cannot be read: it has no fields"),
        (b"---\nconfigs: all\n---\n", "the header is damaged: `configs` and `dataset_info` must be lists .*"),
        (b"Text\n<!-- END use -->\n", "line 2 of the text: the section `use` must have one BEGIN and, below, one END"),
        (b"\xff", "is not UTF-8"),
    ],
    ids=str,
)
def test_damaged_card_is_an_error_before_conversion(
    card: bytes, problem: str, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.create(REPO, files={"README.md": card})
    assert main([str(FIXTURE), str(tmp_path / "o"), *OPTIONS, "--push-to-hub", REPO]) == 1
    stderr = capsys.readouterr().err
    advice = "correct it on the Hub and run the command again, or pass --replace-card"
    assert re.fullmatch(rf"error: {REPO}: README.md: {problem}; {advice}\n", stderr)
    assert not (tmp_path / "o").exists()
    assert hub.files(REPO)["README.md"] == card
    assert main([str(FIXTURE), str(tmp_path / "o"), *OPTIONS, "--push-to-hub", REPO, "--replace-card"]) == 0


# Pull requests and branches


def test_pull_request(
    publish: Any, output: Path, hub: Hub, scripted: dict[str, bytes], expected: Rows, rows_of: Callable[..., Rows]
) -> None:
    before = hub.files(REPO)
    code, stdout, _ = publish("--create-pr")
    assert code == 0
    assert hub.files(REPO) == before
    assert "refs/heads/script" not in hub.repos[REPO].refs
    assert set(hub.files(REPO, "refs/pr/1")) == {".gitattributes", *scripted, *names(output)}
    assert f"published: {hub.url}/datasets/{REPO}/discussions/1" in stdout
    assert rows_of(load_dataset(REPO, revision="refs/pr/1", split="train", streaming=True)) == expected
    description = hub.repos[REPO].commits[head(hub, ref="refs/pr/1")].description
    assert head(hub) in description, "how to keep the state with the script"


def test_pull_request_to_a_repository_of_another_user(publish: Any, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create(REPO)
    monkeypatch.setenv("HF_TOKEN", "hf_bob")
    code, _, stderr = publish()
    assert (code, "pass --create-pr" in stderr) == (1, True)
    assert publish("--create-pr")[0] == 0
    assert "README.md" in hub.files(REPO, "refs/pr/1")


def test_second_commit_to_a_pull_request(publish: Any, illustrated: Path, hub: Hub) -> None:
    hub.create(REPO)
    publish_folder(illustrated, Target(REPO, create_pr=True))
    code = publish("--revision", "refs/pr/1")[0]
    assert (code, "README.md" in hub.files(REPO)) == (0, False)
    assert "README.md" in hub.files(REPO, "refs/pr/1")
    assert "figures/labels.png" not in hub.files(REPO, "refs/pr/1")
    code, _, stderr = publish("--revision", "refs/pr/7")
    assert (code, stderr) == (1, f"error: {REPO} has no refs/pr/7\n")


@pytest.mark.parametrize("is_new", [True, False], ids=["new repository", "old repository"])
def test_branch(publish: Any, output: Path, hub: Hub, is_new: bool) -> None:
    if not is_new:
        hub.create(REPO, files={"chex.py": SCRIPT})
    code, stdout, _ = publish("--revision", "next", "--commit-message", "Try it")
    assert code == 0
    assert "README.md" not in hub.files(REPO)
    assert set(hub.files(REPO, "next")) == {".gitattributes", *names(output)}
    assert set(hub.repos[REPO].under("refs/heads/")) == {"main", "next"}
    assert hub.repos[REPO].commits[head(hub, ref="refs/heads/next")].title == "Try it"
    assert f'load_dataset("{REPO}", revision="next")' in stdout


@pytest.mark.parametrize("exists", [True, False], ids=["with a script", "no repository"])
def test_dry_run_changes_nothing(publish: Any, hub: Hub, exists: bool) -> None:
    if exists:
        hub.create(REPO, files={"chex.py": SCRIPT, "ALL_FILES.zip": b"no zip", "README.md": PAGE})
    code, stdout, _ = publish("--dry-run")
    assert code == 0
    lines = stdout[stdout.index("commit to") :].splitlines()
    assert lines[0] == (
        f"commit to {REPO}{'' if exists else ' (new, public)'}, branch main: Publish as Parquet: 3 files"
    )
    assert re.search(r"^  upload     data/train-00000-of-00003\.parquet, [\d,]+ bytes$", "\n".join(lines), re.M)
    assert [line.split()[1] for line in lines if "delete" in line] == (["ALL_FILES.zip", "chex.py"] if exists else [])
    assert any("branch `script` keeps" in line for line in lines) == exists
    assert {request.what for request in hub.requests if not request.what.startswith(("GET", "HEAD"))} == {VALIDATION}
    assert len(hub.repos) == exists


# Access


@pytest.mark.parametrize(
    ("token", "repo", "options", "message"),
    [
        (None, REPO, (), "no token: run `hf auth login`, or set HF_TOKEN to a token with write access"),
        ("hf_alice_read", REPO, (), "the token only reads: create one with write access at"),
        ("hf_nobody", REPO, (), "the token is not valid"),
        ("hf_alice", "nobody/chex", (), "nobody/chex: you may write to alice, lab; name one of these"),
        ("hf_alice", "nobody/chex", ("--create-pr",), "nobody/chex: you may write to alice, lab; name one of these"),
        ("hf_alice", "lab/public", ("--private",), "lab/public exists and is public"),
    ],
)
def test_missing_access_is_an_error_before_conversion(
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
    stdout = "".join(capsys.readouterr())
    assert f"error: {message}" in re.sub(r"error: .* — ", "error: ", stdout)
    assert not (tmp_path / "o").exists()
    assert token is None or token not in stdout


def test_organization(publish: Any, hub: Hub) -> None:
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
def test_conflicting_arguments_are_refused(arguments: list[str], hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(FIXTURE), str(tmp_path / "o"), *arguments])
    assert ended.value.code == 2
    assert not hub.requests


# Errors


def test_damaged_file_is_repaired_before_publishing(publish: Any, output: Path, hub: Hub) -> None:
    path = files_of(output)[2]
    good = path.read_bytes()
    path.write_bytes(good[:70_000] + bytes([good[70_000] ^ 1]) + good[70_001:])
    assert publish()[0] == 0
    assert hub.files(REPO)[f"data/{path.name}"] == good


def test_retry_after_is_honoured(publish: Any, hub: Hub) -> None:
    for matching, seconds in (("whoami", 0), (r"/api/repos/create", 0), (COMMIT, 1)):
        hub.fail(matching, 429, Retry_After=seconds)
    start = time.monotonic()
    code, _, stderr = publish()
    assert code == 0
    assert time.monotonic() - start > 1
    assert re.findall(r"retrying in (\d) s", stderr) == ["0", "0", "1"]
    assert len(hub.repos[REPO].commits) == 2


@pytest.mark.parametrize(
    ("matching", "how"),
    [
        *(pytest.param(r"GET .*/tree/", how, marks=pytest.mark.slow) for how in (503, "drop")),
        pytest.param(UPLOAD, 500, marks=pytest.mark.slow),
        (UPLOAD, "cut"),
        *((COMMIT, how) for how in (500, 503, "drop", "cut")),
    ],
)
def test_transient_errors_are_retried(publish: Any, output: Path, hub: Hub, matching: str, how: Any) -> None:
    hub.create(REPO)
    hub.fail(matching, how, Retry_After=0)
    assert publish()[0] == 0
    assert set(hub.files(REPO)) == {".gitattributes", *names(output)}
    assert len(hub.repos[REPO].commits) == 2


@pytest.mark.parametrize("options", [(), ("--create-pr",)], ids=["commit", "pull request"])
def test_lost_answer_causes_no_second_commit(publish: Any, hub: Hub, options: tuple[str, ...]) -> None:
    hub.create(REPO)
    hub.fail(COMMIT, "lose")
    code, stdout, _ = publish(*options)
    assert code == 0
    assert re.search(
        rf"published: {hub.url}/datasets/{REPO}/{'discussions/1' if options else 'tree/main'}$", stdout, re.M
    )
    assert len(hub.repos[REPO].commits) == 2
    assert set(hub.repos[REPO].under("refs/pr/")) == ({"1"} if options else set())


@pytest.mark.parametrize("status", [409, 412])
def test_concurrent_commit_is_an_error_and_a_rerun_succeeds(publish: Any, hub: Hub, status: int) -> None:
    hub.create(REPO)
    if status == 412:
        hub.fail(COMMIT, lambda: hub.push(REPO, {"notes.txt": b"of another user"}))
    else:
        hub.fail(COMMIT, 409)
    code, _, stderr = publish()
    assert code == 1
    assert "the repository has changed meanwhile: run the command again" in stderr
    assert "README.md" not in hub.files(REPO)
    uploads = len(hub.asked(UPLOAD))
    assert publish()[0] == 0
    assert len(hub.asked(UPLOAD)) == uploads, "nothing is uploaded twice"
    assert {"README.md", *(["notes.txt"] if status == 412 else [])} <= set(hub.files(REPO))


@pytest.mark.parametrize(
    ("matching", "status", "message"),
    [
        (r"/preupload/", 403, "the token may not do this"),
        ("whoami", 503, "run the command again later: uploaded files are kept"),
        (COMMIT, 500, "run the command again later"),
    ],
)
def test_permanent_errors_name_cause_and_remedy(
    publish: Any, hub: Hub, matching: str, status: int, message: str
) -> None:
    hub.fail(matching, status, range(1, 100), Retry_After=0)
    code, _, stderr = publish()
    assert code == 1
    assert re.search(rf"^error: {REPO}: .*{message}", stderr, re.M)
    hub.failures.clear()
    assert publish()[0] == 0


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGKILL, signal.SIGTERM))],
)
def test_killed_upload_resumes(output: Path, hub: Hub, number: int) -> None:
    command = [sys.executable, str(ROOT / "scripts/convert_to_parquet.py"), str(FIXTURE), str(output), *OPTIONS]
    gone = threading.Event()

    def hang() -> None:
        gone.wait()
        raise ConnectionAbortedError

    hub.fail(UPLOAD, hang, range(3, 10))
    run = subprocess.Popen(
        [*command, "--push-to-hub", REPO], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while len([request for request in hub.asked(UPLOAD) if request.status == 200]) < 2:
        assert run.poll() is None
        time.sleep(0.01)
    run.send_signal(number)
    stdout, _ = run.communicate(timeout=PATIENCE)  # before `gone`: it does not finish its uploads first
    gone.set()
    assert run.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert number == signal.SIGKILL or "only missing files are uploaded" in stdout
    assert "hf_alice" not in stdout
    assert "README.md" not in hub.files(REPO)
    hub.failures.clear()
    done = {request.what for request in hub.asked(UPLOAD) if request.status == 200}
    hub.requests.clear()
    subprocess.run([*command, "--push-to-hub", REPO], check=True, capture_output=True)
    assert set(hub.files(REPO)) == {".gitattributes", *names(output)}
    again = [request.what for request in hub.asked(UPLOAD) if request.status == 200]
    assert not done & {*again}
    assert len(again) == len({*again})


def test_token_is_never_printed(output: Path, hub: Hub, tmp_path: Path) -> None:
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
