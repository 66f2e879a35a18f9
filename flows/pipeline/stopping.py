"""The exception that SIGTERM from Fargate or from an operator raises in a task."""


class Stopped(BaseException):
    """SIGTERM arrived. This is not an Exception, so that no handler of ordinary errors catches it."""
