"""MiniStack as the embedded cloud: what Sluice adds to it, in MiniStack's own environment.

Run as `.venv-cloud/bin/python -m deployment.local.emulator` from the project's root; it may import the standard
library, ministack and deployment.local.processes. Each module mends one thing, named after it; docs of MiniStack
1.5.33, whose version is pinned because its functions are replaced here.
"""
