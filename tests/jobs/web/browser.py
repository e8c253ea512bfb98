"""A real Chromium without a window, for tests."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from jobs.runners import until

_CHROMIUM: Final = "/usr/bin/chromium"
_DRIVER: Final = "/usr/bin/chromedriver"

_FLAGS: Final = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server")

_KNOWS_NEGOTIATE: Final = '{"net": {"received_http_auth_negotiate_headers": true}}'
"""A new profile answers only the second request for a ticket: with the first one it finds out that it needs GSS-API."""

WIDE: Final = 1280
PHONE: Final = 360


class Chromium:
    """A browser with one page; see `chromium`."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self._driver = driver

    def go(self, url: str) -> None:
        """Load a page."""
        self._driver.get(url)

    def forget(self) -> None:
        """Be somebody new: without cookies."""
        self._driver.delete_all_cookies()

    def find(self, selector: str) -> WebElement:
        """Return the first element, which has to be there."""
        return self._driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """Return the text of an element, also where the page is just putting another one in its place."""
        while True:
            try:
                return str(self.find(selector).get_property("textContent")).strip()
            except StaleElementReferenceException:
                continue

    def fill(self, selector: str, text: str) -> None:
        """Type something into a field that may have something in it."""
        field = self.find(selector)
        field.clear()
        field.send_keys(text)

    def press(self, selector: str) -> None:
        """Press a button or follow a link, and wait for the page that it leads to."""
        before = self._page()
        self.find(selector).click()
        until(lambda: self._page() not in (None, before))

    def _page(self) -> str | None:
        """Which page it is; None while one is just being loaded."""
        with contextlib.suppress(NoSuchElementException):
            return self.find("html").id
        return None

    def run(self, script: str) -> Any:
        """Return what a script in the page returns."""
        return self._driver.execute_script(script)

    @property
    def title(self) -> str:
        """The page's title."""
        return self._driver.title

    @property
    def url(self) -> str:
        """Where the page is."""
        return self._driver.current_url

    def complaints(self) -> list[str]:
        """Return what the console has shown since the last time, violations of the page's policy above all."""
        return [str(entry["message"]) for entry in self._driver.get_log("browser")]  # type: ignore[no-untyped-call]

    def wide(self, width: int) -> None:
        """Have a screen of some width, in pixels."""
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def dark(self, wanted: bool) -> None:
        """Prefer dark colours, or light ones."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if wanted else "light"}
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def scripts(self, wanted: bool) -> None:
        """Run the scripts of pages, or do not."""
        self._driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not wanted})

    def picture(self, path: Path) -> None:
        """Write a picture of the whole page."""
        shown = self._driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(shown["data"]))


@contextmanager
def chromium(profile: Path, environment: Mapping[str, str], *flags: str) -> Iterator[Chromium]:
    """Start a browser, which ends with the block.

    Args:
        profile: a folder of its own.
        environment: the variables it has.
        flags: for its command line, beside those that it always has.
    """
    profile.mkdir(exist_ok=True)
    (profile / "Local State").write_text(_KNOWS_NEGOTIATE)
    options = webdriver.ChromeOptions()
    options.binary_location = _CHROMIUM
    for flag in (*_FLAGS, f"--user-data-dir={profile}", *flags):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(_DRIVER, env=dict(environment)))
    try:
        yield Chromium(driver)
    finally:
        driver.quit()
