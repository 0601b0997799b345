"""A browser without a window, for pages on this disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Browser", "browser"]

SIZE = (1280, 900)


class Browser:
    """Headless Chromium.

    :param profile: a folder of its own
    """

    def __init__(self, profile: Path) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = str(shutil.which("chromium"))
        for argument in (
            "--headless=new",
            "--no-sandbox",  # root has none
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--hide-scrollbars",
            "--force-color-profile=srgb",
            f"--user-data-dir={profile}",
            "--window-size={},{}".format(*SIZE),
            # Nothing is fetched: what tries is an error in the log.
            "--proxy-server=127.0.0.1:9",
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        # What the guard against leaks would take for the tests' own children: they end with it.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("LEAK_GUARD")}
        environment["HOME"] = str(profile)
        service = Service(str(shutil.which("chromedriver")), env=environment)
        self.driver = webdriver.Chrome(options=options, service=service)

    def close(self) -> None:
        self.driver.quit()

    def open(self, page: Path) -> None:
        self.driver.get(page.as_uri())

    def ask(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        return [one.text for one in self.driver.find_elements("css selector", selector)]

    def complaints(self) -> list[str]:
        """What the browser has said since the last time: errors, refused loads."""
        return [entry["message"] for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]

    def prefer(self, **features: str) -> None:
        """What the user prefers: ``prefer(prefers_color_scheme="dark")``."""
        media = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})

    def picture(self, path: Path, *, whole: bool = False) -> Any:
        """What is shown, as rows of pixels (red, green, blue: 0 to 255); in a file, too.

        :param whole: the page, not only the part in the window
        """
        import base64

        import numpy
        from matplotlib.image import imread

        found = self.driver.execute_cdp_cmd(
            "Page.captureScreenshot", {"captureBeyondViewport": whole}
        )
        path.write_bytes(base64.b64decode(found["data"]))
        return (numpy.asarray(imread(path))[:, :, :3] * 255).round().astype(int)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("Chromium is not installed: apt install chromium chromium-driver")
    found = Browser(tmp_path_factory.mktemp("browser"))
    yield found
    found.close()
