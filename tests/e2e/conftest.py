"""What tests in a real browser share."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

QUIET = ("--no-sandbox", "--disable-background-networking", "--disable-component-update", "--no-first-run")
"""Flags of a browser that runs as root and looks for nothing outside."""
NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def open_browser(*flags: str) -> Iterator[Browser]:
    """Open a headless Chromium, with further flags; without one the test says so and is skipped."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium is here: `make browser` installs Debian's, where it may")
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=found, args=[*QUIET, *flags])
        yield opened
        opened.close()
