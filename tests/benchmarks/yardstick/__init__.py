"""The work that `make bench-refine` measures, which splits a CSV file with orders into Parquet files with good and bad
rows."""
