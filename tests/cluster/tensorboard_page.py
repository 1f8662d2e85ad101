"""TensorBoard as slurm/tensorboard.sh serves it, and its page in a headless Chromium."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from local_slurm import LocalSlurm
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from site_files import write_site

needs_browser = pytest.mark.skipif(
    shutil.which("chromium") is None or shutil.which("chromedriver") is None,
    reason="chromium and chromedriver (on Debian chromium-driver) are not installed",
)

# What is in shadow roots, as TensorBoard's older dashboards are, is not in the text of the document.
_SHOWN_TEXT = """
const parts = [];
const visit = (node) => {
    if (node.nodeType === Node.TEXT_NODE) parts.push(node.textContent.trim());
    if (node.nodeName === 'STYLE' || node.nodeName === 'SCRIPT') return;
    if (node.nodeType === Node.ELEMENT_NODE && !node.checkVisibility()) return;
    if (node.shadowRoot) visit(node.shadowRoot);
    for (const child of node.assignedNodes ? node.assignedNodes() : []) visit(child);
    for (const child of node.childNodes) visit(child);
};
visit(document.documentElement);
return parts.filter((part) => part).join('\\n');
"""


@contextmanager
def served(cluster: LocalSlurm, folder: Path, runs: Path) -> Iterator[int]:
    """The port that the tunnel leads to, while slurm/tensorboard.sh serves `runs`."""
    site = write_site(folder, "LOGIN_NODE=login.example.org")
    job = cluster.sbatch("slurm/tensorboard.sh", "--output", folder / "log", site=site, arguments=(runs,))
    try:
        job.wait_until(lambda: "ssh -N" in job.log(), 120)
        tunnel = re.search(
            r"ssh -N -J \S+@login\.example\.org -L 6006:127\.0\.0\.1:(\d+) \S+@(\S+)$", job.log(), re.M
        )
        assert tunnel is not None, job.log()
        assert tunnel[2] == job.shown()["NodeList"]
        yield int(tunnel[1])
    finally:
        job.cancel()
        job.wait_for("CANCELLED")


class TensorBoardPage:
    """One browser on one TensorBoard."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self._driver, self._url = driver, url

    def show(self, dashboard: str, *expected: str, seconds: float = 60) -> str:
        """Open a dashboard, such as "text" or "scalars&tagFilter=train"; its text with all expected."""
        self._driver.get(f"{self._url}#{dashboard}")
        self._driver.refresh()  # a change after the # alone loads nothing
        end = time.monotonic() + seconds
        while missing := [word for word in expected if word not in self.text()]:
            if time.monotonic() > end:
                raise TimeoutError(f"{missing} not on the page within {seconds} s:\n{self.text()}")
            time.sleep(0.2)
        return self.text()

    def text(self) -> str:
        """All text that is shown."""
        return str(self._driver.execute_script(_SHOWN_TEXT))

    def save_picture(self, path: Path) -> None:
        """What is shown, as a PNG file."""
        self._driver.save_screenshot(str(path))


@contextmanager
def browser_on(url: str, width: int = 1400, height: int = 1000) -> Iterator[TensorBoardPage]:
    """A page of so many pixels on the TensorBoard at `url`."""
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},{height}"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    try:
        yield TensorBoardPage(driver, url)
    finally:
        driver.quit()
