"""The config: one typed section per concern, each key with its default and its meaning.

`idif.config.loader` reads one from YAML. A config is immutable.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import Field, model_validator

from idif.corruption.config import CorruptionConfig
from idif.data.resize import Resize
from idif.datasets.config import DataConfig
from idif.encoders.options import EncoderOptions, NeckName, Padding
from idif.methods.causal_film.config import CausalFiLMConfig
from idif.methods.deco_diff.config import DeCoDiffConfig
from idif.methods.idif.config import IDIFConfig
from idif.methods.memory.config import PaDiMConfig, PatchCoreConfig
from idif.methods.msflow.config import MSFlowConfig
from idif.methods.pooled.config import PooledAutoencoderConfig, PooledNeighborsConfig
from idif.methods.section import MethodSection, ViewDropoutConfig
from idif.methods.supcon.config import SupConConfig
from idif.methods.uniad.config import UniADConfig
from idif.settings import Count, Probability, Section, UserPath

Address = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9+.-]+://")]
"""URL, kept as text, since `Path` would collapse its double slash."""


class CacheConfig(Section):
    """Source of the frozen features: a store or the live encoder."""

    store: Address | UserPath | None = None
    """The feature store: a folder or ``s3://BUCKET/PREFIX``."""
    source: Literal["auto", "store", "live"] = "auto"
    """``auto``: the store if one is named, else the live encoder."""
    placement: Literal["auto", "disk", "memory", "device"] = "auto"
    """Location of a store's arrays during a run; ``auto``: the fastest one they fit in."""
    images: bool | None = None
    """Whether `idif cache build --config` keeps the clean images too; null: if the config's method reads
    them, and where the config names no method."""
    variants: tuple[str, ...] = ()
    """Names of the image variants that `idif cache build --config` keeps, ``plain`` first, and that training
    draws from, one for each sample and epoch: ``plain``, ``rotated180``, ``shifted`` (by an eighth of the
    margin of ``teacher.crop_from``), ``shifted-rotated180``. Empty: a store without variants, and training
    from all variants that a store has."""


class TeacherConfig(Section):
    """The frozen encoder of ``source: live`` and of `idif cache build --config`; a store contains its own.

    A key that is null has the method's or the encoder's own default, and demands nothing of a store.
    """

    encoder: str | None = None
    """Name of the encoder, e.g. ``wide_resnet50_2``, ``tf_efficientnet_b4``, ``vit_base_patch14_dinov2``, or
    ``timm:NAME`` for any model of timm (default without a store: ``resnet18``); of weld runs a set of
    encoders, ``weld`` or ``weld-small``."""

    weights: str | None = None
    """``imagenet`` (the default without a store), ``untrained`` or a weights file."""
    image_size: Annotated[int, Field(ge=32)] | None = None
    """Side of the square images in pixels (default without a store: 256; for models of timm their own, if
    their strides divide it)."""
    taps: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Layers whose outputs are kept, shallow to deep: strides of a convolutional network (default 4, 8, 16),
    or block numbers from 0 of a transformer (default for 12 blocks: 3, 6, 9, 11)."""
    neck: NeckName | None = None
    """Layer without parameters after the taps: ``none`` (the default), ``aligned`` (all taps at the coarsest
    grid, in one array ``aligned``), or ``average-pool`` and ``max-pool`` (3x3 at stride 2, arrays ``p1``,
    ``p2``, ...)."""
    padding: Padding | None = None
    """``zeros`` (the default), or ``reflect`` in all padded convolutions."""
    resize: Resize | None = None
    """Resampling of the images to a square (default: ``bilinear``)."""
    crop_from: Annotated[int, Field(ge=32)] | None = None
    """Side that images and masks are resized to before their center of ``image_size`` is cut out; null: no
    crop."""

    decoded: bool | None = None
    """Whether an autoencoder also gives the images that it decodes its own latents to, so that DeCo-Diff's
    evaluation need not (default: no). For stores of the split ``test`` without variants: a batch of training
    would read them too."""

    def options(self) -> EncoderOptions:
        """The encoder's options; the defaults for keys that are not given."""
        given = {field.name: getattr(self, field.name) for field in fields(EncoderOptions)}
        return EncoderOptions(**{key: value for key, value in given.items() if value is not None})


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
    """``cosine`` falls to ``final`` at the end, or at ``horizon``; ``milestones`` multiplies by ``factor`` at
    each milestone."""
    unit: Literal["step", "sub_epoch", "epoch"] = "step"
    """Unit of the schedule: the rate changes at every optimizer step, pass over the data, or epoch."""
    milestones: tuple[Count, ...] = ()
    """Units after which ``milestones`` takes effect."""
    factor: Probability = 0.1
    final: Probability = 0.0
    """Share of the peak that ``cosine`` ends at."""
    horizon: Count | None = None
    """Units after which ``cosine`` reaches ``final``; a training that is shorter ends above it. null: its
    end."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """Units in which the rate rises linearly from ``warmup_start``, constant within a unit; then
    ``train.warmup`` must be 0. 0: ``train.warmup``."""
    warmup_start: Probability = 0.1
    """Share of the peak in the first unit of ``warmup``."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.name == "milestones") != bool(self.milestones):
            raise ValueError("milestones: expected with schedule `milestones`, and only with it")
        if self.horizon is not None and (self.name != "cosine" or self.horizon <= self.warmup):
            raise ValueError("horizon: expected with schedule `cosine` alone, and above warmup")
        return self


