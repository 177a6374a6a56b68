"""The page in Debian's chromium, driven by Playwright: clicks, keys, addresses, both themes, a phone."""

from __future__ import annotations

import asyncio
import csv
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from browser import find_browser
from browsing import HOSTILE, MARKUP, PATIENT, hostile_name, hostile_source, write_answers, write_lists
from conftest import FIXTURE, ROOT, convert, to_csv, to_zip
from pipeline.browse.app import make_app
from pipeline.browse.filters import MAX_TEXT, Filter, to_query
from pipeline.browse.gallery import Gallery
from pipeline.browse.index import Index
from pipeline.rows import plan_any
from processes import PATIENCE
from synthchex_75k import LABELS

pytestmark = pytest.mark.slow
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
LUMINANCE = """() => {
  const [red, green, blue] = getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g).map(Number);
  return (red + green + blue) / 765;
}"""

WATCHED = """
import runpy, sys
sys.addaudithook(lambda event, found: print("connects to", found[1]) if event == "socket.connect" else None)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

get, post = partial(httpx.get, timeout=PATIENCE), partial(httpx.post, timeout=PATIENCE)
Open = Callable[..., Page]


class Served:
    """A running browse_images.py, which prints a line if it connects to anything.

    Args:
        arguments: Of the command line.
        variables: Of the environment.
    """

    def __init__(self, arguments: list[str], variables: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-c", WATCHED, str(ROOT / "scripts" / "browse_images.py"), *arguments]
        environment = {**os.environ, **(variables or {}), "PYTHONPATH": str(ROOT / "scripts"), "PYTHONUNBUFFERED": ""}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        self.output = ""
        assert self.process.stdout
        for line in self.process.stdout:
            self.output += line
            if found := re.search(r"http://\S+/", line):
                self.url = found[0]
                return
        pytest.fail(self.output)

    def end(self) -> str:
        """Ends the program as a service manager does; returns what it printed."""
        self.process.terminate()
        output = self.output + self.process.communicate(timeout=PATIENCE)[0]
        assert self.process.returncode == 143, output
        assert "Traceback" not in output and "connects to" not in output, output
        return output


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        expect.set_options(timeout=1000 * PATIENCE)
        launched = driver.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, images: dict[str, bytes]) -> Iterator[Served]:
    """A source in which every text holds markup, with answers and an evaluation."""
    with open(FIXTURE / "metadata.csv", newline="", encoding="utf-8") as file:
        table = [*csv.DictReader(file)]
    folder = tmp_path_factory.mktemp("browse")
    source = folder / "source"
    names = hostile_source(source, images, table)
    answers = write_answers(folder / "labels.csv", names)
    results = write_lists(folder / "results.json", source)
    options = ["--labels", answers, "--results", results, "--real", source, "--patient-column", "patientID"]
    program = Served([str(source), *map(str, options), "--port", "0"])
    yield program
    program.end()


@pytest.fixture
def open_page(browser: Browser, served: Served) -> Iterator[Open]:
    """Opens the page; at the end it checks that nothing ran, failed or was asked of another server."""
    contexts: list[Any] = []
    pages: list[Page] = []
    problems: list[str] = []

    def refuse(dialog: Any) -> None:
        problems.append(dialog.message)
        dialog.dismiss()

    def opened(query: str = "", scheme: Any = "light", size: Any = DESKTOP) -> Page:
        context = browser.new_context(color_scheme=scheme, viewport=size, accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        pages.append(page)
        own = ("data:", "blob:", served.url)
        page.on("request", lambda request: None if request.url.startswith(own) else problems.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("dialog", refuse)
        page.goto(f"{served.url}?{query}" if query else served.url)
        expect(page.locator(".tiles")).to_be_attached()
        return page

    yield opened
    assert problems == []
    for page in pages:
        assert page.title() != "run", "markup has run"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
    for context in contexts:
        context.close()


def shown(page: Page) -> list[int]:
    """Returns the rows whose images are shown."""
    return [int(button.get_attribute("data-open") or "") for button in page.locator(".tiles button").all()]


def expect_query(page: Page, wanted: list[tuple[str, str]]) -> None:
    """Waits until the address has a query."""
    for _ in range(10 * PATIENCE):
        found = urllib.parse.parse_qsl(urllib.parse.urlsplit(page.url).query)
        if found == wanted:
            return
        page.wait_for_timeout(100)
    assert found == wanted


def choose(page: Page, control: str, text: str) -> None:
    """Chooses from a list: clicks it, types, and clicks the only option that is left."""
    box = page.locator(f"#{control} input")
    box.click()
    box.fill(text)
    option = page.get_by_role("option")
    expect(option).to_have_count(1)
    option.click()
    page.locator("h1").click()  # elsewhere: the list closes
    expect(option).to_have_count(0)


def test_clicks_on_labels(open_page: Open, table: list[dict[str, str]]) -> None:
    page = open_page()
    assert shown(page) == [*range(12)]
    choose(page, "labels", "Edema: positive")
    edema = [number for number, row in enumerate(table) if row["Edema"] in ("1", "1.0")]
    expect(page.locator(".tiles button")).to_have_count(len(edema))
    assert shown(page) == edema
    expect(page.locator(".status")).to_contain_text(f"{len(edema)} of 12 images")
    expect(page.locator("#counts tr", has_text="Edema").locator("td").first).to_have_text(str(len(edema)))
    choose(page, "labels", "Pneumonia: uncertain")
    expect(page.locator(".tiles button")).to_have_count(0)
    page.locator("#match").get_by_text("any").click()
    expect(page.locator(".tiles button")).to_have_count(len(edema) + 1)
    wanted = [("label", "Edema:positive"), ("label", "Pneumonia:uncertain"), ("match", "any")]
    expect_query(page, wanted)
    other = open_page(urllib.parse.urlsplit(page.url).query)
    expect(other.locator(".tiles button")).to_have_count(len(edema) + 1)
    assert shown(other) == shown(page)
    expect(other.locator("#labels")).to_contain_text("Edema: positive")
    other.locator("#clear").click()
    expect(other.locator(".tiles button")).to_have_count(12)
    expect(other.locator("#labels")).not_to_contain_text("Edema: positive")
    expect_query(other, [])


def test_words_and_back(open_page: Open, table: list[dict[str, str]]) -> None:
    page = open_page()
    page.locator("#words textarea, #words input").fill("PACEMAKER")
    page.keyboard.press("Enter")
    expect(page.locator(".tiles button")).to_have_count(1)
    expect_query(page, [("words", "PACEMAKER")])
    with page.expect_download() as download:
        page.locator(".status a").click()
    name = next(row["filename"] for row in table if "Pacemaker" in row["prompt"])
    assert download.value.path().read_text(encoding="utf-8").splitlines() == ["filename", hostile_name(name)]
    page.go_back()
    expect(page.locator(".tiles button")).to_have_count(12)


def test_a_long_text_finds_in_the_csv_and_the_address_what_the_page_shows(
    open_page: Open, table: list[dict[str, str]]
) -> None:
    page = open_page()
    count = sum("pneumonia" in row["prompt"].lower() for row in table)
    page.locator("#words textarea, #words input").fill("pneumonia " * 300)  # as a script can, past the box's own bound
    page.keyboard.press("Enter")
    expect(page.locator(".tiles button")).to_have_count(count)
    with page.expect_download() as download:
        page.locator(".status a").click()
    assert len(download.value.path().read_text(encoding="utf-8").splitlines()) == count + 1
    page.reload()
    expect(page.locator(".tiles button")).to_have_count(count)
    box = page.locator("#words textarea, #words input")
    expect(box).to_have_attribute("maxlength", "1000")
    expect(box).to_have_value(("pneumonia " * 100).strip())


def test_words_typed_while_an_answer_is_awaited_are_not_lost(open_page: Open) -> None:
    page = open_page()
    held: list[Any] = []
    page.route("**/run/predict", lambda route: route.continue_() if held else held.append(route))
    words = page.locator("#words textarea, #words input")
    words.fill("pneumonia")
    page.keyboard.press("Enter")
    words.fill("PACEMAKER")
    page.keyboard.press("Enter")
    while not held:
        page.wait_for_timeout(50)
    held[0].continue_()
    expect_query(page, [("words", "PACEMAKER")])
    expect(page.locator(".tiles button")).to_have_count(1)


def test_an_image_large(open_page: Open, images: dict[str, bytes]) -> None:
    page = open_page()
    page.locator(".tiles button").nth(0).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    for text in (HOSTILE, f"judge {MARKUP}", "High Quality", PATIENT, "Closest training image", "1 of 12"):
        expect(dialog).to_contain_text(text)
    assert dialog.locator(".large img").evaluate("image => image.naturalWidth") == 512
    expect_query(page, [("image", hostile_name(next(iter(images))))])
    page.keyboard.press("ArrowRight")
    expect(dialog).to_contain_text("2 of 12")
    other = open_page(urllib.parse.urlsplit(page.url).query)
    expect(other.get_by_role("dialog")).to_contain_text("2 of 12")
    dialog.get_by_role("button", name="Previous").click()
    expect(dialog).to_contain_text("1 of 12")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect_query(page, [])


def test_the_keyboard_alone(open_page: Open) -> None:
    page = open_page()
    page.locator(".tiles button").nth(3).focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("4 of 12")
    expect(dialog).to_be_focused()
    for _ in range(5):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('.dialog') !== null"), "the focus stays in the dialog"
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert page.evaluate("document.activeElement.dataset.open") == "3", "the focus goes back to the tile"


def test_qualities_patients_and_orders(open_page: Open) -> None:
    page = open_page()
    choose(page, "qualities", "no answer")
    expect(page.locator(".tiles button")).to_have_count(1)
    page.locator("#clear").click()
    expect(page.locator(".tiles button")).to_have_count(12)
    page.locator("#patient textarea, #patient input").fill(PATIENT)
    page.keyboard.press("Enter")
    expect(page.locator(".tiles button")).to_have_count(4)
    page.locator("#clear").click()
    expect(page.locator(".tiles button")).to_have_count(12)
    page.locator("#sort input").click()
    page.get_by_role("option", name="least like any real image (rad-dino)").click()
    expect(page.locator(".tiles button").first).to_contain_text("12.5")
    assert shown(page) == [*reversed(range(12))]


def test_a_damaged_image_and_markup_are_shown(open_page: Open) -> None:
    page = open_page()
    assert page.locator(".tiles img").count() == 11
    expect(page.locator(".tiles .damaged")).to_contain_text("Damaged image")
    assert page.locator(".tiles button").first.locator(".prompt").inner_text().endswith(HOSTILE)
    page.locator(".tiles .damaged").click()
    expect(page.get_by_role("dialog")).to_contain_text("Pillow cannot decode the image")
    odd = open_page(urllib.parse.urlencode({"sort": MARKUP, "image": MARKUP, "label": MARKUP, MARKUP: "1"}))
    expect(odd.locator("[role=alert]")).to_have_count(4)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_themes_and_sizes(open_page: Open, scheme: str, size: dict[str, int]) -> None:
    page = open_page("image=", scheme, size)
    light = page.evaluate(LUMINANCE)
    assert light > 0.9 if scheme == "light" else light < 0.2
    first = page.locator(".tiles img").first
    box = first.bounding_box()
    assert box and box["y"] + 50 < size["height"], "an image is on the first screen"
    assert first.evaluate("image => image.naturalWidth") == 224
    wide = page.evaluate(
        """() => [...document.querySelectorAll(".gradio-container *")].filter(element => {
          const box = element.getBoundingClientRect();
          return box.height && box.right > innerWidth + 1 && !element.closest(".scroll, .sr-only");
        }).map(element => element.outerHTML.slice(0, 80))"""
    )
    assert wide == []
    if size is PHONE:
        page.locator("#filter > button").click()
    page.locator("#words textarea, #words input").fill("pneumonia")
    page.keyboard.press("Enter")
    expect(page.locator(".tiles button")).to_have_count(1)
    page.locator(".tiles button").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert page.get_by_role("dialog").evaluate("dialog => dialog.scrollWidth <= innerWidth")


def test_pages_of_a_converted_folder(browser: Browser, tmp_path: Path, images: dict[str, bytes]) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    png = next(iter(images.values()))
    many = {f"{number:03}.png": png for number in range(100)}
    to_zip(folder / "a.zip", many)
    labels = dict.fromkeys(LABELS, "1")
    rows = [{"filename": name, "prompt": f"Number {name}", **labels} for name in many]
    (folder / "m.csv").write_bytes(to_csv(rows))
    (folder / "dataset.json").write_text('{"name": "A", "authors": ["B"], "license": "mit"}', encoding="utf-8")
    assert convert(folder, tmp_path / "parquet") == 0
    program = Served([str(tmp_path / "parquet"), "--port", "0"])
    page = browser.new_page()
    page.goto(program.url)
    expect(page.locator(".tiles button")).to_have_count(48)
    expect(page.locator("#before")).to_be_disabled()
    page.locator("#after-below").click()
    expect(page.locator(".tiles button").first).to_contain_text("Number 048")
    expect_query(page, [("page", "2")])
    page.locator("#page input").fill("3")
    page.keyboard.press("Enter")
    expect(page.locator(".tiles button")).to_have_count(4)
    expect(page.locator("#after")).to_be_disabled()
    page.locator(".tiles button").first.click()
    expect(page.get_by_role("dialog")).to_contain_text("97 of 100")
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("dialog")).to_contain_text("96 of 100")
    expect_query(page, [("page", "2"), ("image", "095.png")])
    page.close()
    program.end()


def test_other_hosts_and_uploads_are_refused(served: Served) -> None:
    assert get(served.url).status_code == 200
    assert get(served.url, headers={"Host": "evil.example"}).status_code == 400
    policy = get(served.url).headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    page = get(served.url).text
    assert "fonts.googleapis.com" not in page and "cdnjs" not in page
    sent = post(f"{served.url}gradio_api/upload", files={"files": ("a.txt", b"x" * 1000)})
    assert sent.status_code == 404
    assert get(f"{served.url}gradio_api/openapi.json").status_code == 404


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_only_its_own_names_are_answered_on_the_loopback(address: str) -> None:
    app = make_app(Gallery(Index(plan_any(str(FIXTURE)))), "Images", (address, 7860))
    own = f"[{address}]" if ":" in address else address

    async def codes() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            hosts = [f"{own}:7860", "localhost:7860", "evil.example", "192.0.2.1:7860"]
            return [(await client.get("http://host/", headers={"Host": host})).status_code for host in hosts]

    with ThreadPoolExecutor() as pool:  # Playwright has a loop in this thread
        assert pool.submit(asyncio.run, codes()).result() == [200, 200, 400, 400]


def test_the_longest_address_is_answered_in_pieces_too(served: Served) -> None:
    long = "é" * MAX_TEXT
    query = to_query(Filter(words=long, patient=long, name=long))
    host = urllib.parse.urlsplit(served.url).netloc
    request = f"GET /files.csv?{query} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    with socket.create_connection((urllib.parse.urlsplit(served.url).hostname or "", int(host.split(":")[1]))) as sent:
        for start in range(0, len(request), 1400):  # as over a network
            sent.sendall(request[start : start + 1400])
            time.sleep(0.02)
        assert sent.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"


def test_no_event_reads_a_file_of_the_machine(tmp_path: Path) -> None:
    """Gradio takes a value that names a file for an upload, and copies the file to where it serves files from."""
    secret, cache = tmp_path / "secret.txt", tmp_path / "cache"
    secret.write_text("secret", encoding="utf-8")
    program = Served([str(FIXTURE), "--port", "0"], {"GRADIO_TEMP_DIR": str(cache)})
    file = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    for value in (file, [file], {"value": file}):
        event = {"data": [value], "fn_index": 0, "event_data": None, "session_hash": "a", "trigger_id": 0}
        assert post(f"{program.url}gradio_api/run/predict", json=event).status_code == 400
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    program.end()


def test_malformed_events_are_errors_and_the_next_one_is_answered() -> None:
    program = Served([str(FIXTURE), "--port", "0"])
    event = {"data": [""], "fn_index": 0, "event_data": None, "session_hash": "a", "trigger_id": 0}
    wrong: list[dict[str, Any]] = [{"data": []}, {"fn_index": 99}, {"fn_index": "x"}, {"session_hash": []}]
    for change in wrong:
        assert post(f"{program.url}gradio_api/run/predict", json={**event, **change}).status_code >= 400
    answered = post(f"{program.url}gradio_api/run/predict", json=event)
    assert answered.status_code == 200 and "12 images" in answered.text
    program.process.terminate()
    assert "Traceback" in program.process.communicate(timeout=PATIENCE)[0], "what Gradio prints of each"
    assert program.process.returncode == 143


def test_responses_do_not_wait_for_each_other(served: Served) -> None:
    """Without TCP_NODELAY a response of two packets waits for the ACK of the first, which may take 40 ms."""
    with httpx.Client(timeout=PATIENCE) as client:
        address = served.url + re.findall(r"assets/[^\"]+\.js", client.get(served.url).text)[0]
        assert "immutable" in client.get(address).headers["cache-control"]
        seconds = (client.get(address).elapsed.total_seconds() for _ in range(400))
        assert any(one < 0.03 for one in itertools.islice(seconds, 20, None))  # on a busy machine, not each


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_although_connections_are_open(sent: signal.Signals, code: int) -> None:
    program = Served([str(FIXTURE), "--port", "0"])
    with (
        httpx.Client(timeout=PATIENCE) as client,
        socket.create_connection(("127.0.0.1", urllib.parse.urlsplit(program.url).port or 0)) as half,
    ):
        client.get(program.url)
        half.sendall(b"POST /gradio_api/run/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        time.sleep(0.2)
        program.process.send_signal(sent)
        output = program.process.communicate(timeout=PATIENCE)[0]  # before the connections are closed
    assert program.process.returncode == code
    assert "Traceback" not in output


def test_arguments_of_a_space() -> None:
    program = Served([], {"BROWSE_ARGUMENTS": f"'{FIXTURE}' --port 0 --host 0.0.0.0", "SPACE_ID": "alice/chex"})
    address = program.url.replace("0.0.0.0", "127.0.0.1")
    assert get(address, headers={"Host": "alice-chex.hf.space"}).status_code == 200
    assert len(get(f"{address}files.csv").text.splitlines()) == 13
    program.end()


def test_a_port_in_use_is_an_error(served: Served) -> None:
    port = urllib.parse.urlsplit(served.url).port
    command = [sys.executable, str(ROOT / "scripts" / "browse_images.py"), str(FIXTURE), "--port", str(port)]
    run = subprocess.run([*command[:2], "nothing", *command[3:]], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith(f"error: --host 127.0.0.1 --port {port}: "), "before the source is read"
    assert run.stderr.count("\n") == 1
