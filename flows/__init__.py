"""The flows and the entry point that the container and Prefect start."""

__version__ = "0.3.0"
