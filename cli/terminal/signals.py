"""Raises SIGTERM as an exception, so that all contexts are closed."""


class Terminated(BaseException):
    """SIGTERM, raised at the current position of the program."""
