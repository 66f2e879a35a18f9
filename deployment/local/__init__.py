"""The local cloud: an AWS emulator and Prefect on one machine, for the demo, for local work and for tests."""
