"""Prefect's UI as a person uses it: pages by what they are for, things by what they are called there."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page, expect

_APPEARS_MS = 60_000
_ENTRY = ".state-list-item"


class ControlRoom:
    """The UI of a Prefect server in a browser's page."""

    def __init__(self, page: Page, ui_url: str) -> None:
        self.page = page
        self._ui_url = ui_url

    def open_runs(self) -> None:
        """Go to the list of flow runs."""
        self.page.goto(f"{self._ui_url}/runs")
        expect(self.page.locator(_ENTRY).first).to_be_visible(timeout=_APPEARS_MS)

    def listed(self, name: str) -> Locator:
        """The entry of the list whose run's name has `name` in it."""
        return self.page.locator(_ENTRY, has_text=name).first

    def open_run(self, name: str) -> None:
        """Go to the run whose name has `name` in it."""
        self.open_runs()
        self.listed(name).get_by_role("link", name=re.compile(re.escape(name))).first.click()
        expect(self.page.get_by_text("Task Runs", exact=True).first).to_be_visible(timeout=_APPEARS_MS)

    def wait_for_log(self, text: str) -> None:
        """Wait until the run's log says `text`."""
        expect(self.page.locator(".log-row", has_text=text).first).to_be_visible(timeout=_APPEARS_MS)
