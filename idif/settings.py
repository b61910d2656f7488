"""Base of every config section, and the types that sections share."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0, le=1)]


Count = Annotated[int, Field(ge=1)]

UserPath = Annotated[Path, AfterValidator(Path.expanduser)]
"""A path; a leading ``~`` is the user's home folder."""


class Section(BaseModel):
    """Base of all sections: immutable, without unknown keys or non-finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
