"""The config: one typed section per concern, each key with its default and its meaning.

`idif.config.loader` reads one from YAML. Nothing changes a config after it is read.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import Field, model_validator

from idif.methods.idif.config import IDIFConfig
from idif.settings import Count, Probability, Section


class DataConfig(Section):
    """Which samples."""

    root: Path | None = None
    """Dataset in the Real-IAD layout. Optional with a store, which then checks that they agree."""
    images: str = "realiad_256"
    """Folder of the images below the root."""
    annotations: str = "realiad_jsons"
    """Folder of the annotations below the root."""
    categories: tuple[str, ...] = ()
    """Categories to use; empty means all that the data or the store hold."""
    drop_incomplete: bool = False
    """Leave out samples that lack a view instead of keeping them with a view mask."""
    views: tuple[int, ...] | None = None
    """Camera numbers to use (without a store); None means all."""
    rig: dict[int, tuple[float, float, float]] = Field({})
    """Camera number -> (azimuth, tilt, roll) in degrees: tilt 0 looks straight down, and azimuth 0, 90, 180,
    270 stands at the bottom, left, top, right of that camera's image. Cameras that are not named get the
    default rig: the first from above, the rest around at 45 degrees."""


Address = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9+.-]+://")]
"""Stays text, since a path would take one of its slashes."""


class CacheConfig(Section):
    """Where the frozen features come from."""

    store: Address | Path | None = None
    """The feature store: a folder or ``s3://BUCKET/PREFIX``."""
    source: Literal["auto", "store", "live"] = "auto"
    """``auto``: the store where one is named, else the live encoder."""
    placement: Literal["auto", "disk", "memory", "device"] = "auto"
    """Where a store's arrays wait between batches; ``auto``: the fastest place they fit."""


class TeacherConfig(Section):
    """The frozen encoder of ``source: live``; with a store both come from the store."""

    weights: str | None = None
    """``imagenet`` (the default without a store), ``untrained`` or a weights file."""
    image_size: Annotated[int, Field(ge=32, multiple_of=16)] | None = None
    """Side of the square images in pixels (default without a store: 256)."""


class CorruptionConfig(Section):
    """What the student's input suffers (DeSTSeg's recipe)."""

    textures: str | None = None
    """Folder of the Describable Textures Dataset, or ``procedural`` for generated ones."""
    probability: Probability = 1.0
    """Chance of a view to be corrupted."""


class DropoutConfig(Section):
    """View-wise dropout while training."""

    probability: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Chance of each view to be dropped; never all of a sample's."""
    per: Literal["sample", "step"] = "sample"
    """Whether each sample draws its own mask or a step draws one for all."""


class TrainConfig(Section):
    """The training loop."""

    mode: Literal["per-category", "unified"] = "per-category"
    """One model for each category, or one for all."""
    ranks: Literal["samples", "categories"] = "samples"
    """What several processes divide among them: every batch's samples, or, with one model for each category,
    the categories; each process then trains as it would alone."""
    epochs: Count = 50
    head_epochs: Count = 20
    """Epochs of the second stage, which ``method.head: segmentation`` has."""
    batch_size: Count = 8
    """Samples, each with all its views."""
    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate of AdamW: linear warm-up, then a cosine to zero."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    warmup: Probability = 0.05
    """Share of all steps in which the learning rate rises."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Largest gradient norm."""
    init: Path | None = None
    """A finished run of the same method and cameras (or one category's folder in it) whose weights training
    starts from; its images may have been smaller, which makes a first stage cheap."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto``: bfloat16 where the device computes it fast, else float32."""
    convolutions: Literal["auto", "direct"] = "auto"
    """``auto``: on a CPU in float32 a training's 3x3 convolutions go by Winograd's filtering, which is
    faster, where numba is installed (the extra ``cpu``); ``direct``: torch's own everywhere."""
    seed: Annotated[int, Field(ge=0)] = 0
    eval_every: Annotated[int, Field(ge=0)] = 0
    """Epochs between evaluations on the test split, for curves only: the last epoch is reported. 0: never."""
    dropout: DropoutConfig = DropoutConfig()
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of an exponential mean of the weights, which is then what is evaluated; 0: off. It rises over the
    steps: min(ema, (1 + n) / (10 + n)) after n of them."""
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training normals kept out of training, for calibration and thresholds."""


