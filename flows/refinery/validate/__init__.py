"""Separates good rows from bad ones: types, expectations, quarantine."""
