"""Causal-FiLM put together: how far the result of a weld is from what its making lets expect."""

from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from idif.data.batch import Batch
from idif.data.features import FeatureSpec
from idif.methods.causal_film.config import CausalFiLMConfig
from idif.methods.causal_film.losses import (
    cosine_distance,
    gram_distance,
    largest_half,
    mean_over,
    rank_and_spread,
)
from idif.methods.causal_film.process import Decoder, ProcessEncoder, Projector, drop_values
from idif.methods.causal_film.result import ResultEncoder, over_views
from idif.methods.causal_film.sensor import SensorModulator, modulate
from idif.methods.protocol import Needs, Scores, TrainedMethod
from idif.methods.section import ViewDropoutConfig
from idif.methods.view_dropout import drop_views
from idif.randomness import Draws, stream, uniform

VIDEO, AUDIO, SENSOR, TEXT = "video", "audio", "sensor", "text"
"""Names of the arrays of a sample that the method reads."""
PROCESS = (VIDEO, AUDIO, SENSOR)
SLOWEST = 0.05
"""Least weight of a new batch in the mean embeddings of training normals."""


class Embeddings(NamedTuple):
    """The two embeddings of a batch that are compared."""

    prediction: Tensor
    """float32 [B,D]: the result as predicted from the process."""
    result: Tensor
    """float32 [B,D]."""
    views: Tensor
    """float32 [B,V,D]: the result of each still alone."""
    has_process: Tensor
    """bool [B]: whether video, sound or sensors are present."""
    has_result: Tensor
    """bool [B]: whether a still is present."""


