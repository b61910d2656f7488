"""Supervised contrastive learning of one embedding from several inputs, scored by nearest normal samples."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idif.data.batch import Batch
from idif.data.features import FeatureSpec, check_arrays
from idif.errors import CannotFinish, ConfigError
from idif.methods.pooling import Pooling
from idif.methods.protocol import Needs, Scores, TrainedMethod
from idif.methods.supcon.config import SeriesConfig, SupConConfig
from idif.methods.supcon.losses import mix, supervised_contrastive_loss
from idif.randomness import Draws, numpy_rng

SERIES_AXES = ("time", "channel")
CONSTANT = 1e-6
"""Spread of a channel, as a share of its mean, that counts as none."""
EMBEDDED_AT_ONCE = 256
"""Normal training samples that are embedded at once."""


class Given(NamedTuple):
    """One input of a batch."""

    values: Tensor
    """float32 [B,C], or [B,T,C] of a series; zero for samples without it."""
    present: Tensor
    """bool [B]."""


class SeriesEncoder(nn.Module):
    """A transformer over the steps of a series [B,T,C] -> its mean token [B,width]."""

    def __init__(self, steps: int, channels: int, config: SeriesConfig, dropout: float) -> None:
        super().__init__()
        self.project_in = nn.Linear(channels, config.width)
        self.positions = nn.Parameter(0.02 * torch.randn(steps, config.width))
        layer = nn.TransformerEncoderLayer(
            config.width,
            config.attention_heads,
            config.feedforward,
            dropout,
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, series: Tensor) -> Tensor:
        """The mean over time of the last layer's tokens, normalized."""
        tokens = self.layers(self.project_in(series) + self.positions)
        pooled: Tensor = self.norm(tokens.mean(dim=1))
        return pooled


class Fusion(nn.Module):
    """Learned tokens that ask the tokens of the inputs -> one vector of each sample."""

    def __init__(self, inputs: int, config: SupConConfig) -> None:
        super().__init__()
        self.asking = nn.Parameter(0.02 * torch.randn(config.tokens, config.width))
        self.kinds = nn.Parameter(0.02 * torch.randn(inputs, config.width))
        layer = nn.TransformerDecoderLayer(
            config.width, config.attention_heads, config.feedforward, config.dropout, batch_first=True
        )
        self.layers = nn.TransformerDecoder(layer, config.layers)
        self.project_out = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, config.width))

    def forward(self, inputs: Tensor, present: Tensor) -> Tensor:
        """Vectors [B,D]; undefined but finite for samples without any input.

        Args:
            inputs: tokens [B,inputs,D].
            present: bool [B,inputs].
        """
        # attention to nothing is not a number
        hidden = ~present & present.any(dim=1, keepdim=True)
        asking = self.asking.expand(len(inputs), -1, -1)
        tokens = self.layers(asking, inputs + self.kinds, memory_key_padding_mask=hidden)
        fused: Tensor = self.project_out(tokens.mean(dim=1))
        return fused


