"""Takes the pictures of the HTML report in `docs/images`: the bundled example's last run, in Chromium.

Run `make gate`, then `.venv/bin/python docs/screenshots/html_report.py` in the repository's root. It wants the extra
`dev`, and Debian's `chromium` and `chromium-driver`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from qgate.cli import main

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from browser import chromium  # noqa: E402  # the tests' own

if TYPE_CHECKING:
    from browser import Browser

IMAGES = ROOT / "docs" / "images"
WIDTH = 1180
HEIGHT = 1180
QUALITY = 82


def take(browser: Browser, page: Path) -> None:
    """Take the top of the page in light colours, and the pictures with their controls in dark ones."""
    browser.open(page, width=WIDTH)
    save(browser.screenshot(0, HEIGHT), "html.webp")
    browser.open(page, width=WIDTH, dark=True)
    top = browser.run("return document.querySelector('.gallery').getBoundingClientRect().top + scrollY")
    save(browser.screenshot(top, HEIGHT), "html-images.webp")


def save(png: bytes, name: str) -> None:
    """Save a picture smaller than PNG has it."""
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    content = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])[1].tobytes()
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / name).write_bytes(content)
    print(f"{name}: {len(content)} bytes")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        page = Path(folder) / "report.html"
        code = main(["report", "--config", str(ROOT / "qgate.toml"), "--format", "html", "-o", str(page)])
        if code == 0:
            take(browser, page)
        sys.exit(code)