class EvalConfig(Section):
    """From maps to scores and metrics."""

    score: Literal["max", "topk"] = "max"
    """Pixels to view score."""
    top_k: Count = 100
    """Pixels that ``topk`` averages."""
    sample_score: Literal["max", "mean"] = "max"
    """View scores to sample score."""
    calibrate: Literal["none", "per-view"] = "none"
    """Whether each camera's view scores are centred and scaled on held-out training normals."""
    normals: bool = False
    """Whether evaluation also scores training normals (those held out of training where there are any, else
    all) and records their mean and spread, the scale by which `idif fuse` fuses runs."""
    fpr_limits: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.3, 0.1, 0.05, 0.01)
    """False-positive limits of AUPRO."""
    aupro: Literal["interpolated", "rescaled"] = "interpolated"
    """``rescaled``: 200 thresholds, points at or above the limit dropped and the rest rescaled, as in many
    papers; for comparing with their tables only."""
    sample_label: Literal["views", "folder"] = "views"
    """A sample is anomalous when any present view is, or when its images lie in the folder ``NG``."""
    pooled: bool = False
    """Whether all categories' samples are also ranked together."""
    threshold: Literal["f1-max", "false-positive-rate"] | float = "f1-max"
    """What the recorded threshold is chosen by: the best F1 on the evaluated split (an oracle), a rate of
    false alarms on held-out training normals, or a number."""
    target_fpr: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """The rate of ``threshold: false-positive-rate``."""
    batch_size: Count = 8


class InpainterConfig(Section):
    """The small network that paints missing views from the others."""

    epochs: Count = 40
    batch_size: Count = 8
    lr: Annotated[float, Field(gt=0)] = 2e-3
    """Peak learning rate of AdamW: one cycle."""
    width: Count = 32
    """Channels of the first layer; the deepest has four times as many."""
    seed: Annotated[int, Field(ge=0)] = 0


class StrategiesConfig(Section):
    """What `idif sweep strategies` puts in a missing view's place."""

    layer: str = "layer3"
    """Layer whose pooled features tell which training samples are alike."""
    neighbours: Count = 1
    """Training samples whose views are averaged into the one that is lent."""
    score_filled: bool = False
    """Whether a view that was filled in is scored beside those present."""
    painter: InpainterConfig = InpainterConfig()


class RunConfig(Section):
    """Where results go: ``<dir>/<name>/``."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "idif"
    dir: Path = Path("runs")
    tracking: Literal["auto", "none", "tensorboard", "wandb"] = "auto"
    """What also shows a training: TensorBoard (``<category>/tensorboard`` in the run's folder) or Weights &
    Biases; ``auto``: TensorBoard where it is installed."""
    note: str = ""
    """A sentence that the run's environment and report repeat, e.g. what the data are."""


class Config(Section):
    """One run, resolved."""

    data: DataConfig = DataConfig()
    cache: CacheConfig = CacheConfig()
    teacher: TeacherConfig = TeacherConfig()
    corruption: CorruptionConfig = CorruptionConfig()
    method: IDIFConfig = IDIFConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    strategies: StrategiesConfig = StrategiesConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.cache.source == "store" and self.cache.store is None:
            raise ValueError("cache.source is 'store' but cache.store names none")
        if self.train.ranks == "categories" and self.train.mode == "unified":
            raise ValueError("train.ranks: categories needs one model for each: train.mode: per-category")
        if self.eval.calibrate != "none" and self.train.holdout == 0:
            raise ValueError("eval.calibrate needs held-out training normals: set train.holdout, e.g. 0.1")
        if self.eval.threshold == "false-positive-rate" and self.train.holdout == 0:
            raise ValueError(
                "eval.threshold: false-positive-rate needs held-out training normals: set train.holdout, "
                "e.g. 0.1"
            )
        return self

    @property
    def live(self) -> bool:
        """Whether the encoder runs now instead of its features being read from a store."""
        return self.cache.source == "live" or (self.cache.source == "auto" and self.cache.store is None)

    @property
    def last_epochs(self) -> int:
        """Epochs of the last stage, whose weights are evaluated."""
        return self.train.head_epochs if self.method.head == "segmentation" else self.train.epochs

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.run.dir / self.run.name

    def to_yaml(self) -> str:
        """The resolved config, every key written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
