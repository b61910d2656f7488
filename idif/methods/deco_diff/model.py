"""DeCo-Diff put together: latents in, corrected latents out; their difference is the anomaly map."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idif.data.batch import Batch
from idif.data.features import IMAGES
from idif.encoders.autoencoder import LOGVAR, MU
from idif.encoders.frozen import FrozenEncoder
from idif.encoders.options import DECODED
from idif.errors import ConfigError
from idif.methods.deco_diff.config import DeCoDiffConfig
from idif.methods.deco_diff.difference_maps import DifferenceMaps, fuse
from idif.methods.deco_diff.diffusion import STEPS, correct, corrupt
from idif.methods.deco_diff.unet import DeviationUNet, Size
from idif.methods.maps import MAP
from idif.methods.protocol import Needs, Scores, TrainedMethod
from idif.methods.section import ViewDropoutConfig
from idif.methods.view_dropout import drop_views
from idif.methods.view_mean import mean_over_kept
from idif.randomness import Draws

PIXEL_MAPS = ("geometric", "arithmetic", "image", "latent")
"""Maps of a model with a decoder."""
GATE_MAPS = ("gate", "fused")
"""Maps of a model with gates, besides."""


class DeCoDiff(TrainedMethod):
    """Corrects the latents of each view, independent of all other views.

    Shapes are in `idif.data.batch`'s legend; P is the number of present views of a batch.
    """

    independent_views = True

    def __init__(
        self,
        config: DeCoDiffConfig,
        size: Size,
        shape: tuple[int, int, int],
        image_size: int,
        categories: Sequence[str],
        *,
        posterior: bool,
        decoder: FrozenEncoder | None = None,
        stores_decoded: bool = False,
        view_dropout: ViewDropoutConfig | None = None,
    ) -> None:
        """A new model.

        Args:
            config: settings.
            size: widths of the network.
            shape: (C, h, w) of the latents.
            image_size: side of the anomaly maps.
            categories: the classes, in the order of their numbers.
            posterior: whether the source holds the posterior's variance, and training samples from it.
            decoder: the autoencoder of the latents; without one maps come from the latents alone. It is no
                part of the state.
            stores_decoded: whether the source holds what the decoder makes of the clean latents.
            view_dropout: views left out while training.
        """
        super().__init__()
        self.config, self.categories, self.image_size = config, tuple(categories), image_size
        self.posterior, self.decoder = posterior, decoder
        self.view_dropout = view_dropout or ViewDropoutConfig()
        decoded = stores_decoded and decoder is not None
        self.needs = Needs(
            training=(MU, LOGVAR) if posterior else (MU,), scoring=(MU, DECODED) if decoded else (MU,)
        )
        gates = config.gating.init if config.gating.used else None
        classes = max(1, len(self.categories))
        self.unet = DeviationUNet(shape[0], classes, size, dropout=config.dropout, gates=gates)
        self.differences = DifferenceMaps(shape[1], image_size)
        known = (*(PIXEL_MAPS if decoder is not None else ("latent",)), *(GATE_MAPS if config.gated else ()))
        self.map_name = config.map if decoder is not None else "latent"
        self.other_maps = tuple(name for name in known if name != self.map_name)

    def training_step(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """See `TrainedMethod.training_step`: the deviation of corrupted latents is predicted."""
        seeds, dropout, config = draws.view_seeds(), self.view_dropout, self.config
        view_mask = drop_views(batch.view_mask, seeds, dropout.probability, dropout.per)
        generator = draws.generator("deco-diff")
        latents = self._sampled(batch, view_mask, generator)
        timesteps = torch.randint(STEPS, (len(latents),), generator=generator, device=latents.device)
        likely = torch.tensor(config.patch_probabilities, device=latents.device)
        patch = config.patch_sizes[int(torch.multinomial(likely, 1, generator=generator))]
        given = corrupt(
            latents, timesteps, patch, generator, corrupted=config.corrupted, shuffled=config.shuffled
        )
        # dropout uses torch's global generator: seeded at each step, so that a resumed run repeats it
        draws.seed_torch()
        predicted = self.unet(given.latents, timesteps, self._classes(batch, view_mask))
        errors = latents.new_zeros(view_mask.shape)
        errors[view_mask] = (predicted.values.float() - given.deviation).square().mean(dim=(1, 2, 3))
        deviation = mean_over_kept(errors, view_mask)
        if config.gating.loss == 0:
            return {"loss": deviation}
        logits = predicted.gate_logits.float()
        wanted = given.mask.expand_as(logits)
        misplaced = latents.new_zeros(view_mask.shape)
        each = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        misplaced[view_mask] = each.mean(dim=(1, 2, 3))
        gate = mean_over_kept(misplaced, view_mask)
        return {"loss": deviation + config.gating.loss * gate, "deviation": deviation, "gate": gate}

    def score(self, batch: Batch) -> Scores:
        """See `Method.score`."""
        view_mask = batch.view_mask
        names = {self.map_name: MAP} | {name: name for name in self.other_maps}
        blank = torch.zeros(*view_mask.shape, self.image_size, self.image_size, device=view_mask.device)
        maps = {name: blank.clone() for name in names.values()}
        if view_mask.any():
            latents = batch.arrays[MU][view_mask].float()
            decoded = batch.arrays[DECODED][view_mask].float() if DECODED in self.needs.scoring else None
            found = self.view_maps(latents, self._classes(batch, view_mask), decoded)
            for name, key in names.items():
                maps[key][view_mask] = found[name]
        return Scores(maps=maps)

    def correct_views(self, latents: Tensor, classes: Tensor) -> Tensor:
        """Corrected latents [P,C,h,w] of latents float32 [P,C,h,w]; classes int64 [P]."""

        def deviation(deviating: Tensor, timestep: int) -> Tensor:
            timesteps = torch.full_like(classes, timestep)
            predicted: Tensor = self.unet(deviating, timesteps, classes, self.config.gated).values
            return predicted.float()

        return correct(latents, self.config.reverse_steps, deviation)

    def view_maps(self, latents: Tensor, classes: Tensor, decoded: Tensor | None = None) -> dict[str, Tensor]:
        """The maps float32 [P,S,S] of latents [P,C,h,w], by name.

        Args:
            decoded: what the decoder makes of the latents, [P,3,S,S]; None: it is run.
        """
        corrected, draw = self.correct_views(latents, classes), self.differences
        maps = {"latent": draw.of_latents(latents, corrected)}
        if self.decoder is not None:
            decode = self.decoder.decode
            clean = decode(latents).float() if decoded is None else decoded
            maps["image"] = draw.of_images(clean, decode(corrected).float())
            maps["geometric"] = (maps["image"] * maps["latent"]).clamp(min=0).sqrt()
            maps["arithmetic"] = (maps["image"] + maps["latent"]) / 2
        if self.config.gated:
            logits = self.unet(latents, torch.zeros_like(classes), classes).gate_logits
            maps["gate"] = draw.of_gate(logits.float().sigmoid())
            maps["fused"] = fuse(maps["geometric" if self.decoder is not None else "latent"], maps["gate"])
        return maps

    @property
    def rebuilt(self) -> tuple[str, ...]:
        """See `Reconstructs`."""
        return (MU,) if self.decoder is None else (MU, IMAGES)

    def reconstruct(self, batch: Batch) -> dict[str, Tensor]:
        """See `Reconstructs`: the corrected latents, and the images that they are decoded to."""
        shown, side = batch.view_mask, self.image_size
        rebuilt = {MU: torch.zeros_like(batch.arrays[MU], dtype=torch.float32)}
        if self.decoder is not None:
            rebuilt[IMAGES] = torch.zeros(*shown.shape, 3, side, side, device=shown.device)
        if shown.any():
            corrected = self.correct_views(batch.arrays[MU][shown].float(), self._classes(batch, shown))
            rebuilt[MU][shown] = corrected
            if self.decoder is not None:
                rebuilt[IMAGES][shown] = self.decoder.decode(corrected).float()
        return rebuilt

    def describe(self) -> dict[str, str]:
        """See `Method.describe`."""
        images = "difference of the decoded images, at most 0.4 of a scale from -1 to 1, smoothed by 3 px"
        latents = "mean difference of the latents' channels, at most 0.2, smoothed by one position"
        drawn = {
            "geometric": f"geometric mean of two maps. Image: {images}. Latent: {latents}",
            "arithmetic": f"arithmetic mean of two maps. Image: {images}. Latent: {latents}",
            "image": f"image: {images}",
            "latent": f"latent: {latents}"
            + ("" if self.decoder is not None else "; latent-only: no decoder was at hand"),
            "fused": f"0.6 of the geometric mean of two maps, 0.4 of the gate. Image: {images}. "
            f"Latent: {latents}",
        }
        gates = ", gated" if self.config.gated else ", gates left out" if self.config.gating.used else ""
        return {
            "head": f"DeCo-Diff {self.config.size}{gates}, {self.config.reverse_steps} reverse steps",
            "map": drawn[self.map_name],
        }

    def export_module(self) -> nn.Module:
        """See `SupportsExport`.

        Raises:
            ConfigError: the model has several classes, which a graph of images and views has no input for.
        """
        if len(self.categories) > 1:
            raise ConfigError(
                f"train.mode: a graph has no input for the class; this model has {len(self.categories)}, and "
                "only one of a single category can be exported"
            )
        return ExportDeCoDiff(self)

    def _sampled(self, batch: Batch, view_mask: Tensor, generator: torch.Generator) -> Tensor:
        """The latents float32 [P,C,h,w], drawn from the posterior if there is one."""
        mean = batch.arrays[MU][view_mask].float()
        if not self.posterior:
            return mean
        deviation = (batch.arrays[LOGVAR][view_mask].float() / 2).exp()
        return mean + deviation * torch.randn(mean.shape, generator=generator, device=mean.device)

    def _classes(self, batch: Batch, view_mask: Tensor) -> Tensor:
        """int64 [P]: the class of each view.

        Raises:
            ConfigError: a sample's category is none of the model's.
        """
        numbers = {category: number for number, category in enumerate(self.categories)}
        for category in batch.categories:
            if category not in numbers:
                raise ConfigError(
                    f"data.categories: the model has the classes {', '.join(self.categories) or 'none'}, "
                    f"and {category!r} is none of them"
                )
        each = torch.tensor([numbers[category] for category in batch.categories], device=view_mask.device)
        return each[:, None].expand(view_mask.shape)[view_mask]


class ExportDeCoDiff(nn.Module):
    """The maps of a `DeCoDiff` of one class, with absent views corrected too and then zeroed."""

    def __init__(self, model: DeCoDiff) -> None:
        super().__init__()
        self.model = model
        self.decoder = None if model.decoder is None else model.decoder.module

    def forward(self, images: Tensor, features: dict[str, Tensor], view_mask: Tensor) -> Tensor:
        """Maps float32 [B,V,H,W]; ``images`` [B,V,3,H,W] are not read."""
        latents = features[MU].flatten(0, 1)
        classes = torch.zeros_like(latents[:, 0, 0, 0], dtype=torch.int64)
        maps = self.model.view_maps(latents, classes)[self.model.map_name]
        shown = torch.unflatten(maps, 0, (-1, view_mask.shape[1]))
        return shown.masked_fill(~view_mask[:, :, None, None], 0.0)
