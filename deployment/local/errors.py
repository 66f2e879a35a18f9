"""What can go wrong with the local cloud. Each message is a sentence for whoever typed the command."""

from __future__ import annotations

from flows.refinery.errors import SluiceError, TerminalError


class LocalCloudError(SluiceError):
    """Base of the local cloud's errors."""


class LocalCloudBusy(LocalCloudError):
    """Another process holds the state folder."""


class LocalCloudNotRunning(LocalCloudError):
    """A command needs a running local cloud, and none holds the state folder."""


class PortTaken(LocalCloudError, TerminalError):
    """A port that was asked for by number is in use by another program."""


class EnvironmentMissing(LocalCloudError, TerminalError):
    """Something that must be installed is not there: the embedded cloud's environment, a Docker client."""


class ServiceDied(LocalCloudError):
    """A process of the local cloud ended by itself; the message holds the last lines of its log."""


class ServiceNotReady(LocalCloudError):
    """A process of the local cloud did not answer within its deadline."""