class CausalFiLM(TrainedMethod):
    """Predicts the embedding of a weld's stills from its video, sound and sensor series.

    Shapes are in `idif.data.batch`'s legend; D is the width of the embeddings.
    """

    draws_maps = False
    normal_prediction: Tensor
    normal_result: Tensor
    batches_seen: Tensor

    def __init__(
        self, config: CausalFiLMConfig, features: FeatureSpec, view_dropout: ViewDropoutConfig | None = None
    ) -> None:
        """A new model for the arrays of a source, which has all that the method reads."""
        super().__init__()
        self.config, self.view_dropout = config, view_dropout or ViewDropoutConfig()
        arrays = features.arrays
        scoring = (*PROCESS, *dict.fromkeys(pooling.array for pooling in config.poolings))
        self.needs = Needs(training=(*scoring, TEXT) if config.loss.text else scoring, scoring=scoring)
        inputs = {encoder.name: encoder.input for encoder in features.encoders}
        self.inputs = {name: inputs[arrays[name].origin] for name in PROCESS}
        width = config.width
        self.project_video = Projector(arrays[VIDEO].shape[-1], width)
        self.project_audio = Projector(arrays[AUDIO].shape[-1], width)
        self.modulator = SensorModulator(arrays[SENSOR].shape[-1], width, config.sensor)
        self.process = ProcessEncoder(config)
        channels = tuple(arrays[pooling.array].shape[-1] for pooling in config.poolings)
        self.result = ResultEncoder(config, channels)
        self.decoder = Decoder(width, config.decoder_dropout)
        self.project_text = nn.Linear(width, arrays[TEXT].shape[-1]) if config.loss.text else None
        self.slow_result = deepcopy(self.result) if config.target == "ema" else None
        fixed = {"joint": None, "detach": self.result, "ema": self.slow_result}[config.target]
        if fixed is not None:
            fixed.requires_grad_(False)
        self.register_buffer("normal_prediction", torch.zeros(width))
        self.register_buffer("normal_result", torch.zeros(width))
        self.register_buffer("batches_seen", torch.zeros((), dtype=torch.int64))

    def training_step(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """See `TrainedMethod.training_step`; ``result_rank`` and ``result_spread`` show a collapse."""
        config, dropout = self.config, self.view_dropout
        present = self._drop_inputs({name: batch.present[self.inputs[name]] for name in PROCESS}, draws)
        view_mask = drop_views(batch.view_mask, draws.view_seeds(), dropout.probability, dropout.per)
        arrays = {name: batch.arrays[name].float() for name in (VIDEO, AUDIO)}
        for name, features in arrays.items():
            generator = draws.generator(f"causal-film {name}")
            for share in (config.mask, config.feature_dropout):
                features = drop_values(features, share, generator)
            arrays[name] = features
        # dropout uses torch's global generator: seeded at each step, so that a resumed run repeats it
        draws.seed_torch()
        if self.slow_result is not None:
            self._follow(self.slow_result)
        pair = self._embed(batch.arrays | arrays, present, view_mask)
        whole = pair.has_process & pair.has_result
        if self.slow_result is None:
            losses = self._distances(pair.prediction, pair.result, whole)
        else:
            with torch.no_grad():
                slow = over_views(self.slow_result(batch.arrays, view_mask), view_mask, config.views)
            losses = self._distances(pair.prediction, slow, whole)
            other = self._distances(pair.prediction.detach(), pair.result, whole)
            losses = {name: (value + other[name]) / 2 for name, value in losses.items()}
        if self.project_text is not None:
            text = batch.arrays[TEXT].float()
            said = cosine_distance(self.project_text(pair.prediction).float(), text)
            losses["text"] = mean_over(said, pair.has_process)
        weights = {"cosine": 1.0, "l1": config.loss.l1, "gram": config.loss.gram, "text": config.loss.text}
        loss = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
        self._remember(pair)
        rank, spread = rank_and_spread(pair.result[pair.has_result].detach())
        return {"loss": loss, **losses, "result_rank": rank, "result_spread": spread}

    def score(self, batch: Batch) -> Scores:
        """See `Method.score`; NaN for a sample without any input.

        Where the process or the stills are missing altogether, the mean embedding of training normals takes
        the place of theirs: what is not known is taken as normal.
        """
        present = {name: batch.present[self.inputs[name]] for name in PROCESS}
        pair = self._embed(batch.arrays, present, batch.view_mask, slow=True)
        prediction = torch.where(pair.has_process[:, None], pair.prediction, self.normal_prediction)
        result = torch.where(pair.has_result[:, None], pair.result, self.normal_result)
        parts = self._score_parts(prediction, result)
        samples = torch.stack(list(parts.values())).sum(dim=0)
        known = pair.has_process | pair.has_result
        views = prediction[:, None].expand_as(pair.views)
        each = self._score_parts(views.flatten(0, 1), pair.views.flatten(0, 1))
        of_views = torch.stack(list(each.values())).sum(dim=0).view(batch.view_mask.shape)
        return Scores(
            views=of_views.masked_fill(~batch.view_mask, 0.0),
            samples=samples.masked_fill(~known, torch.nan),
            parts={name: part.masked_fill(~known, torch.nan) for name, part in parts.items()},
        )

    def describe(self) -> dict[str, str]:
        """See `Method.describe`."""
        weight = self.config.score_weight
        return {
            "head": "causal-film",
            "sample_score": "cosine distance of the predicted and the actual embedding of the stills, plus "
            f"{weight:g} times the mean of the larger half of their absolute differences",
            "missing_inputs": "the mean embedding of training normals stands for a missing process or result",
        }

    def _score_parts(self, prediction: Tensor, result: Tensor) -> dict[str, Tensor]:
        """The summands of the anomaly score of embeddings [N,D], each [N]."""
        weight = self.config.score_weight
        return {
            "cosine distance": cosine_distance(prediction, result),
            f"{weight:g} x larger half of differences": weight * largest_half(prediction - result),
        }

    def _distances(self, prediction: Tensor, result: Tensor, chosen: Tensor) -> dict[str, Tensor]:
        """Parts of the loss, means over ``chosen`` samples."""
        reduction = self.config.loss.gram_reduction
        parts = {
            "cosine": cosine_distance(prediction, result),
            "l1": (prediction - result).abs().mean(dim=1),
            "gram": gram_distance(prediction, result, reduction),
        }
        return {name: mean_over(values, chosen) for name, values in parts.items()}

    def _embed(
        self,
        arrays: dict[str, Tensor],
        present: dict[str, Tensor],
        view_mask: Tensor,
        *,
        slow: bool = False,
    ) -> Embeddings:
        """The embeddings of a batch.

        Args:
            arrays: those of the batch, those of the process perturbed while training.
            present: presence of the inputs of the process, each bool [B].
            view_mask: bool [B,V].
            slow: whether to use the slow copy of the result's encoder, if there is one.
        """
        shown = {
            name: arrays[name].float().masked_fill(~present[name][:, None, None], 0.0) for name in PROCESS
        }
        scale, shift = self.modulator(shown[SENSOR], present[SENSOR])
        video = modulate(self.project_video(shown[VIDEO]), scale, shift)
        audio = modulate(self.project_audio(shown[AUDIO]), scale, shift)
        process = self.process(video, audio, shift, (present[VIDEO], present[AUDIO]))
        prediction = self.decoder(process).float()
        encoder = self.slow_result if slow and self.slow_result is not None else self.result
        views = encoder(arrays, view_mask)
        result = over_views(views, view_mask, self.config.views)
        has_process = torch.stack(list(present.values())).any(dim=0)
        return Embeddings(prediction, result, views, has_process, view_mask.any(dim=1))

    def _drop_inputs(self, present: dict[str, Tensor], draws: Draws) -> dict[str, Tensor]:
        """Presence while training: each input of the process is dropped at random, never all of a sample."""
        if self.config.input_dropout == 0:
            return present
        chance = uniform(draws.sample_seeds(), stream("causal-film inputs"), len(present))
        kept = {
            name: shown & (chance[:, place] >= self.config.input_dropout)
            for place, (name, shown) in enumerate(present.items())
        }
        lost = ~torch.stack(list(kept.values())).any(dim=0)
        return {name: torch.where(lost, present[name], shown) for name, shown in kept.items()}

    @torch.no_grad()
    def _follow(self, slow: nn.Module) -> None:
        """Move the slow copy of the result's encoder towards it."""
        weight = 1 - self.config.target_decay
        for behind, ahead in zip(slow.parameters(), self.result.parameters(), strict=True):
            behind.lerp_(ahead, weight)

    @torch.no_grad()
    def _remember(self, pair: Embeddings) -> None:
        """Update the mean embeddings of training normals."""
        weight = max(1 / (int(self.batches_seen) + 1), SLOWEST)
        for mean, vectors, shown in (
            (self.normal_prediction, pair.prediction, pair.has_process),
            (self.normal_result, pair.result, pair.has_result),
        ):
            if shown.any():
                mean.lerp_(vectors[shown].mean(dim=0), weight)
        self.batches_seen += 1
