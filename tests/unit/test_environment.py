"""In flows and blocks, only the composition root and the settings modules read environment variables."""

from __future__ import annotations

import ast

from deployment import PROJECT_ROOT

ALLOWED = {
    "blocks/settings.py",  # reads the settings from the environment for the composition root
    "blocks/settings_block.py",  # reads the AWS credentials for a manual run
    "flows/composition.py",  # the composition root
    "flows/refinery/validate/gx.py",  # turns off Great Expectations' analytics before importing it, and reads nothing
}


def test_flows_and_blocks_do_not_read_the_environment() -> None:
    reading = set()
    for folder in ("flows", "blocks", "lambda_trigger/message.py"):
        root = PROJECT_ROOT / folder
        for path in [root] if root.is_file() else root.rglob("*.py"):
            names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
            if names & {"environ", "getenv"}:
                reading.add(str(path.relative_to(PROJECT_ROOT)))
    assert reading == ALLOWED
