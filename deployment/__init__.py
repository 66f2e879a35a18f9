"""The `sluice` command, and what it uses to deploy stacks and to work with them, on AWS and in the local cloud."""

from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[1]
