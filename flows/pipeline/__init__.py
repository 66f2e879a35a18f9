"""What is recorded of an upload: its receipt, its pages, and what to do next."""
