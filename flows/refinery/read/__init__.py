"""From the bytes of a file to partitions of rows."""
