"""A tab of headless Chromium, for tests of the page.

Test modules import ``browser``, and skip where Chromium or its driver is missing, as
``NEEDS_CHROMIUM`` tells.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.serving import wait_until

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.common.exceptions import WebDriverException  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

__all__ = ["NEEDS_CHROMIUM", "ActionChains", "By", "Keys", "Page", "browser"]

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DRIVER = shutil.which("chromedriver")
NEEDS_CHROMIUM = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="the page is tested in Chromium, and it or its chromedriver is not installed",
)

#: Counts the images that the page holds.
COUNT_BLOBS = """
window.blobs = 0;
const {createObjectURL, revokeObjectURL} = URL;
URL.createObjectURL = (blob) => (window.blobs += 1, createObjectURL.call(URL, blob));
URL.revokeObjectURL = (url) => (window.blobs -= 1, revokeObjectURL.call(URL, url));
"""
#: Drops files on the page.
DROP = """
const files = new DataTransfer();
for (const [name, text] of arguments[0]) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  files.items.add(new File([bytes], name, {type: "image/jpeg"}));
}
for (const kind of ["dragover", "drop"]) {
  const event = new DragEvent(kind, {dataTransfer: files, bubbles: true, cancelable: true});
  document.body.dispatchEvent(event);
}
"""


@dataclass
class Page:
    """A tab of Chromium."""

    driver: Any

    def open(self, url: str) -> None:
        """Open the page in a browser that has never opened it."""
        self.driver.get("about:blank")
        self.driver.execute_cdp_cmd(
            "Storage.clearDataForOrigin", {"origin": url, "storageTypes": "all"}
        )
        self.driver.get(url)
        self.driver.execute_script("sessionStorage.clear()")
        self.errors()  # those of the test before
        self.driver.get(url)

    def __getitem__(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements(By.CSS_SELECTOR, selector))

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.all(selector)]

    def until(self, true: Callable[[], object]) -> None:
        """Wait until a condition is true, also while elements are being replaced."""

        def done() -> object:
            try:
                return true()
            except WebDriverException:
                return False

        wait_until(done, 10)

    def until_text(self, selector: str, text: str) -> None:
        self.until(lambda: text in self[selector].text)

    def press(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def resize(self, width: int, height: int) -> None:
        """Give the page another size in pixels, also a narrower one than windows have."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )

    def drop(self, *files: tuple[str, bytes]) -> None:
        self.run(DROP, [[name, base64.b64encode(data).decode()] for name, data in files])

    def errors(self) -> list[str]:
        """Errors in the console since the last call."""
        log = self.driver.get_log("browser")
        return [line["message"] for line in log if line["level"] == "SEVERE"]

    def requests(self) -> list[str]:
        """Requested addresses since the last call."""
        messages = [json.loads(line["message"]) for line in self.driver.get_log("performance")]
        return [
            message["message"]["params"]["request"]["url"]
            for message in messages
            if message["message"]["method"] == "Network.requestWillBeSent"
        ]


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    arguments = ["--headless=new", "--disable-gpu", "--window-size=1024,768"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # Chromium needs this for root
    for argument in (*arguments, "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": COUNT_BLOBS})
        yield Page(driver)
    finally:
        driver.quit()