class SupCon(TrainedMethod):
    """An embedding in which normal samples are near each other, and defects away from them.

    It keeps the inputs of the normal training samples, not their embeddings: those follow the weights.
    """

    draws_maps = False
    bank_present: Tensor

    def __init__(self, config: SupConConfig, features: FeatureSpec) -> None:
        """A new model for the arrays of a source, which has all that the method reads.

        Raises:
            StoreMismatch: an array is missing.
            ConfigError: an array has other axes.
        """
        super().__init__()
        self.config = config
        self.pooling = Pooling(tuple(name for name in config.arrays if name not in config.series), features)
        self.needs = Needs(training=config.arrays, scoring=config.arrays)
        inputs = {encoder.name: encoder.input for encoder in features.encoders}
        self.series_inputs: dict[str, str] = {}
        width, encoders, projections = config.width, {}, {}
        for name in config.series:
            check_series(name, features)
            array = features.arrays[name]
            self.series_inputs[name] = inputs[array.origin]
            steps, channels = array.shape
            encoders[name] = SeriesEncoder(steps, channels, config.series_encoder, config.dropout)
        for name in config.arrays:
            channels = config.series_encoder.width if name in encoders else self.pooling.channels[name]
            projections[name] = nn.Sequential(
                nn.Linear(channels, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width)
            )
            shape = features.arrays[name].shape if name in encoders else (channels,)
            self.register_buffer(f"bank_{name}", torch.zeros(0, *shape))
            self.register_buffer(f"mean_{name}", torch.zeros(shape[-1]))
            self.register_buffer(f"spread_{name}", torch.ones(shape[-1]))
        self.register_buffer("bank_present", torch.zeros(0, len(config.arrays), dtype=torch.bool))
        self.series = nn.ModuleDict(encoders)
        self.projections = nn.ModuleDict(projections)
        self.fusion = Fusion(len(config.arrays), config)
        self.classifier = nn.Linear(width, 2) if config.cross_entropy else None
        self._bank: Tensor | None = None

    def prepare(self, batches: Iterable[Batch]) -> None:
        """See `LearnsStatistics.prepare`: inputs of normal samples, whose embeddings score others, and the
        mean and spread of their channels, by which all inputs are standardized.

        Raises:
            CannotFinish: there are none.
        """
        parts: list[list[Tensor]] = []
        for batch in batches:
            given, present = self._given(batch)
            chosen = ~batch.sample_labels & present.any(dim=1)
            parts.append([present[chosen], *(each.values[chosen] for each in given.values())])
        if not sum(len(part[0]) for part in parts):
            raise CannotFinish(
                "supcon: scores are distances to normal training samples, of which there are none"
            )
        self.bank_present, *values = (
            torch.cat(each).to(self.bank_present.device) for each in zip(*parts, strict=True)
        )
        for place, (name, each) in enumerate(zip(self.config.arrays, values, strict=True)):
            setattr(self, f"bank_{name}", each)
            known = each[self.bank_present[:, place]].flatten(0, -2).double()
            if len(known) > 1:
                spread, mean = torch.std_mean(known, dim=0, correction=0)
                # a channel that never changes is centered and not blown up
                spread = torch.where(spread > CONSTANT * mean.abs(), spread, 1.0)
                setattr(self, f"mean_{name}", mean.float())
                setattr(self, f"spread_{name}", spread.float())
        self._bank = None

    def training_step(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """See `TrainedMethod.training_step`."""
        config = self.config
        given, present = self._given(batch)
        known = present.any(dim=1)
        # a sample without any input teaches nothing, and is no one's partner
        rows = known.nonzero()[:, 0] if known.any() else torch.arange(len(batch), device=known.device)
        labels, present = batch.sample_labels[rows].long(), present[rows]
        share, partner = 1.0, torch.arange(len(rows), device=rows.device)
        if config.mixup:
            rng = numpy_rng("supcon mixup", draws.seed, draws.step, draws.rank)
            share = float(rng.beta(config.mixup, config.mixup))
            partner = torch.from_numpy(rng.permutation(len(rows))).to(rows.device)
        mixed = {
            name: Given(mix(each.values[rows], each.present[rows], partner, share), each.present[rows])
            for name, each in given.items()
        }
        # dropout uses torch's global generator: seeded at each step, so that a resumed run repeats it
        draws.seed_torch()
        embedded = self._embed(mixed, present)
        own, other = (self._losses(embedded, target) for target in (labels, labels[partner]))
        losses = {name: (share * own[name] + (1 - share) * other[name]) * known.any() for name in own}
        weights = {"contrastive": 1.0, "cross_entropy": config.cross_entropy}
        loss = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
        return {"loss": loss, **losses}

    @torch.no_grad()
    def score(self, batch: Batch) -> Scores:
        """See `Method.score`; NaN for a sample that lacks all inputs."""
        given, present = self._given(batch)
        bank = self._bank_vectors()
        distances = 1 - F.normalize(self._embed(given, present).float(), dim=1) @ bank.T
        nearest = distances.topk(min(self.config.neighbors, len(bank)), dim=1, largest=False).values
        samples = nearest.mean(dim=1).masked_fill(~present.any(dim=1), torch.nan)
        return Scores(views=torch.zeros(batch.view_mask.shape), samples=samples)

    def describe(self) -> dict[str, str]:
        """See `Method.describe`."""
        return {
            "head": "supcon",
            "sample_score": f"mean cosine distance to the {self.config.neighbors} nearest normal training "
            f"samples in an embedding of {', '.join(self.config.arrays)}, learned from labels",
        }

    def train(self, mode: bool = True) -> Self:
        """As in torch; normal training samples are then embedded anew, by the present weights."""
        self._bank = None
        return super().train(mode)

    def _losses(self, embedded: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The parts of the loss for embeddings [B,D] of labels int64 [B]."""
        unit = F.normalize(embedded.float(), dim=1)
        losses = {"contrastive": supervised_contrastive_loss(unit, labels, self.config.temperature)}
        if self.classifier is not None:
            losses["cross_entropy"] = F.cross_entropy(self.classifier(embedded).float(), labels)
        return losses

    def _given(self, batch: Batch) -> tuple[dict[str, Given], Tensor]:
        """The inputs in the order of ``method.arrays``, and which of them are present, bool [B,inputs]."""
        pooled = self.pooling(batch)
        given: dict[str, Given] = {}
        for name in self.config.arrays:
            if name in pooled:
                given[name] = Given(*pooled[name])
            else:
                present = batch.present[self.series_inputs[name]]
                values = batch.arrays[name].float().masked_fill(~present[:, None, None], 0.0)
                given[name] = Given(values, present)
        return given, torch.stack([each.present for each in given.values()], dim=1)

    def _embed(self, given: Mapping[str, Given], present: Tensor) -> Tensor:
        """Embeddings [B,D], not normalized."""
        tokens = []
        for name, each in given.items():
            values = (each.values - self.get_buffer(f"mean_{name}")) / self.get_buffer(f"spread_{name}")
            values = values.masked_fill(~each.present.view(-1, *[1] * (values.ndim - 1)), 0.0)
            if name in self.config.series:
                values = self.series[name](values)
            tokens.append(self.projections[name](values))
        embedded: Tensor = self.fusion(torch.stack(tokens, dim=1), present)
        return embedded

    def _bank_vectors(self) -> Tensor:
        """Unit vectors of the normal training samples [N,D] by the present weights."""
        if self._bank is None or self._bank.device != self.bank_present.device:
            parts = []
            for start in range(0, len(self.bank_present), EMBEDDED_AT_ONCE):
                some = slice(start, start + EMBEDDED_AT_ONCE)
                present = self.bank_present[some]
                given = {
                    name: Given(self.get_buffer(f"bank_{name}")[some], present[:, place])
                    for place, name in enumerate(self.config.arrays)
                }
                parts.append(F.normalize(self._embed(given, present).float(), dim=1))
            self._bank = torch.cat(parts)
        return self._bank

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *others: Any) -> None:
        """Take over the bank's size, which depends on the data."""
        for name in ("present", *self.config.arrays):
            key = f"{prefix}bank_{name}"
            if key in state_dict:
                device = self.bank_present.device
                setattr(self, f"bank_{name}", torch.empty_like(state_dict[key], device=device))
        self._bank = None
        super()._load_from_state_dict(state_dict, prefix, *others)


def check_series(name: str, features: FeatureSpec) -> None:
    """Refuse an array that is no series of whole samples.

    Raises:
        StoreMismatch: it is missing.
        ConfigError: it has other axes, or depends on no input.
    """
    check_arrays([name], features)
    array = features.arrays[name]
    origins = {encoder.name for encoder in features.encoders if encoder.input in features.inputs}
    if array.axes != SERIES_AXES or array.origin not in origins:
        raise ConfigError(
            f"method.series: {name}: expected features of an input with the axes time, channel; got "
            f"{', '.join(array.axes)}"
        )
