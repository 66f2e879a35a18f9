"""Tests with random tables in files of random forms. Sluice must publish exactly what was written, or reject it for a
correct reason."""
