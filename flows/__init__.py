"""The flows that Prefect runs, and the container's entry point."""

__version__ = "0.3.0"
