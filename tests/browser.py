"""Debian's chromium looks at a page, as on a phone."""

from __future__ import annotations

import html
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
GROUND = {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}
INK = {"light": "rgb(27, 31, 36)", "dark": "rgb(230, 237, 243)"}
PROBE = """<script>
const errors = [];
addEventListener("error", event => errors.push(event.message), true);
addEventListener("load", () => {
  const style = getComputedStyle(document.body), images = [...document.images];
  document.title = JSON.stringify({
    images: [images.filter(image => image.naturalWidth > 0).length, images.length],
    wide: document.documentElement.scrollWidth,
    window: innerWidth,
    ground: style.backgroundColor,
    ink: style.color,
    errors,
    MORE
  });
});
</script>"""


def find_browser() -> str:
    """Returns the path of the browser; without one the test fails."""
    found = [path for path in map(shutil.which, BROWSERS) if path]
    if not found:
        pytest.fail("chromium not found: apt-get install chromium", pytrace=False)
    return found[0]


def look(browser: str, page: Path, folder: Path, scheme: str, more: str = "") -> dict[str, Any]:
    """Opens a page on 390 x 844 pixels, and checks its colours, its width and that it has no errors.

    Args:
        browser: From `find_browser`.
        page: The page; a copy with a script is opened.
        folder: For the copy and the browser's profile.
        scheme: `"light"` or `"dark"`.
        more: Properties of a JavaScript object: what else to look at.

    Returns:
        What was seen, `images` (how many are decoded, how many there are) among it.
    """
    probed = folder / "probed.html"
    probed.write_text(page.read_text(encoding="utf-8") + PROBE.replace("MORE", more), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    size = [
        f"--user-data-dir={folder / 'profile'}",
        "--window-size=390,844",
        "--dump-dom",
        "--virtual-time-budget=2000",
    ]
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    run = subprocess.run(
        [*command, *quiet, *size, *dark, probed.as_uri()], capture_output=True, text=True, check=True, env=os.environ
    )
    seen: dict[str, Any] = json.loads(html.unescape(run.stdout.partition("<title>")[2].partition("</title>")[0]))
    assert seen["errors"] == []
    assert seen["wide"] <= seen["window"], "the page itself does not scroll sideways"
    assert (seen["ground"], seen["ink"]) == (GROUND[scheme], INK[scheme])
    return seen
