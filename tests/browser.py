"""Chromium without a window, in which tests and the screenshots of the README open pages."""

from __future__ import annotations

import base64
import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


class Browser:
    """A window that pages are opened in."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open a file in a window of this size, in points; narrow ones are phones."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get("about:blank")
        for log in ("browser", "performance"):
            self.driver.get_log(log)  # of earlier pages
        self.driver.get(page.absolute().as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a function's body in the page and give what it returns."""
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[Any]:
        """Give the elements that a selector finds."""
        return list(self.driver.find_elements("css selector", selector))

    def shown(self, selector: str) -> list[Any]:
        """Give those that can be seen."""
        return [element for element in self.all(selector) if element.is_displayed()]

    def errors(self) -> list[str]:
        """Give what the page has written to the console since it was opened, or since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Give the addresses that were asked for, but for the page itself and what it holds."""
        entries = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [each["params"]["request"]["url"] for each in entries if each["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith(("data:", "file:"))]

    def screenshot(self, top: float, height: float) -> bytes:
        """Give a part of the page as PNG, in points from its top."""
        width = self.run("return document.documentElement.clientWidth")
        clip = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
        taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        return base64.b64decode(taken["data"])


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium with a profile of its own. Raises `FileNotFoundError` where it is not installed."""
    from selenium import webdriver

    paths = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    missing = [name for name, path in paths.items() if path is None]
    if missing:
        raise FileNotFoundError(f"{' and '.join(missing)}: not installed; on Debian: chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = paths["chromium"] or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(prefix="qgate-chromium-", ignore_cleanup_errors=True) as profile:
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        service = webdriver.ChromeService(executable_path=paths["chromedriver"])
        driver = webdriver.Chrome(options=options, service=service)
        try:
            yield Browser(driver)
        finally:
            driver.quit()


@contextmanager
def chromium_or_skip() -> Iterator[Browser]:
    """Start it; where it is not installed, the tests are skipped, and in CI they fail."""
    try:
        with chromium() as browser:
            yield browser
    except FileNotFoundError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
