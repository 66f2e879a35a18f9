"""The work that `make bench-refine` measures: from a CSV file of orders to good and bad Parquet files."""
