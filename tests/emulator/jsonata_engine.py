"""Evaluates JSONata expressions in the same way as MiniStack's state machines. It runs in MiniStack's environment.

    .venv-cloud/bin/python -m tests.emulator.jsonata_engine

It reads a JSON list of {expression, bindings} from stdin, and prints a JSON list of {value} or {error}.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main() -> None:
    """Evaluate the expressions on stdin."""
    from ministack.services import stepfunctions

    answers: list[dict[str, Any]] = []
    for one in json.load(sys.stdin):
        variables = dict(one["bindings"])
        states = variables.pop("states", {})
        context = {**states.get("context", {}), "variables": variables}
        try:
            value = stepfunctions._evaluate_jsonata(
                one["expression"], states.get("input"), context, states.get("result"), states.get("errorOutput")
            )
            answers.append({"value": value})
        except stepfunctions._ExecutionError as error:
            answers.append({"error": str(error)})
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
