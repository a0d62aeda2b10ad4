"""Chromium, for tests that compare with what it shows."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

BROWSERS = [path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser of its own for a file of tests."""
    if not BROWSERS:
        pytest.skip("there is no Chromium; `make system-packages` as root installs it")
    api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is missing; pip install -e '.[dev]' installs it"
    )
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=BROWSERS[0], args=["--no-sandbox"])
        yield started
        started.close()
