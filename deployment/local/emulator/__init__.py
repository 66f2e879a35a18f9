"""MiniStack as the embedded cloud: our patches, in MiniStack's own environment.

Run as `.venv-cloud/bin/python -m deployment.local.emulator` from the project's root; it may import the standard
library, ministack and deployment.local.processes. Each module covers one difference between MiniStack and AWS
(docs/decisions/0009). MiniStack's version is pinned, because its functions are replaced here.
"""
