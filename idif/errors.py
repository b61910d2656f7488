"""Errors that are reported to the user in one sentence, each with the exit code of the command line.

A message names the file or key, the expected value and the actual one. Bugs in this code raise
`AssertionError`.
"""

from typing import ClassVar


class IdifError(Exception):
    """Base of everything the command line prints without a traceback."""

    exit_code: ClassVar[int] = 2


class ConfigError(IdifError, ValueError):
    """A config file, key or value that cannot be used."""


class DatasetError(IdifError, ValueError):
    """A dataset, image, mask or annotation that is missing or invalid."""


class WeightsError(IdifError, ValueError):
    """Encoder weights that cannot be found or do not fit."""


class PathError(IdifError, ValueError):
    """A path that cannot be written: no permission, a read-only disk, a file where a folder is needed."""


class RunError(IdifError, ValueError):
    """A run folder that is missing, exists already, or lacks the requested content."""


class StoreError(IdifError, ValueError):
    """A store that is missing, cannot be written, or lacks the requested content."""


class StoreMismatch(StoreError):
    """An intact store of other data, another encoder or other settings than requested."""


class StoreIncomplete(StoreError):
    """A store whose build has not finished."""

    exit_code = 1


class StoreDamaged(StoreError):
    """A store whose bytes differ from those that were written."""

    exit_code = 1


class CannotFinish(IdifError, RuntimeError):
    """Work that cannot be finished here: no space, no memory, a loss or feature no longer finite."""

    exit_code = 3
