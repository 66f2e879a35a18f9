"""The data model of a contract, and loading contracts from files."""
