"""The command line of browse_images.py, up to where Gradio starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import browse_images
from browsing import write_answers
from conftest import FIXTURE, ROOT
from pipeline.browse.app import listen
from pipeline.errors import StepError
from pipeline.rows import plan_any

PROGRAM = [sys.executable, str(ROOT / "scripts" / "browse_images.py")]


def test_a_name_on_the_hub_is_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert browse_images.address_of("USER/NAME") == "hf://datasets/USER/NAME"
    assert browse_images.address_of("hf://datasets/USER/NAME@v1") == "hf://datasets/USER/NAME@v1"
    assert browse_images.address_of("path/to/release") == "path/to/release"
    (tmp_path / "USER/NAME").mkdir(parents=True)
    assert browse_images.address_of("USER/NAME") == "USER/NAME"


def test_without_gradio_an_error_says_what_to_install(tmp_path: Path) -> None:
    blocked = "import sys; sys.modules['gradio'] = None; import runpy; sys.argv = sys.argv[1:]; "
    run = [sys.executable, "-c", blocked + "runpy.run_path(sys.argv[0], run_name='__main__')", PROGRAM[1], "nothing"]
    done = subprocess.run(run, capture_output=True, text=True, cwd=ROOT / "scripts")
    assert done.returncode == 1
    assert done.stderr == "error: browse_images.py needs the Python module gradio: pip install 'gradio>=6.31'\n"


def test_an_older_gradio_is_an_error_before_the_source_is_read(tmp_path: Path) -> None:
    (tmp_path / "gradio").mkdir()
    (tmp_path / "gradio/__init__.py").touch()
    (tmp_path / "gradio-6.9.0.dist-info").mkdir()
    (tmp_path / "gradio-6.9.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: gradio\nVersion: 6.9.0\n")
    run = [*PROGRAM, "nothing"]
    done = subprocess.run(run, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr == "error: browse_images.py needs gradio>=6.31, not 6.9.0: pip install 'gradio>=6.31'\n"


@pytest.mark.parametrize("option", ["--labels", "--results"])
def test_a_missing_file_is_an_error_before_the_source_is_read(option: str) -> None:
    with pytest.raises(SystemExit) as caught:
        browse_images.main(["nothing", option, "missing.csv"])
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("127.0.0.1", 70000),
        ("127.0.0.1", -1),
        ("256.0.0.1", 0),
        ("a" * 300, 0),
        ("192.0.2.1", 0),
        ("", 0),
    ],
)
def test_an_address_that_cannot_be_used_is_an_error(host: str, port: int) -> None:
    with pytest.raises(
        StepError, match=f"--host {host} --port {port}: .+; name another, or end what uses it"
    ) as caught:
        listen(host, port)
    assert "\n" not in str(caught.value)


def test_a_port_is_taken_once() -> None:
    with listen("127.0.0.1", 0) as first, pytest.raises(StepError, match="in use"):
        listen("127.0.0.1", first.getsockname()[1])


def test_an_ipv4_address_in_the_form_of_ipv6_is_itself() -> None:
    with listen("::ffff:127.0.0.1", 0) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"


def test_answers_of_another_source_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = plan_any(str(FIXTURE))
    path = write_answers(tmp_path / "labels.csv", ["a.png", "b.png", "c.png"])
    with pytest.raises(StepError, match="of another source: none of its 2 images is here"):
        browse_images.report_strangers("--labels", path, {*browse_images.read_answers(path)}, rows)
    browse_images.report_strangers("--labels", path, {"a.png", rows[0].filename}, rows)
    assert capsys.readouterr().out == f"{path}: 1 image of it are not in the source, and not shown\n"
