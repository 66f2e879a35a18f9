"""The shape of a contract, and loading it from files."""
