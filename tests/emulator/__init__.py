"""Extensions of the AWS emulator (MiniStack) that only tests need. `LocalCloud(emulator_extensions=...)` loads them
into the emulator's process.

These modules run in the emulator's environment, so they may import only the standard library, ministack and
deployment.local.emulator.
"""
