"""Contracts with a faulty custom step, as an example of a user's code that misbehaves while a file is refined."""

from __future__ import annotations

from pathlib import Path

GATE_VARIABLE = "FAULT_GATE"
_WAIT = f"""

def misbehave(frame: pd.DataFrame) -> pd.DataFrame:
    gate = Path(os.environ["{GATE_VARIABLE}"])
    gate.with_suffix(".reached").write_text(str(os.getpid()))
    while not gate.exists():
        time.sleep(0.02)
    return frame
"""
_EAT = """

def misbehave(frame: pd.DataFrame) -> pd.DataFrame:
    eaten = []
    while True:
        eaten.append(bytearray(b"x") * (16 << 20))
        time.sleep(0.02)
"""


def slow_contracts(folder: Path) -> dict[str, str]:
    """Add a step to the orders contract in `folder`, a copy of the project's contracts. The step waits until the file
    that FAULT_GATE names exists. Return the environment variables with which a worker uses the folder."""
    return _with_step(folder, _WAIT)


def hungry_contracts(folder: Path) -> dict[str, str]:
    """Add a step to the orders contract in `folder`, a copy of the project's contracts. The step allocates memory until
    there is none left. Return the environment variables with which a worker uses the folder."""
    return _with_step(folder, _EAT)


def _with_step(folder: Path, step: str) -> dict[str, str]:
    steps, contract = folder / "orders" / "steps.py", folder / "orders" / "contract.yaml"
    imports = "import os\nimport time\nfrom pathlib import Path\n"
    head, separator, body = steps.read_text().partition("from __future__ import annotations\n")
    steps.write_text(head + separator + imports + body + step)
    contract.write_text(
        contract.read_text().replace("  - steps.add_revenue\n", "  - steps.add_revenue\n  - steps.misbehave\n")
    )
    return {"SLUICE_CONTRACTS_FOLDER": str(folder)}
