"""Interface between the engine and a method: `Method`, and its optional capabilities."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from idif.corruption.config import CorruptionConfig
from idif.data.batch import Batch
from idif.data.features import FeatureSpec
from idif.encoders.frozen import FrozenEncoder
from idif.methods.maps import MAP
from idif.methods.section import MethodSection, ViewDropoutConfig
from idif.progress import Progress, silent
from idif.randomness import Draws


@dataclass(frozen=True)
class Needs:
    """Names of the arrays that a method reads; a source may lack all others."""

    training: tuple[str, ...]
    scoring: tuple[str, ...]


@dataclass(frozen=True)
class Scores:
    """A method's scores of a batch; higher is more anomalous."""

    maps: Mapping[str, Tensor] = field(default_factory=dict)
    """{name: float32 [B,V,H,W]}, zero on absent views. ``map`` is the anomaly map, used by reports and pixel
    metrics; empty for a method without maps. Maps of `Method.other_maps` are measured beside it."""
    views: Tensor | None = None
    """float32 [B,V], undefined on absent views; None: the engine reduces ``map`` (`eval.score`)."""
    samples: Tensor | None = None
    """float32 [B], NaN only for samples that lack every input; None: the engine reduces the views
    (`eval.sample_score`)."""
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    """{name: float32 [B]}: the values that ``samples`` is the sum or mean of, for reports; NaN for a value
    that a sample lacks."""


class Method(nn.Module, ABC):
    """A model on top of frozen arrays: a `TrainedMethod` or a `FittedMethod`.

    Purely abstract: it inherits only from torch's module.
    """

    needs: Needs
    draws_maps: bool = True
    """Whether `score` returns the map ``map``."""
    independent_views: bool = False
    """Whether the map and score of a view depend on no other view, and sample scores on view scores alone. A
    sweep then scores every view once."""
    other_maps: tuple[str, ...] = ()
    """Names of the maps of `score` besides ``map`` that evaluation stores and measures too."""
    region_map: str = MAP
    """The map, ``map`` or one of ``other_maps``, that AUPRO is computed from."""

    @abstractmethod
    def score(self, batch: Batch) -> Scores:
        """Score samples, in eval mode; absent views and inputs have no influence.

        Args:
            batch: samples with the arrays of ``needs.scoring``.
        """

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """Description of how scores are computed, for files and reports, e.g. ``head`` and ``map``."""


