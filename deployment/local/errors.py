"""Errors of the local cloud. Their messages are printed to the person who ran the command."""

from flows.refinery.errors import SluiceError, TerminalError


class LocalCloudError(SluiceError):
    """Base class of the local cloud's errors."""


class LocalCloudBusy(LocalCloudError):
    """Another process uses the state folder."""


class LocalCloudNotRunning(LocalCloudError):
    """A command needs a running local cloud, but none is running on the state folder, or it is still starting."""


class StateOutdated(LocalCloudError, TerminalError):
    """Another version of Sluice created the state folder; `sluice clean` deletes it."""


class PortTaken(LocalCloudError, TerminalError):
    """A requested port is in use by another program."""


class EnvironmentMissing(LocalCloudError, TerminalError):
    """The embedded cloud's environment or Prefect is not installed: run `make setup`."""


class ServiceDied(LocalCloudError):
    """A process of the local cloud ended unexpectedly; the message has the last lines of its log."""


class ServiceNotReady(LocalCloudError):
    """A process of the local cloud did not answer within its deadline."""
