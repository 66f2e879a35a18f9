"""Deploys Sluice and works with what is deployed: on AWS and in the local cloud."""

from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[1]