class TrainConfig(Section):
    """The training loop."""

    mode: Literal["per-category", "unified"] = "per-category"
    """One model for each category, or one for all."""
    distribute: Literal["batch", "categories"] = "batch"
    """Division of work among processes: each takes a part of every batch, or, with one model for each
    category, whole categories; each process then trains as it would alone."""
    epochs: Count = 50
    steps: Count | None = None
    """Optimizer steps after which training ends, if need be within an epoch; ``epochs`` then do not count.
    null: ``epochs`` decide."""
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
    warmup_from: Probability = 0.0
    """Share of the peak that the rate rises from in ``warmup``."""
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest gradient norm; null: any."""
    init: UserPath | None = None
    """A finished run of the same method and cameras (or one category's folder in it) whose weights training
    starts from; its images may be smaller, which makes a first stage cheap."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto``: bfloat16 on devices that compute it fast, else float32."""
    convolutions: Literal["auto", "direct"] = "auto"
    """``auto``: training on a CPU in float32 computes 3x3 convolutions by Winograd filtering, which is
    faster, if numba is installed (the extra ``cpu``); ``direct``: always torch's own convolutions."""
    seed: Annotated[int, Field(ge=0)] = 0
    eval_every: Annotated[int, Field(ge=0)] = 0
    """Epochs between evaluations, for curves: on the split ``val`` where the data has one, else on the test
    split; without ``patience`` the last epoch is reported. 0: never."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Evaluations on the split ``val`` without a better S-AUROC after which training stops; the weights of
    the best one are then reported. 0: training runs to the last epoch, which is reported."""
    overfit_alarm: Annotated[float, Field(gt=0, le=1)] | None = None
    """Warn after an evaluation in which the anomalous samples stand out more from the normal ones trained on
    than from the evaluated ones, by more than this difference of the S-AUROC. None: no such comparison."""
    validate_every: Annotated[int, Field(ge=0)] = 1
    """Epochs between validations on normal samples with painted defects, for curves only: those held out of
    training (`holdout`) if there are any, else some of those trained on. No test sample is used. On the same
    normals, predictions of stored features are compared with the features' mean over training samples: a
    model that is worse than it is reported as not trained. 0: never."""
    dropout: ViewDropoutConfig = ViewDropoutConfig()
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of an exponential moving average of the weights, which is then evaluated instead of them; 0: off.
    It rises over the steps: min(ema, (1 + n) / (10 + n)) after n of them."""
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training normals kept out of training, for calibration and thresholds."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.warmup and self.schedule.warmup:
            raise ValueError("warmup: expected 0 with schedule.warmup, which is a warm-up of its own")
        if self.patience and not self.eval_every:
            raise ValueError("patience: chooses among evaluations: set eval_every, e.g. 1, or patience to 0")
        return self


class EvalConfig(Section):
    """Reduction of maps to scores, and the metrics computed from them."""

    score: Literal["max", "topk", "topshare", "method"] = "max"
    """Reduction of pixels to a view score; ``method``: the rule of the method's authors (else ``max``)."""
    top_k: Count = 100
    """Number of pixels that ``topk`` averages."""
    top_share: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Share of a map's pixels that ``topshare`` averages, at least one; unlike a number it means the same at
    every image size."""
    sample_score: Literal["max", "mean"] = "max"
    """Reduction of view scores to a sample score."""
    calibrate: Literal["none", "per-view"] = "none"
    """Whether each camera's view scores are centered and scaled on held-out training normals."""
    calibrate_prior: Annotated[float, Field(ge=0)] = 0.0
    """Held-out samples that the cameras' common spread counts as, e.g. 2: with few samples, a camera whose
    spread is small by accident then does not rank all. 0: each camera's own spread."""
    record_normal_scores: bool = False
    """Whether evaluation also scores training normals (those held out of training if there are any, else
    all) and records their mean and spread, by which `idif fuse` scales the runs."""
    fpr_limits: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.3, 0.1, 0.05, 0.01)
    """False-positive limits of AUPRO."""
    aupro: Literal["interpolated", "rescaled"] = "interpolated"
    """``rescaled``: 200 thresholds, points at or above the limit dropped and the rest rescaled, as in many
    papers; for comparing with their tables only."""
    sample_label: Literal["views", "folder"] = "views"
    """A sample is anomalous if any present view is, or if its images are in the folder ``NG``."""
    pool_categories: bool = False
    """Whether all categories' samples are also ranked together."""
    threshold: Literal["f1-max", "validation", "validation-youden", "false-positive-rate"] | float = "f1-max"
    """Rule of the recorded threshold: the best F1 on the evaluated split (an oracle) or on the split ``val``
    (``validation``), the greatest TPR - FPR on ``val`` (``validation-youden``), a false-positive rate on
    held-out training normals, or a fixed number."""
    target_fpr: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """False-positive rate of ``threshold: false-positive-rate``."""
    batch_size: Count = 8

    @property
    def chooses_on_val(self) -> bool:
        """Whether ``threshold`` is chosen with the labels of the split ``val``."""
        return self.threshold in ("validation", "validation-youden")


