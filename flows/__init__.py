"""The flows that Prefect runs, the container's entry point, and the pipeline behind them."""

__version__ = "0.3.0"
