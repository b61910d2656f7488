"""Config sections that methods share: the base of each method's own, and view-wise dropout."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from idif.settings import Section


class MethodSection(Section):
    """Base of a method's own section; the union of them is `idif.config.sections.MethodConfig`."""

    name: str
    """Key of `idif.methods.catalog.METHODS`; each method narrows it to its own."""

    train_defaults: ClassVar[Mapping[str, Any]] = {}
    """Keys of the section ``train`` whose default is another with this method."""
    uses_corruption: ClassVar[bool] = False
    """Whether it reads the section ``corruption``; setting that is an error for methods that do not."""


class ViewDropoutConfig(Section):
    """View-wise dropout while training."""

    probability: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Chance of each view to be dropped; never all of a sample's."""
    per: Literal["sample", "step"] = "sample"
    """Whether each sample draws its own mask or a step draws one for all."""
