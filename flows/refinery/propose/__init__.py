"""A contract proposed from a sample file."""
