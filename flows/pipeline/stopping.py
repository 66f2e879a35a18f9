"""The exception that is raised in a task when Fargate or an operator stops it with SIGTERM."""


class Stopped(BaseException):
    """SIGTERM has arrived. This class is not an Exception, so that handlers of ordinary errors do not catch it."""
