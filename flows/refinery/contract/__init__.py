"""The data model of contracts, and functions that load and compare contracts."""
