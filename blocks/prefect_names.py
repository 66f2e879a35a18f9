"""The names of one stack's objects in Prefect. Each contains the stack's name, as several stacks may share a server.

This module does not import Prefect, whose import creates a folder in the user's home.
"""

from dataclasses import dataclass

PRODUCT = "sluice"


@dataclass(frozen=True, slots=True)
class PrefectNames:
    """The names of one stack's objects.

    Only Sluice names flows, their runs and the type of the settings block, so the stack's name is enough there. Other
    names share their space with everything else on the server, so they begin with `prefix`.
    """

    stack: str

    @property
    def prefix(self) -> str:
        """Return `sluice-STACK`, or `sluice` for the stack of that name."""
        return PRODUCT if self.stack == PRODUCT else f"{PRODUCT}-{self.stack}"

    @property
    def settings_block(self) -> str:
        return self.stack

    def deployment(self, flow: str) -> str:
        """Return FLOW/DEPLOYMENT."""
        return f"{flow}/{self.stack}"

    @property
    def credentials_block(self) -> str:
        return f"{self.prefix}-aws"

    @property
    def notify_block(self) -> str:
        """Return the name of the block that notifications are sent with."""
        return f"{self.prefix}-notify"

    def pool(self, kind: str) -> str:
        """Return the name of a work pool; its kind is `local` or `ecs`."""
        return f"{self.prefix}-{kind}"

    def has_automation(self, name: str) -> bool:
        """Return whether this is the name of one of the stack's automations, which all end in its name."""
        return name.startswith("Sluice: ") and name.endswith(f" ({self.stack})")

    def limit(self, dataset: str) -> str:
        """Return the name of a dataset's global concurrency limit; no stack's name holds a colon."""
        return f"{self.prefix}:{dataset}"
