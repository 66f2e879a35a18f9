"""What a contract can say, and reading it from files."""