class TrainedMethod(Method):
    """A method whose parameters are trained by gradient steps."""

    @abstractmethod
    def training_step(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """The training losses of a batch of clean samples.

        Args:
            batch: clean samples with the arrays of ``needs.training``; the method perturbs them itself.
            draws: all randomness of the step.

        Returns:
            Scalars: ``loss``, which is minimized, and its parts by name.
        """


class FittedMethod(Method):
    """A method without trainable parameters, which is fitted in one pass over the training samples.

    Its buffers are its state. They may grow with the number of samples: loading a state dict takes over their
    sizes. The config section of such a method has ``fitted`` set.
    """

    @abstractmethod
    def fit(self, batches: Iterable[Batch], seed: int, progress: Progress = silent) -> None:
        """Learn from clean samples; on a fitted method, in addition to those fitted before.

        Args:
            batches: clean samples with the arrays of ``needs.training``, on the method's device; read once.
            seed: seed of all randomness of the fit.
            progress: called while the method works after the last batch.

        Raises:
            CannotFinish: the samples do not determine the model.
        """


@runtime_checkable
class LearnsStatistics(Protocol):
    """Optional capability of a `TrainedMethod`: buffers from one pass over the training samples."""

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Called before the first step of a new training; the buffers are saved with the weights.

        Args:
            batches: the clean training samples with the arrays of ``needs.training``; read at most once.
        """
        ...


@runtime_checkable
class ScoresSubsets(Protocol):
    """Optional capability: score many choices of views at less cost than one by one."""

    def encode_batch(self, batch: Batch) -> Any:
        """The part of the computation that all choices of views share, once per batch."""
        ...

    def score_subsets(self, encoded: Any, batch: Batch, view_masks: Tensor) -> Tensor:
        """The map ``map`` of every kept view, as `Method.score` returns it when the other views are absent.

        Args:
            encoded: result of `encode_batch`.
            batch: B samples.
            view_masks: bool [K,B,V] on the batch's device; a sample may have no view at all in some of them.

        Returns:
            float32 [P,H,W]: the maps of the P kept views, in the order of ``view_masks.nonzero()``.
        """
        ...


@runtime_checkable
class SupportsExport(Protocol):
    """Optional capability: export the test pass as one graph."""

    def export_module(self) -> nn.Module:
        """The test pass as a module that shares the weights; the method is in eval mode.

        It maps (images float32 [B,V,3,H,W] in 0..1, {array: [B,V,C,h,w]}, view_mask bool [B,V]) to the map
        ``map`` of `Method.score`, finite on absent views too. No shape and no branch in it depends on a
        value; a sample without any view gets zeros.
        """
        ...


@runtime_checkable
class Reconstructs(Protocol):
    """Optional capability: the method rebuilds arrays that it reads, or the images."""

    @property
    def rebuilt(self) -> tuple[str, ...]:
        """Names of the arrays that `reconstruct` gives; ``images`` are shown beside the photographs by
        reports and the page."""
        ...

    def reconstruct(self, batch: Batch) -> dict[str, Tensor]:
        """{array: float32 [B,V,...]}: the rebuilt arrays, in eval mode; zero for absent views.

        Images are RGB in about 0..1.
        """
        ...


@runtime_checkable
class PredictsFeatures(Protocol):
    """Optional capability: the method predicts stored features of clean samples, as well as it has learned.

    Training and evaluation compare it with the features' mean, see `idif.training.feature_mean`.
    """

    @property
    def predicted_arrays(self) -> tuple[str, ...]:
        """Names of the predicted arrays, all of every view."""
        ...

    def feature_distance(self, batch: Batch, constant: Mapping[str, Tensor] | None = None) -> Tensor:
        """Distance of each view's stored features from their prediction, in eval mode: float32 [B,V].

        Undefined for absent views.

        Args:
            batch: clean samples with the arrays of ``needs.scoring``.
            constant: {array: [V,...]}, a prediction for all samples; None: the method's own.
        """
        ...


@runtime_checkable
class ReducesMaps(Protocol):
    """Optional capability: the authors' view score is a function of the map ``map`` alone."""

    def reduce_maps(self, maps: Tensor) -> Tensor:
        """View scores of ``eval.score: method``: maps [B,V,H,W] -> [B,V].

        No shape and no branch in it depends on a value, so that it can be exported.
        """
        ...


class Resource(Protocol):
    """An input of training besides the data, e.g. a bank of textures."""

    @property
    def origin(self) -> str:
        """Origin for logs and reports, e.g. ``folder: 5640 images from dtd``."""
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the resource's source data and settings."""
        ...

    @property
    def caveat(self) -> str | None:
        """Caveat for readers of the results; None if there is none."""
        ...

    def to(self, device: torch.device) -> Self:
        """A copy on ``device``."""
        ...


@dataclass(frozen=True)
class ResourceRequest:
    """Arguments of `MethodSpec.resources`."""

    corruption: CorruptionConfig
    features: FeatureSpec
    folder: Path
    """Cache folder of expensive resources, shared by runs."""
    progress: Progress
    fallback: Path | None = None
    """Cache folder where ``folder`` cannot be written, e.g. beside a store on a read-only disk."""


@dataclass(frozen=True)
class MethodContext:
    """The data and environment a method is built for."""

    features: FeatureSpec
    view_numbers: tuple[int, ...]
    categories: tuple[str, ...] = ()
    """The categories of the model, sorted."""
    rig: Mapping[int, tuple[float, float, float]] = field(default_factory=dict)
    """``data.rig``: angles of the cameras that differ from the default rig."""
    corruption: CorruptionConfig = field(default_factory=CorruptionConfig)
    view_dropout: ViewDropoutConfig = field(default_factory=ViewDropoutConfig)
    resources: Mapping[str, Any] = field(default_factory=dict)
    """{name: Resource} of `MethodSpec.resources`, on the device; empty outside training."""
    encoders: tuple[FrozenEncoder, ...] = ()
    """The frozen encoders, for a stage that runs them (on the device) and for scoring with
    `MethodSpec.scores_with_encoders` (on the CPU, to be moved by the method); otherwise empty."""


ConfigT = TypeVar("ConfigT", bound=MethodSection)


@dataclass(frozen=True)
class Stage(Generic[ConfigT]):
    """One stage of a model's training; every stage but the last has its own folder."""

    name: str
    """Folder of its checkpoint and logs below the model's, unless it is the last."""
    config: ConfigT
    """The method's section for this stage."""
    epochs: int | None = None
    """Epochs of the stage; None: those of the section ``train``, and its steps."""
    steps: int | None = None
    """Optimizer steps of a stage with ``epochs`` of its own, which they replace; None: its epochs."""
    continues_in: str | None = None
    """Submodule that the previous stage's weights are loaded into; None for the whole model. Ignored in the
    first stage."""
    runs_encoders: bool = False
    """Whether the stage runs the frozen encoders, on inputs whose features no store contains."""


@dataclass(frozen=True)
class ImportedWeights:
    """Weights of a checkpoint in the format of a method's authors."""

    method: Mapping[str, Tensor]
    """A state dict of the method."""
    encoder: Mapping[str, Tensor] | None = None
    """Weights of the frozen encoder by the names of its library; None if the checkpoint has none."""


@dataclass(frozen=True)
class MethodSpec(Generic[ConfigT]):
    """Everything the engine needs to know about a method before it is built."""

    build: Callable[[ConfigT, MethodContext], Method]
    stages: Callable[[ConfigT], tuple[Stage[ConfigT], ...]]
    """The training stages, in order; the weights of the last one are evaluated."""
    smallest: Callable[[], ConfigT]
    """A config for self-tests: trains in seconds on tiny images."""
    resources: Callable[[ConfigT, ResourceRequest], dict[str, Any]] = lambda config, request: {}
    """{name: Resource} required for training, by default none."""
    scores_with_encoders: Callable[[ConfigT], bool] = lambda config: False
    """Whether a finished method scores with the frozen encoders at hand, e.g. with an autoencoder's decoder.
    Training, and its evaluations between epochs, run without them."""
    label: Callable[[ConfigT], str | None] = lambda config: None
    """The row of a published table that a config corresponds to, or another name if it differs from the row;
    None if there is none."""
    import_weights: Callable[[ConfigT, MethodContext, Path], ImportedWeights] | None = None
    """Reads a checkpoint of the method's authors, for a context with the frozen encoders; raises WeightsError
    if the file is none. None if the method cannot import any."""
