"""Runs the machine's Chromium with Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, sync_playwright

WIDTH, HEIGHT = 1440, 900
ACTION_SECONDS = 30  # generous, because the machine may be busy; an action takes only as long as it needs

# Chromium runs as the user who runs the tests (root in a container), and connects only to the loopback address.
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


def chromium() -> str | None:
    """Return the path of Chromium on this machine, or None if it is not installed."""
    return os.environ.get("SLUICE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def browser() -> Iterator[Browser]:
    """Run a headless Chromium for the duration of the context.

    Raises:
        FileNotFoundError: Chromium is not installed; the message explains how to install it.
    """
    path = chromium()
    if path is None:
        raise FileNotFoundError("no Chromium: apt-get install chromium, or set SLUICE_CHROMIUM to one")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, headless=True, args=_FLAGS)
        try:
            yield running
        finally:
            running.close()


def new_page(running: Browser) -> Page:
    """Open a page whose viewport has the size of the screenshots."""
    context = running.new_context(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light", locale="en-GB")
    page = context.new_page()
    page.set_default_timeout(ACTION_SECONDS * 1000)
    return page
