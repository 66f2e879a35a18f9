"""The `sluice` command, and the code with which it deploys and uses stacks on AWS and in the local cloud."""

from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[1]
