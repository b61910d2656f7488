"""The random quantities of a corruption, each with a stream of its own."""

from enum import IntEnum


class Stream(IntEnum):
    """Streams of a view's seed: one number for each quantity, so that no two share bits."""

    PERLIN_FREQUENCY = 0
    PERLIN_ANGLE = 1
    PERLIN_GRADIENT = 2
    CORRUPTED = 3
    BETA = 4
    TEXTURE = 5
