"""Config sections that methods share: the base of each method's own, and view-wise dropout."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from idif.data.index import LearningSplit
from idif.settings import Section


@dataclass(frozen=True)
class InferenceOption:
    """A key of a method's section that may be changed for a finished model, e.g. with ``--set``."""

    key: str
    """Dotted, below ``method``."""
    label: str
    """For pages."""
    kind: Literal["choice", "toggle"]
    choices: tuple[int | str, ...] = ()
    """Values of a choice; a toggle is true or false."""


class MethodSection(Section):
    """Base of the methods' config sections, whose union is `idif.config.sections.MethodConfig`."""

    name: str
    """Key of `idif.methods.catalog.METHODS`; each method narrows it to its own key."""

    section_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """{section: {key: default}}: defaults of other sections that differ for this method."""
    uses_corruption: ClassVar[bool] = False
    """Whether the method reads the section ``corruption``; otherwise setting that section is an error."""
    uses_view_dropout: ClassVar[bool] = False
    """Whether the method reads the section ``train.dropout``; otherwise setting that section is an error."""
    fitted: ClassVar[bool] = False
    """Whether the method is fitted in one pass instead of trained; keys of ``train`` that only gradient steps
    have are then errors."""
    learns_from: ClassVar[tuple[LearningSplit, ...]] = ("train",)
    """Splits whose samples the method learns from. With ``val`` it learns from labels, of defects too: no
    sample is left to choose an epoch or a threshold by labels, and settings that would are errors."""
    earlier_values: ClassVar[Mapping[str, Any]] = {}
    """{key: value} of keys that runs of earlier versions do not record, where the default differs now."""

    @property
    def uses_labels(self) -> bool:
        """Whether the method learns from labels: of normal samples and of defects."""
        return "val" in self.learns_from

    @property
    def balances_labels(self) -> bool:
        """Whether every batch of training has as many normal as anomalous samples."""
        return False

    @property
    def inference_options(self) -> tuple[InferenceOption, ...]:
        """The keys that may be changed for a finished model with these settings; by default none."""
        return ()


class FittedSection(MethodSection):
    """Base of the sections of methods that are fitted in one pass."""

    section_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "train": {"epochs": 1, "batch_size": 16, "precision": "float32", "convolutions": "direct"},
        "eval": {"batch_size": 32},
    }
    fitted: ClassVar[bool] = True


class ViewDropoutConfig(Section):
    """View-wise dropout while training."""

    probability: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that a view is dropped; at least one view of each sample is kept."""
    per: Literal["sample", "step"] = "sample"
    """Whether each sample draws its own mask, or each step draws one for all samples."""
