"""Errors that are told to the user in one sentence, each with the exit code of the command line.

A message names the file or key, what was expected and what came. Mistakes of ours stay `AssertionError`s.
"""

from typing import ClassVar


class IdifError(Exception):
    """Base of everything the command line prints without a traceback."""

    exit_code: ClassVar[int] = 2


class ConfigError(IdifError, ValueError):
    """A config file, key or value that cannot be used."""


class DatasetError(IdifError, ValueError):
    """A dataset, image, mask or annotation that is missing or not what it should be."""


class WeightsError(IdifError, ValueError):
    """Encoder weights that cannot be found or do not fit."""


class RunError(IdifError, ValueError):
    """A run folder that is missing, in the way, or does not hold what is asked of it."""


class StoreError(IdifError, ValueError):
    """A store that is missing, cannot be written, or was asked for something it does not hold."""


class StoreMismatch(StoreError):
    """A sound store of other data, another encoder or other settings than asked for."""


class StoreIncomplete(StoreError):
    """A store whose build has not finished."""

    exit_code = 1


class StoreDamaged(StoreError):
    """A store whose bytes are not the ones that were written."""

    exit_code = 1


class CannotFinish(IdifError, RuntimeError):
    """Work that cannot be finished here: no space, no memory, a loss or feature no longer finite."""

    exit_code = 3
