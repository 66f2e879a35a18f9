"""What runs in the container and from Prefect."""

__version__ = "0.1.0"
