"""Separates good rows from bad rows, by the types and expectations in the contract, and quarantines the bad rows."""
