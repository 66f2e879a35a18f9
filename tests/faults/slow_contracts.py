"""Contracts with a step that takes as long as a test wants: a user's own code, in the middle of a transform."""

from __future__ import annotations

from pathlib import Path

GATE_VARIABLE = "FAULT_GATE"
_STEP = f"""

def wait(frame: pd.DataFrame) -> pd.DataFrame:
    gate = Path(os.environ["{GATE_VARIABLE}"])
    gate.with_suffix(".reached").touch()
    while not gate.exists():
        time.sleep(0.02)
    return frame
"""


def slow_contracts(folder: Path) -> dict[str, str]:
    """Give the contract of orders in a copy of the project's contracts a step that waits for a gate.

    Returns the environment that makes a worker use them; the gate's path goes into FAULT_GATE.
    """
    steps, contract = folder / "orders" / "steps.py", folder / "orders" / "contract.yaml"
    imports = "import os\nimport time\nfrom pathlib import Path\n"
    head, separator, body = steps.read_text().partition("from __future__ import annotations\n")
    steps.write_text(head + separator + imports + body + _STEP)
    contract.write_text(
        contract.read_text().replace("  - steps.add_revenue\n", "  - steps.add_revenue\n  - steps.wait\n")
    )
    return {"SLUICE_CONTRACTS_FOLDER": str(folder)}
