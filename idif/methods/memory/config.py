"""The config sections of PatchCore and PaDiM."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from idif.methods.section import FittedSection
from idif.settings import Count


class StackingConfig(FittedSection):
    """Settings of how both stack feature maps and draw the map of scores."""

    layers: tuple[str, ...] | None = None
    """Feature maps that are stacked; None: all of the source."""
    grid: Count | None = None
    """Positions along each side of the grid that the maps are stacked on; None: that of the finest map whose
    positions are at least 8 image pixels wide."""
    pooling: Annotated[int, Field(ge=1)] = 1
    """Side of the window, in positions of each map, whose mean is taken; odd, 1: no mean."""
    border: Literal["inside", "zeros"] = "inside"
    """Mean at the border of a map: of the positions inside it, or with zeros beyond it."""
    unit_length: bool = False
    """Whether each map's vector at each position is scaled to length 1 before the mean."""
    smoothing: Annotated[float, Field(ge=0)] = 4.0
    """Standard deviation, in image pixels, of the Gaussian that smooths the maps; 0: none."""

    @model_validator(mode="after")
    def _odd_window(self) -> Self:
        if self.pooling % 2 == 0:
            raise ValueError(f"pooling: expected an odd number, got {self.pooling}")
        return self


class PatchCoreConfig(StackingConfig):
    """Settings of PatchCore: nearest neighbors in a memory of training features."""

    name: Literal["patchcore"] = "patchcore"
    pooling: Annotated[int, Field(ge=1)] = 3
    """Side of the window, in positions of each map, whose mean is taken; odd, 1: no mean."""
    border: Literal["inside", "zeros"] = "zeros"
    """Mean at the border of a map: of the positions inside it, or with zeros beyond it as the authors' code
    has it."""
    unit_length: bool = True
    """Whether each map's vector at each position is scaled to length 1 before the mean."""
    bank: Literal["camera", "shared"] = "camera"
    """One memory for each camera, or one for all views."""
    window: Annotated[int, Field(ge=0)] | None = None
    """A position is compared with training features of the same camera at most this many positions away
    along each axis: for parts that lie the same way in every image. None: with all of the memory."""
    coreset: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the training features that the memory holds, chosen so that the others are near one of them;
    1: all. None: all with a ``window``, else 0.01."""
    projection: Count = 64
    """Dimensions of the random projection in which the coreset is chosen."""
    neighbours: Count = 9
    """Neighbors in the memory by which ``eval.score: method`` weights the score of a view; 1: no weight."""
    search: Literal["torch", "faiss"] = "torch"
    """Library that finds nearest neighbors without a ``window``; both are exact. ``faiss`` is an extra and
    runs on the CPU."""
    storage: Literal["float16", "float32"] = "float16"
    """Type of the features in the memory."""
    earlier_values: ClassVar[Mapping[str, Any]] = {"border": "inside"}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.window is not None and self.bank == "shared":
            raise ValueError("window: compares views of the same camera; leave bank at camera")
        if self.window is not None and self.share < 1:
            raise ValueError("window: needs the features of all positions; leave coreset out")
        if self.window is not None and self.search == "faiss":
            raise ValueError("search: faiss compares with all of the memory; leave window out")
        return self

    @property
    def share(self) -> float:
        """Share of the training features that the memory holds."""
        if self.coreset is not None:
            return self.coreset
        return 0.01 if self.window is None else 1.0


class PaDiMConfig(StackingConfig):
    """Settings of PaDiM: a Gaussian distribution of the features at each position of each camera."""

    name: Literal["padim"] = "padim"
    dimensions: Count | None = 100
    """Number of dimensions that are chosen at random; None: all."""
    covariance: Literal["full", "diagonal"] = "full"
    """``diagonal`` takes the dimensions as independent: less memory, and it needs fewer training samples."""
    ridge: Annotated[float, Field(ge=0)] = 0.01
    """Added to all variances."""
    shrinkage: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the covariance that is replaced by the mean variance of the position in all dimensions."""
