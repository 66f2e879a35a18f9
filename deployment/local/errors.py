"""The errors that the local cloud raises. Commands print their messages to the user."""

from flows.refinery.errors import SluiceError, TerminalError


class LocalCloudError(SluiceError):
    """Base class of the local cloud's errors."""


class LocalCloudBusy(LocalCloudError):
    """Another process is using the state folder."""


class LocalCloudNotRunning(LocalCloudError):
    """A command needs a local cloud, but none is running with this state folder, or it is still starting."""


class StateOutdated(LocalCloudError, TerminalError):
    """The state folder was created by a different minor version of Sluice; `sluice clean` deletes its contents."""


class PortTaken(LocalCloudError, TerminalError):
    """A requested port is in use by another program."""


class EnvironmentMissing(LocalCloudError, TerminalError):
    """The AWS emulator's Python environment or Prefect is not installed; `make setup` installs both."""


class ServiceDied(LocalCloudError):
    """A process of the local cloud ended unexpectedly; the message contains the last lines of its log."""


class ServiceNotReady(LocalCloudError):
    """A process of the local cloud did not become ready in time."""
