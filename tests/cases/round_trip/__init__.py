"""Tests with random tables, written to files in random formats. Sluice must publish exactly what was written, or have a
correct reason to reject the file or to quarantine a row."""
