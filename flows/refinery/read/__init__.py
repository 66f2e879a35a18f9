"""Read an uploaded file into partitions of rows."""
