"""Page object for Prefect's UI, which opens pages by their purpose and finds elements by their labels."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page, expect

_APPEARS_MS = 60_000
_ENTRY = ".state-list-item"


class ControlRoom:
    """The UI of a Prefect server, shown in a browser page."""

    def __init__(self, page: Page, ui_url: str) -> None:
        self.page = page
        self._ui_url = ui_url

    def open_runs(self, state: str | None = None) -> None:
        """Go to the list of flow runs, or of those in `state`, which is a state's name in the page's filter."""
        self.page.goto(f"{self._ui_url}/runs" + (f"?state={state}" if state else ""))
        expect(self.page.locator(_ENTRY).first).to_be_visible(timeout=_APPEARS_MS)

    def listed(self, name: str) -> Locator:
        """Return the entry for the run whose name contains `name` in the list of flow runs."""
        return self.page.locator(_ENTRY, has_text=name).first

    def open_run(self, name: str) -> None:
        """Go to the page of the flow run whose name contains `name`."""
        self.open_runs()
        self.listed(name).get_by_role("link", name=re.compile(re.escape(name))).first.click()
        self.wait_for_text("Task Runs")

    def open_run_of_id(self, flow_run_id: str) -> None:
        """Go to the page of the flow run with this ID."""
        self.page.goto(f"{self._ui_url}/runs/flow-run/{flow_run_id}")
        self.wait_for_text("Task Runs")

    def open_custom_run(self, deployment_id: str) -> None:
        """Go to the form that starts a custom run of a deployment, where its parameters can be set."""
        self.page.goto(f"{self._ui_url}/deployments/deployment/{deployment_id}/run")
        self.wait_for_text("Validate parameters")

    def open_artifact(self, kind: str) -> None:
        """Go from the page of a flow run to the run's artifact whose key begins with `kind` and a hyphen."""
        self.page.get_by_text("Artifacts", exact=True).last.click()
        self.page.locator("a[href*='/artifacts/artifact/']", has_text=f"{kind}-").first.click()
        self.page.wait_for_url("**/artifacts/artifact/**")

    def open_block(self, name: str) -> None:
        """Go to the list of blocks, and from there to the page of the block named `name`."""
        self.page.goto(f"{self._ui_url}/blocks")
        self.page.get_by_role("link", name=name, exact=True).click()
        self.page.wait_for_url("**/blocks/block/**")

    def open_automations(self) -> None:
        """Go to the list of automations."""
        self.page.goto(f"{self._ui_url}/automations")
        self.wait_for_text("Automations")

    def open_history(self, artifact_key: str) -> None:
        """Go to the page that lists every artifact with this key."""
        self.page.goto(f"{self._ui_url}/artifacts/key/{artifact_key}")
        self.wait_for_text(artifact_key)

    def field(self, name: str) -> Locator:
        """Return the text field of a parameter in the form for a custom run."""
        return self._parameter(name).locator("textarea")

    def switch(self, name: str) -> Locator:
        """Return the switch of a boolean parameter in the form for a custom run."""
        return self._parameter(name).locator(".p-toggle__control")

    def _parameter(self, name: str) -> Locator:
        label = self.page.get_by_text(re.compile(rf"^\s*{name}( \(Optional\))?\s*$"))
        return self.page.locator(".schema-form-property").filter(has=label).last

    def submit(self) -> None:
        """Press the form's Submit button."""
        self.page.get_by_role("button", name="Submit").click()

    def retry(self) -> None:
        """Press Retry on the page of a flow run, and confirm it."""
        self.page.get_by_role("button", name="Retry").first.click()
        self.page.locator(".p-modal__footer").get_by_role("button", name="Retry").click()

    def state(self) -> Locator:
        """Return the state badge on the page of a flow run."""
        return self.page.locator(".state-badge").first

    def wait_for_text(self, text: str) -> None:
        """Wait until the page shows `text`."""
        expect(self.page.get_by_text(text).first).to_be_visible(timeout=_APPEARS_MS)

    def wait_for_log(self, text: str) -> None:
        """Wait until the log on the page of a flow run shows `text`."""
        expect(self.page.locator(".log-row", has_text=text).first).to_be_visible(timeout=_APPEARS_MS)
