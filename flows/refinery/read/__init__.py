"""Reads a file's bytes into partitions of rows."""
