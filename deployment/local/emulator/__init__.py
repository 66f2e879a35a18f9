"""The local cloud's AWS emulator: MiniStack with patches, in a separate Python environment.

Run it with `.venv-cloud/bin/python -m deployment.local.emulator` from the project's root folder. It may import only the
standard library, ministack, and those modules of deployment.local that import only the standard library. Most modules
patch one difference between MiniStack and AWS (docs/decisions/0009). MiniStack's version is pinned, because the patches
replace its functions.
"""
