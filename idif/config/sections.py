"""The config: one typed section per concern, each key with its default and its meaning.

`idif.config.loader` reads one from YAML. Nothing changes a config after it is read.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import Field, model_validator

from idif.corruption.config import CorruptionConfig
from idif.datasets.config import DataConfig
from idif.methods.idif.config import IDIFConfig
from idif.methods.section import MethodSection, ViewDropoutConfig
from idif.settings import Count, Probability, Section

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
    """The frozen encoder of ``source: live`` and of `idif cache build --config`; a store brings its own."""

    encoder: str | None = None
    """Name of the encoder (default without a store: ``resnet18``)."""

    weights: str | None = None
    """``imagenet`` (the default without a store), ``untrained`` or a weights file."""
    image_size: Annotated[int, Field(ge=32)] | None = None
    """Side of the square images in pixels (default without a store: 256)."""


class OptimizerConfig(Section):
    """The optimizer; its learning rate and weight decay are ``train.lr`` and ``train.weight_decay``."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    betas: tuple[Probability, Probability] = (0.9, 0.999)
    """Decays of the running moments of AdamW and Adam."""
    momentum: Probability = 0.9
    """Momentum of SGD."""


class ScheduleConfig(Section):
    """The learning rate after the warm-up, as a share of its peak."""

    name: Literal["cosine", "constant", "milestones"] = "cosine"
    """``cosine`` falls to zero at the end; ``milestones`` multiplies by ``factor`` at each milestone."""
    unit: Literal["step", "sub_epoch", "epoch"] = "step"
    """What the schedule counts: it changes at every optimizer step, pass over the data, or epoch."""
    milestones: tuple[Count, ...] = ()
    """Units after which ``milestones`` takes effect."""
    factor: Probability = 0.1

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.name == "milestones") != bool(self.milestones):
            raise ValueError("milestones: expected with schedule `milestones`, and only with it")
        return self


class TrainConfig(Section):
    """The training loop."""

    mode: Literal["per-category", "unified"] = "per-category"
    """One model for each category, or one for all."""
    distribute: Literal["batch", "categories"] = "batch"
    """What several processes divide among them: every batch's samples, or, with one model for each category,
    the categories; each process then trains as it would alone."""
    epochs: Count = 50
    sub_epochs: Count = 1
    """Passes over the training samples in one epoch."""
    batch_size: Count = 8
    """Samples, each with all its views."""
    accumulate: Count = 1
    """Batches whose gradients are averaged into one optimizer step."""
    optimizer: OptimizerConfig = OptimizerConfig()
    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    schedule: ScheduleConfig = ScheduleConfig()
    warmup: Probability = 0.05
    """Share of all steps in which the learning rate rises linearly to its peak."""
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
    dropout: ViewDropoutConfig = ViewDropoutConfig()
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of an exponential mean of the weights, which is then what is evaluated; 0: off. It rises over the
    steps: min(ema, (1 + n) / (10 + n)) after n of them."""
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training normals kept out of training, for calibration and thresholds."""


class EvalConfig(Section):
    """From maps to scores and metrics."""

    score: Literal["max", "topk", "method"] = "max"
    """Pixels to view score; ``method``: the rule of the method's authors (``max`` where it has none)."""
    top_k: Count = 100
    """Pixels that ``topk`` averages."""
    sample_score: Literal["max", "mean"] = "max"
    """View scores to sample score."""
    calibrate: Literal["none", "per-view"] = "none"
    """Whether each camera's view scores are centred and scaled on held-out training normals."""
    record_normal_scores: bool = False
    """Whether evaluation also scores training normals (those held out of training where there are any, else
    all) and records their mean and spread, the scale by which `idif fuse` fuses runs."""
    fpr_limits: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.3, 0.1, 0.05, 0.01)
    """False-positive limits of AUPRO."""
    aupro: Literal["interpolated", "rescaled"] = "interpolated"
    """``rescaled``: 200 thresholds, points at or above the limit dropped and the rest rescaled, as in many
    papers; for comparing with their tables only."""
    sample_label: Literal["views", "folder"] = "views"
    """A sample is anomalous when any present view is, or when its images lie in the folder ``NG``."""
    pool_categories: bool = False
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
    score_imputed: bool = False
    """Whether an imputed view is scored beside those present."""
    inpainter: InpainterConfig = InpainterConfig()


class RunConfig(Section):
    """Where results go: ``<dir>/<name>/``."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "idif"
    dir: Path = Path("runs")
    tracking: Literal["auto", "none", "tensorboard", "wandb"] = "auto"
    """What also shows a training: TensorBoard (``<category>/tensorboard`` in the run's folder) or Weights &
    Biases; ``auto``: TensorBoard where it is installed."""
    note: str = ""
    """A sentence that the run's environment and report repeat, e.g. what the data are."""


MethodConfig = IDIFConfig
"""The methods' own sections: a union told apart by ``name`` as soon as there are two."""


class Config(Section):
    """One run, resolved."""

    data: DataConfig = DataConfig()
    cache: CacheConfig = CacheConfig()
    teacher: TeacherConfig = TeacherConfig()
    corruption: CorruptionConfig = CorruptionConfig()
    method: MethodConfig = IDIFConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    strategies: StrategiesConfig = StrategiesConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="before")
    @classmethod
    def _method_defaults(cls, raw: Any) -> Any:
        """Put the method's own defaults of ``train`` beneath those that are given."""
        if not isinstance(raw, dict) or not isinstance(raw.get("train", {}), dict):
            return raw
        section = method_section(cls, raw.get("method"))
        return raw if section is None else raw | {"train": {**section.train_defaults, **raw.get("train", {})}}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.method.uses_corruption and self.corruption != CorruptionConfig():
            raise ValueError(f"corruption: the method {self.method.name} uses none; leave the section out")
        if self.cache.source == "store" and self.cache.store is None:
            raise ValueError("cache.source is 'store' but cache.store names none")
        if self.train.distribute == "categories" and self.train.mode == "unified":
            raise ValueError(
                "train.distribute: categories needs one model for each: train.mode: per-category"
            )
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
    def folder(self) -> Path:
        """The run's folder."""
        return self.run.dir / self.run.name

    def to_yaml(self) -> str:
        """The resolved config, every key written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def method_sections(config: type[Config] = Config) -> dict[str, type[MethodSection]]:
    """Name of a method -> its config section, of the methods that ``config`` knows."""
    annotation = config.model_fields["method"].annotation
    members = get_args(annotation) or (annotation,)
    return {section.model_fields["name"].default: section for section in members}


def method_section(config: type[Config], raw: Any) -> type[MethodSection] | None:
    """The section that a raw value of the key ``method`` names; None where it names none that is known."""
    if isinstance(raw, MethodSection):
        return type(raw)
    default: str = config.model_fields["method"].default.name
    name = raw.get("name", default) if isinstance(raw, dict) else default
    return method_sections(config).get(name) if isinstance(name, str) else None
