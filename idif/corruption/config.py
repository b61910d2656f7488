"""The config section of corruptions."""

from os.path import expanduser
from typing import Annotated

from pydantic import AfterValidator

from idif.settings import Probability, Section


class CorruptionConfig(Section):
    """Corruption of the student's input (DeSTSeg's recipe)."""

    textures: Annotated[str, AfterValidator(expanduser)] | None = None
    """Folder of the Describable Textures Dataset, or ``procedural`` for generated ones."""
    probability: Probability = 1.0
    """Chance of a view to be corrupted."""
