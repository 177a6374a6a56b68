"""Counts of the answers, and the page with examples."""

import contextlib
import io
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

import synthchex_75k
from conftest import FIXTURE, Source, loose, to_csv
from filter_quality import main
from labelling import PROGRAM, write_labels
from pipeline.quality.answers import QUALITIES, UNPARSED


def test_counts(tmp_path: Path, images: dict[str, bytes], capsys: pytest.CaptureFixture[str]) -> None:
    write_labels(tmp_path, dict(zip(images, ["Low Quality", UNPARSED])))
    assert main(["report", str(FIXTURE), str(tmp_path / "labels.csv")]) == 0
    output = capsys.readouterr().out
    assert re.search(r"^All images +10 \(83%\) +0 \(0%\) +1 \(8%\) +0 \(0%\) +1 \(8%\) +12$", output, re.M)
    assert len(output.splitlines()) == 2 + 1 + 14


def test_page_needs_no_other_file_and_escapes_answers(tmp_path: Path, images: dict[str, bytes]) -> None:
    path = write_labels(tmp_path, {next(iter(images)): "Low Quality"})
    path.write_bytes(path.read_bytes().replace(b",x,", b",<script>alert(1)</script> & so on,"))
    assert main(["report", str(FIXTURE), str(path), "--html", str(tmp_path / "r.html")]) == 0
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert len(page) < 5_000_000
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|@import|<script", page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; so on" in page
    assert page.count("<img ") == 12
    assert not list(tmp_path.glob(".r.html*"))


def noise_source(folder: Path, source: Source, count: int) -> Path:
    """Makes a source of images that compress badly, with long prompts, and labels.csv with long answers."""
    PIL.Image.effect_noise((512, 512), 100).convert("RGB").save(folder / "noise.png")
    names = [f"{number:03}.png" for number in range(count)]
    labels = dict.fromkeys(synthchex_75k.LABELS, "1")
    table = [{"filename": name, "prompt": "word " * 400, **labels} for name in names]
    columns = ({"filename": name, "quality": [*QUALITIES, UNPARSED][int(name[:3]) % 5]} for name in names)
    rows = [{**row, "response": "said " * 60, "model": "m", "latency_s": "1"} for row in columns]
    (folder / "labels.csv").write_bytes(to_csv(rows))
    return source(images=dict.fromkeys(names, (folder / "noise.png").read_bytes()), table=table, shape=loose)


def test_page_of_a_large_source_is_small(tmp_path: Path, source: Source) -> None:
    """At most 12 images of each quality are shown, so that the size is bounded: here 60 of 100."""
    large = noise_source(tmp_path, source, 100)
    assert main(["report", str(large), str(tmp_path / "labels.csv"), "--html", str(tmp_path / "r.html")]) == 0
    page = tmp_path / "r.html"
    assert page.stat().st_size < 5_000_000
    assert page.read_text(encoding="utf-8").count("<img ") == 5 * 12


@pytest.mark.parametrize("what", ["report", "help"])
def test_closed_pipe_prints_no_traceback(what: str, tmp_path: Path) -> None:
    arguments = ["report", str(FIXTURE), str(write_labels(tmp_path, {}))] if what == "report" else ["--help"]
    receiver, sender = os.pipe()
    os.close(receiver)
    run = subprocess.run([*PROGRAM, *arguments], stdout=sender, stderr=subprocess.PIPE, text=True)
    os.close(sender)
    assert run.stderr == ""
    assert run.returncode == 128 + signal.SIGPIPE or what == "help"  # argparse ignores the error if it sees it


@pytest.mark.parametrize("takes_long", [True, False])
def test_a_line_is_printed_if_planning_takes_long(
    takes_long: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = synthchex_75k.plan(str(FIXTURE))

    def plan(*_: Any) -> list[synthchex_75k.Row]:
        while takes_long and not printed.getvalue().endswith("\n"):
            time.sleep(0.01)
        return rows

    monkeypatch.setattr("synthchex_75k.plan", plan)
    monkeypatch.setattr("pipeline.progress.NOTICE_AFTER", 0.1 if takes_long else 300)
    labels = tmp_path / "labels.csv"
    labels.write_bytes(b"filename,quality,response,model,latency_s\n")
    # Not `capsys`: its `readouterr` can lose what another thread prints meanwhile.
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        assert main(["report", str(FIXTURE), str(labels)]) == 0
    assert printed.getvalue() == f"checking {FIXTURE} …\n" * takes_long


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--html", "no/such/r.html"], "argument --html: no/such: no such folder; create it first"),
        (["--html", "."], "argument --html: . is a folder; name a file"),
    ],
)
def test_page_that_cannot_be_written(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["report", "s", "l.csv", *options])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
