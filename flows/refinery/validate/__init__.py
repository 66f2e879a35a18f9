"""Which rows are good: types, expectations, quarantine."""
