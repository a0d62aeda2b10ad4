"""A Chromium fixture for tests that check what a browser displays."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

BROWSERS = [path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Yield one browser per test module."""
    if not BROWSERS:
        pytest.skip("Chromium is not installed; run `make system-packages` as root to install it")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; run pip install -e '.[dev]'")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=BROWSERS[0], args=["--no-sandbox"])
        yield started
        started.close()
