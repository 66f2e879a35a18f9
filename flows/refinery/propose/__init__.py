"""Help for writing a contract: a proposal from a sample file, and the schema for editors."""