class InpainterConfig(Section):
    """The small network that inpaints missing views from the others."""

    epochs: Count = 40
    batch_size: Count = 8
    lr: Annotated[float, Field(gt=0)] = 2e-3
    """Peak learning rate of AdamW with a one-cycle schedule."""
    width: Count = 32
    """Channels of the first layer; the deepest has four times as many."""
    seed: Annotated[int, Field(ge=0)] = 0


class StrategiesConfig(Section):
    """Settings of `idif sweep strategies`: how missing views are imputed."""

    layer: str | None = None
    """Layer whose pooled features measure the similarity of samples; null: the last map of the store."""
    neighbours: Count = 1
    """Number of nearest training samples whose views are averaged into the missing one."""
    score_imputed: bool = False
    """Whether imputed views are scored in addition to the present ones."""
    inpainter: InpainterConfig = InpainterConfig()


class RunConfig(Section):
    """Name, folder (``<dir>/<name>/``), tracking and note of a run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "idif"
    dir: UserPath = Path("runs")
    tracking: Literal["auto", "none", "tensorboard", "wandb"] = "auto"
    """Experiment tracker: TensorBoard (``<category>/tensorboard`` in the run's folder) or Weights & Biases;
    ``auto``: TensorBoard if it is installed."""
    note: str = ""
    """A sentence for the run's ``environment.json`` and report, e.g. about the data."""


MethodConfig = Annotated[
    CausalFiLMConfig
    | DeCoDiffConfig
    | IDIFConfig
    | MSFlowConfig
    | PaDiMConfig
    | PatchCoreConfig
    | PooledAutoencoderConfig
    | PooledNeighborsConfig
    | SupConConfig
    | UniADConfig,
    Field(discriminator="name"),
]  # fmt: skip
"""The methods' own sections."""

FIT_KEYS = ("mode", "distribute", "batch_size", "seed", "holdout")
"""Keys of the section ``train`` that apply to a method that is fitted and not trained."""


class Config(Section):
    """The resolved config of one run."""

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
        """Apply the method's own defaults of other sections to the keys that are not given."""
        section = method_section(cls, raw.get("method")) if isinstance(raw, dict) else None
        if section is None:
            return raw
        given = {name: raw.get(name, {}) for name in section.section_defaults}
        return raw | {
            name: _with_defaults(section.section_defaults[name], value)
            for name, value in given.items()
            if isinstance(value, dict)
        }

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.method.uses_corruption and self.corruption != CorruptionConfig():
            raise ValueError(f"corruption: the method {self.method.name} uses none; leave the section out")
        if self.method.fitted:
            self._require_fit_keys()
        elif not self.method.uses_view_dropout and self.train.dropout != ViewDropoutConfig():
            raise ValueError(
                f"train.dropout: the method {self.method.name} drops no views; leave the section out"
            )
        if self.method.uses_labels:
            self._require_unchosen()
        if self.cache.source == "store" and self.cache.store is None:
            raise ValueError("cache.source is 'store' but cache.store names none")
        if self.train.distribute == "categories" and self.train.mode == "unified":
            raise ValueError(
                "train.distribute: categories needs one model for each: train.mode: per-category"
            )
        if self.eval.calibrate != "none" and self.train.holdout == 0:
            raise ValueError(
                "eval.calibrate needs held-out training normals: train with train.holdout, e.g. 0.1"
            )
        if self.eval.calibrate_prior and self.eval.calibrate == "none":
            raise ValueError("eval.calibrate_prior: applies to eval.calibrate, which is none")
        if self.eval.threshold == "false-positive-rate" and self.train.holdout == 0:
            raise ValueError(
                "eval.threshold: false-positive-rate needs held-out training normals: train with "
                "train.holdout, e.g. 0.1"
            )
        return self

    def _require_unchosen(self) -> None:
        """Refuse settings that choose or measure by labels which the method learns from."""
        name = self.method.name
        if self.train.eval_every:
            raise ValueError(
                f"train.eval_every: {name} learns from the split val, and test must not be looked at between "
                "epochs; expected 0"
            )
        if self.eval.chooses_on_val:
            raise ValueError(
                f"eval.threshold: {name} learns from the split val, so a threshold chosen on it says nothing "
                "of new samples; expected false-positive-rate, f1-max or a number"
            )

    def _require_fit_keys(self) -> None:
        """Refuse settings of gradient steps with a method that makes none."""
        name = self.method.name
        expected = TrainConfig.model_validate(self.method.section_defaults.get("train", {}))
        for key in TrainConfig.model_fields:
            if key not in FIT_KEYS and getattr(self.train, key) != getattr(expected, key):
                raise ValueError(
                    f"train.{key}: {name} is fitted in one pass without gradient steps; leave it out"
                )
        if self.run.tracking in ("tensorboard", "wandb"):
            raise ValueError(f"run.tracking: {name} is fitted in one pass and has no curves; leave it out")

    @property
    def may_end_early(self) -> bool:
        """Whether models may be finished before ``train.epochs`` or ``train.steps``: fitted in one pass, or
        ended by ``train.patience``."""
        return self.method.fitted or self.train.patience > 0

    @property
    def preferred_teacher(self) -> TeacherConfig:
        """The method's own defaults of the section ``teacher``."""
        return TeacherConfig.model_validate(self.method.section_defaults.get("teacher", {}))

    @property
    def live(self) -> bool:
        """Whether features come from the live encoder instead of a store."""
        return self.cache.source == "live" or (self.cache.source == "auto" and self.cache.store is None)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.run.dir / self.run.name

    def to_yaml(self) -> str:
        """The resolved config, every key written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _with_defaults(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """``given`` over ``defaults``, by key at every depth; one with another ``name`` takes none."""
    merged = dict(defaults)
    for key, value in given.items():
        default = defaults.get(key)
        if isinstance(default, Mapping) and isinstance(value, Mapping):
            named = default.get("name")
            value = _with_defaults(default, value) if value.get("name", named) == named else value
        merged[key] = value
    return merged


def method_sections(config: type[Config] = Config) -> dict[str, type[MethodSection]]:
    """Method name -> config section, for every method that ``config`` accepts."""
    annotation = config.model_fields["method"].annotation
    members = get_args(annotation) or (annotation,)
    return {section.model_fields["name"].default: section for section in members}


def method_section(config: type[Config], raw: Any) -> type[MethodSection] | None:
    """The section that a raw value of the key ``method`` names; None if it names no known method."""
    if isinstance(raw, MethodSection):
        return type(raw)
    default: str = config.model_fields["method"].default.name
    name = raw.get("name", default) if isinstance(raw, dict) else default
    return method_sections(config).get(name) if isinstance(name, str) else None
