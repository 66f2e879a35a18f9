"""The commands of `sluice`: one module each, and what they share."""
