"""`MSFlow`: a normalizing flow for each scale, a fusion flow over all, and maps from likelihoods."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from idif.data.batch import Batch
from idif.methods.maps import MAP
from idif.methods.msflow.config import MSFlowConfig
from idif.methods.msflow.fusion import FusionFlow
from idif.methods.msflow.likelihood import energy, likelihood_maps, log_likelihood, top_mean
from idif.methods.msflow.parallel import ParallelFlow
from idif.methods.protocol import Needs, Scores, TrainedMethod
from idif.methods.section import ViewDropoutConfig
from idif.methods.view_dropout import drop_views
from idif.randomness import Draws


class MSFlow(TrainedMethod):
    """Flows from the features of a view to standard normal latents; views are independent samples."""

    independent_views = True

    def __init__(
        self,
        config: MSFlowConfig,
        channels: Sequence[int],
        image_size: int,
        view_dropout: ViewDropoutConfig | None = None,
    ) -> None:
        """A new model.

        Args:
            config: settings.
            channels: channels of each of ``config.scales``, even.
            image_size: side of the maps in pixels.
            view_dropout: dropout of whole views while training.
        """
        super().__init__()
        self.config, self.image_size = config, image_size
        self.view_dropout = ViewDropoutConfig() if view_dropout is None else view_dropout
        self.other_maps = ("product",)
        self.region_map = "product" if config.region_map == "product" else MAP
        self.needs = Needs(training=config.scales, scoring=config.scales)
        self.parallel = nn.ModuleList(
            ParallelFlow(count, blocks, config.position_channels, config.permutation_seed, name)
            for name, count, blocks in zip(config.scales, channels, config.blocks, strict=True)
        )
        self.fusion = FusionFlow(channels, config.permutation_seed)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Latents of each scale, log-determinants of the parallel flows [N] each, and of the fusion flow [N].

        Args:
            features: float32 [N,C,h,w] of each scale.
        """
        flows = [flow(x) for flow, x in zip(self.parallel, features, strict=True)]
        latents, log_det = self.fusion([z for z, _ in flows])
        return latents, [parallel for _, parallel in flows], log_det

    def inverse(self, latents: Sequence[Tensor]) -> list[Tensor]:
        """The features whose latents are given."""
        features = []
        for flow, z in zip(self.parallel, self.fusion.inverse(latents), strict=True):
            assert isinstance(flow, ParallelFlow)
            features.append(flow.inverse(z))
        return features

    def training_step(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """See `TrainedMethod.training_step`: the negative log-likelihood of a view, but for a constant.

        The parts come before their sum, so that a message about a value that is not finite names the scale.
        """
        dropout = self.view_dropout
        kept = batch.view_mask
        if dropout.probability:
            kept = drop_views(kept, draws.view_seeds(), dropout.probability, dropout.per)
        latents, log_dets, fusion = self(self._features(batch, kept))
        count = max(1, len(fusion))
        scales = self.config.scales
        parts = {f"energy_{s}": energy(z).sum() / count for s, z in zip(scales, latents, strict=True)}
        parts |= {f"log_det_{s}": value.sum() / count for s, value in zip(scales, log_dets, strict=True)}
        parts["log_det_fusion"] = fusion.sum() / count
        signs = [part if name.startswith("energy") else -part for name, part in parts.items()]
        return {**parts, "loss": torch.stack(signs).sum()}

    def score(self, batch: Batch) -> Scores:
        """See `Method.score`: the sum map is ``map``; view scores come from the product map."""
        latents, _, _ = self(self._features(batch, batch.view_mask))
        size = (self.image_size, self.image_size)
        maps = likelihood_maps([log_likelihood(z) for z in latents], size)
        sums = maps.sum.new_zeros((*batch.view_mask.shape, *size))
        products, views = torch.zeros_like(sums), sums.new_zeros(batch.view_mask.shape)
        sums[batch.view_mask], products[batch.view_mask] = maps
        views[batch.view_mask] = top_mean(maps.product, self.config.top_share)
        return Scores(maps={MAP: sums, "product": products}, views=views)

    def describe(self) -> dict[str, str]:
        """See `Method.describe`."""
        share = f"{100 * self.config.top_share:g} %"
        return {
            "head": "msflow",
            "map": "sum map: likelihoods relative to each scale's largest in the image, upsampled bilinearly "
            "and added; their largest sum minus the sum",
            "product": "product map: minus the product of the scales' upsampled likelihoods, relative to the "
            "largest in the image",
            "method_view_score": f"mean of the largest {share} of the pixels of the product map",
        }

    def _features(self, batch: Batch, kept: Tensor) -> list[Tensor]:
        """float32 [N,C,h,w] of each scale, of the N views of ``kept`` [B,V], channels last."""
        maps = [batch.arrays[name][kept].float() for name in self.config.scales]
        return [x.contiguous(memory_format=torch.channels_last) for x in maps]
