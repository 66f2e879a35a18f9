"""Separate good rows from bad rows, by the types and expectations in the contract, and quarantine the bad rows."""
