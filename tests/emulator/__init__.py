"""What tests need in MiniStack's own process and users do not: `LocalCloud(emulator_extensions=...)` loads it there.

These modules run in the emulator's environment: they import the standard library, ministack and
deployment.local.emulator only.
"""
