"""The local cloud: AWS and Prefect on one machine, for the demo, for trying things out and for the tests."""
