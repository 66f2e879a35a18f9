"""Errors of the local cloud. Each message is for the person who typed the command."""

from flows.refinery.errors import SluiceError, TerminalError


class LocalCloudError(SluiceError):
    """Base of the local cloud's errors."""


class LocalCloudBusy(LocalCloudError):
    """Another process uses the state folder."""


class LocalCloudNotRunning(LocalCloudError):
    """A command needs a running local cloud, and none uses the state folder."""


class StateOutdated(LocalCloudError, TerminalError):
    """Another version of Sluice made the state folder; `sluice clean` deletes it."""


class PortTaken(LocalCloudError, TerminalError):
    """A requested port is in use by another program."""


class EnvironmentMissing(LocalCloudError, TerminalError):
    """Something is not installed: the embedded cloud's environment or a Docker client."""


class ServiceDied(LocalCloudError):
    """A process of the local cloud ended unexpectedly; the message has the last lines of its log."""


class ServiceNotReady(LocalCloudError):
    """A process of the local cloud did not answer within its deadline."""
