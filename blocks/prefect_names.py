"""The names of one stack's objects in Prefect. Each contains the stack's name, because stacks may share a server.

This module does not import Prefect, because that import creates a folder in the user's home directory.
"""

from dataclasses import dataclass

PRODUCT = "sluice"


@dataclass(frozen=True, slots=True)
class PrefectNames:
    """The names of one stack's objects in Prefect.

    A deployment belongs to one of Sluice's flows, and a settings block to Sluice's block type, so the stack's name is
    enough for them. Other objects share a namespace with everything else on the server, so their names also show that
    they belong to Sluice.
    """

    stack: str

    @property
    def prefix(self) -> str:
        """Return `sluice-STACK`, or just `sluice` for a stack named `sluice`."""
        return PRODUCT if self.stack == PRODUCT else f"{PRODUCT}-{self.stack}"

    @property
    def settings_block(self) -> str:
        return self.stack

    def deployment(self, flow: str) -> str:
        """Return the full name of a flow's deployment: FLOW/STACK."""
        return f"{flow}/{self.stack}"

    @property
    def credentials_block(self) -> str:
        return f"{self.prefix}-aws"

    @property
    def notify_block(self) -> str:
        """Return the name of the block that sends notifications."""
        return f"{self.prefix}-notify"

    def pool(self, kind: str) -> str:
        """Return the name of one of the stack's work pools; `kind` is `local` or `ecs`."""
        return f"{self.prefix}-{kind}"

    def has_automation(self, name: str) -> bool:
        """Return whether this is the name of one of the stack's automations: "Sluice: ... (STACK)"."""
        return name.startswith("Sluice: ") and name.endswith(f" ({self.stack})")

    def limit(self, dataset: str) -> str:
        """Return the name of a dataset's global concurrency limit. It is unique because no stack name has a colon."""
        return f"{self.prefix}:{dataset}"
