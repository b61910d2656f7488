"""SIGTERM as an exception, so that everything is closed on the way out."""


class Terminated(BaseException):
    """SIGTERM, raised where the program is."""
