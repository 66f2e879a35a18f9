"""How a task is stopped: by SIGTERM, from Fargate or an operator."""


class Stopped(BaseException):
    """SIGTERM arrived. Not an Exception, so that no handler of ordinary errors swallows it."""
