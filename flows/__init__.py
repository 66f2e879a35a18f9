"""The flows: what the container and Prefect start."""

__version__ = "0.3.0"
