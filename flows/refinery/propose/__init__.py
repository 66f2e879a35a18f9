"""Help for writing contracts: a contract proposed from a sample file, and a JSON Schema for editors."""
