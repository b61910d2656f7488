"""The seam between the engine and a method: `Method`, and what a method may be capable of beside it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from idif.corruption.config import CorruptionConfig
from idif.data.batch import Batch
from idif.data.features import FeatureSpec
from idif.encoders.frozen import FrozenEncoder
from idif.methods.section import MethodSection, ViewDropoutConfig
from idif.progress import Progress
from idif.randomness import Draws


@dataclass(frozen=True)
class Needs:
    """Names of the arrays that a method reads; a source may lack every other one."""

    training: tuple[str, ...]
    scoring: tuple[str, ...]


@dataclass(frozen=True)
class Scores:
    """A method's answer to a batch; higher is more anomalous throughout."""

    maps: Mapping[str, Tensor] = field(default_factory=dict)
    """{name: float32 [B,V,H,W]}, zero on absent views. The map ``map`` is shown and measured by pixel
    metrics; a method without maps gives none."""
    views: Tensor | None = None
    """float32 [B,V], of no meaning on absent views; None: the engine reduces ``map`` (`eval.score`)."""
    samples: Tensor | None = None
    """float32 [B]; None: the engine reduces the views (`eval.sample_score`)."""


class Method(nn.Module, ABC):
    """What learns on top of frozen arrays. Purely abstract: nothing is inherited but torch's own."""

    needs: Needs
    draws_maps: bool = True
    """Whether `score` gives the map ``map``."""

    @abstractmethod
    def training_step(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """The training losses of a batch of clean samples.

        Args:
            batch: clean samples with the arrays of ``needs.training``; the method perturbs them itself.
            draws: all randomness of the step.

        Returns:
            Scalars: ``loss``, which is minimised, and its parts by name.
        """

    @abstractmethod
    def score(self, batch: Batch) -> Scores:
        """Score samples, in eval mode; absent views and inputs have no influence.

        Args:
            batch: samples with the arrays of ``needs.scoring``.
        """

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """How its scores come about, for files and reports, e.g. ``head`` (the kind) and ``map``."""


@runtime_checkable
class ScoresSubsets(Protocol):
    """A method that scores many choices of views at less cost than one by one."""

    def encode_batch(self, batch: Batch) -> Any:
        """What all choices of views share."""
        ...

    def score_subsets(self, encoded: Any, batch: Batch, view_masks: Tensor) -> Tensor:
        """The map ``map`` of every kept view, as `Method.score` gives it where the other views are absent.

        Args:
            encoded: of `encode_batch`.
            batch: B samples.
            view_masks: bool [K,B,V] on the batch's device; a sample may have no view at all in some of them.

        Returns:
            float32 [P,H,W]: the maps of the P kept views, in the order of ``view_masks.nonzero()``.
        """
        ...


@runtime_checkable
class SupportsExport(Protocol):
    """A method whose test pass can leave the run as one graph."""

    def export_module(self) -> nn.Module:
        """The test pass as a module that shares the weights; the method is in eval mode.

        It maps (images float32 [B,V,3,H,W] in 0..1, {array: [B,V,C,h,w]}, view_mask bool [B,V]) to the map
        ``map`` of `Method.score`, finite on absent views too. No shape and no branch in it depends on a
        value; a sample without any view gets zeros.
        """
        ...


class Resource(Protocol):
    """What a training needs beside the data, e.g. a bank of textures."""

    @property
    def origin(self) -> str:
        """For logs and reports, e.g. ``folder: 5640 images from dtd``."""
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over what it was made from and how."""
        ...

    @property
    def caveat(self) -> str | None:
        """What a reader of the results must know of it; None where it is nothing."""
        ...

    def to(self, device: torch.device) -> Self:
        """The same on ``device``."""
        ...


@dataclass(frozen=True)
class ResourceRequest:
    """What a method may make its resources from."""

    corruption: CorruptionConfig
    features: FeatureSpec
    folder: Path
    """Where resources are kept that take time to make; other runs find them there."""
    progress: Progress


@dataclass(frozen=True)
class MethodContext:
    """What a method is built for."""

    features: FeatureSpec
    view_numbers: tuple[int, ...]
    categories: tuple[str, ...] = ()
    """The categories the model is for, sorted."""
    rig: Mapping[int, tuple[float, float, float]] = field(default_factory=dict)
    """``data.rig``: where cameras stand that are not where the default rig has them."""
    corruption: CorruptionConfig = field(default_factory=CorruptionConfig)
    view_dropout: ViewDropoutConfig = field(default_factory=ViewDropoutConfig)
    resources: Mapping[str, Any] = field(default_factory=dict)
    """{name: Resource} of `MethodSpec.resources`, on the device; empty outside training."""
    encoders: tuple[FrozenEncoder, ...] = ()
    """The frozen encoders, on the device, for a stage that runs them; else empty."""


ConfigT = TypeVar("ConfigT", bound=MethodSection)


@dataclass(frozen=True)
class Stage(Generic[ConfigT]):
    """One of the trainings that make a model; every stage but the last keeps its own folder."""

    name: str
    """Folder of its checkpoint and logs below the model's, unless it is the last."""
    config: ConfigT
    """The method's section as this stage trains it."""
    epochs: int | None = None
    """None: ``train.epochs``."""
    continues_in: str | None = None
    """Submodule that takes the weights of the stage before; None for all of the model. Of no meaning in the
    first stage."""
    runs_encoders: bool = False
    """Whether it runs the frozen encoders, on inputs that no store holds."""


@dataclass(frozen=True)
class MethodSpec(Generic[ConfigT]):
    """A method as the engine sees it before it is built."""

    build: Callable[[ConfigT, MethodContext], Method]
    stages: Callable[[ConfigT], tuple[Stage[ConfigT], ...]]
    """In order; the last one's weights are what is evaluated."""
    resources: Callable[[ConfigT, ResourceRequest], dict[str, Any]]
    """{name: Resource} that its training needs; empty where it needs none."""
    label: Callable[[ConfigT], str | None]
    """The row of a published table that a config stands for; None where it is none."""
    smallest: Callable[[], ConfigT]
    """A config for self-tests: trains in seconds on tiny images."""
